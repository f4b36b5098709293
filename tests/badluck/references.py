#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images whose records are whole but lie: about which file is which, and where it is. Found out before anything exists."""
import os
import pathlib
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_image import BYTES, Image, Message, varint
from cairn_test import FAILED, IMAGE, PYTHON, TIMEOUT, Program, Skip, cairn, check, children_of, fault_line, main, need_cairn, start, test

FD_TABLE, REGULAR_FILE, PIPE_END, MEMFD = 24, 50, 51, 58
PATH, DELETED, CONTENTS, OBJECT, ENTRIES, FILE = 2, 4, 5, 2, 2, 2  # fields of these
SAVED_FILE, IDENTITY = 43, 3
SIZE, NANOSECONDS, MODE = 3, 5, 6  # of a FileIdentity
NOBODY = 0x1fff
WAIT = "\nos.write(1, b'ready\\n')\nwhile not os.path.exists('finish'): time.sleep(PACE)\n"


def saved(code):
    need_cairn()
    program = start([PYTHON, "-c", "import os, time\nPACE = 0.002\n" + code + WAIT], "job")
    program.wait_text("ready")
    program.checkpoint()
    return program


def spoilt(program, tag, change, where=lambda message: True):
    """The same image, but for one record of the kind."""
    name = "spoilt.cairn"
    pathlib.Path(name).write_bytes(pathlib.Path(program.image).read_bytes())
    os.chmod(name, 0o600)
    with Image(name) as image:
        fitting = [record for record in image.records(tag) if where(Message(record.data))]
        check(fitting, f"no record of kind {tag} fits")
        message = Message(fitting[0].data)
        change(message)
        fitting[0].data = message.bytes()
    return name


def refused(image, *named, status=IMAGE):
    others = set(children_of(os.getpid()))
    result = cairn("restore", "-d", image)
    line = fault_line(result, status, *named)
    fault_line(cairn("check", image), status, *named)
    check(not set(children_of(os.getpid())) - others, "a process remains", result)
    return line


FILES = ("f = os.open('file', os.O_RDWR | os.O_CREAT)\nr, w = os.pipe()\ngone = os.open('gone', os.O_RDWR | os.O_CREAT)\nos.unlink('gone')\n"
         "memory = os.memfd_create('memory')")


@test("an image whose descriptors point at files, pipes and contents that are missing is damaged, exit status 6", quick=True)
def missing_ids():
    program = saved(FILES)

    def last_entry(message):
        entries = [Message(entry) for entry in message.all(ENTRIES)]
        entries[-1].set(FILE, NOBODY)
        message.drop(ENTRIES)
        for entry in entries:
            message.add(ENTRIES, entry.bytes(), BYTES)
    refused(spoilt(program, FD_TABLE, last_entry), "damaged", f"file {NOBODY}", "missing")
    for tag, field in ((PIPE_END, OBJECT), (MEMFD, OBJECT), (REGULAR_FILE, CONTENTS)):
        image = spoilt(program, tag, lambda message, at=field: message.set(at, NOBODY),
                       lambda message, of=tag: of != REGULAR_FILE or message.get(DELETED))
        refused(image, "damaged", f"object {NOBODY}", "missing")
    program.restore()
    program.finish()


@test("paths with a zero inside, relative or empty, are damage; one that climbs by .. is a name as any other, and what is there is compared", quick=True)
def paths():
    program = saved(FILES)

    def is_file(message):
        return message.get(PATH, b"").endswith(b"/file")

    def other_path(path):
        return spoilt(program, REGULAR_FILE, lambda message: message.set(PATH, path), is_file)
    path = str(program.path("file").resolve()).encode()
    # What is before the zero is the name of a file that is there, and as it was.
    refused(other_path(path + b"\0.other"), "damaged", "regular file")
    refused(other_path(b"file"), "damaged", "impossible")
    refused(other_path(b""), "damaged", "impossible")
    line = refused(other_path(b"/../etc/passwd"), "/etc/passwd", status=FAILED)
    check("has changed" in line or "was modified" in line, "what is said of it", line)
    program.restore()
    program.finish()


RING = """
import ctypes
libc = ctypes.CDLL(None)
params = (ctypes.c_uint32 * 30)()
ring = libc.syscall(425, 8, params)
assert ring >= 0, 'no io_uring here'
libc.syscall(427, ring, 2, (ctypes.c_int * 1)(os.open('file', os.O_RDWR | os.O_CREAT)), 1)
"""
IO_URING, IO_URING_FILE = 47, 69
CONTEXT = """
import ctypes
libc = ctypes.CDLL(None)
context = ctypes.c_ulong(0)
assert libc.syscall(206, 100, ctypes.byref(context)) == 0, 'no io_setup here'
"""
AIO_RING, FIXED64 = 85, 1


@test("a ring of asynchronous I/O with an impossible place, size, position or events, or elsewhere than its mapping, is damage, exit status 6", quick=True)
def contexts():
    program = saved(CONTEXT)
    address, size, head, unread = 2, 3, 4, 5

    def at(place):
        return place.to_bytes(8, "little")
    for field, value, wire in ((address, at(0), FIXED64), (address, at(0x7fffffffe000), FIXED64), (address, at(0x10000001), FIXED64), (size, 0, None), (size, 4097, None),
                               (size, 1 << 40, None), (head, 100000, None), (head, 383, None), (unread, b"x" * 33, None), (unread, b"x" * 32 * 383, None)):
        refused(spoilt(program, AIO_RING, lambda message, field=field, value=value, wire=wire: message.set(field, value, wire)), "damaged", "asynchronous I/O", "impossible")
    refused(spoilt(program, AIO_RING, lambda message: message.set(address, at(0x10000000), FIXED64)), "damaged", "asynchronous I/O", "lies where")
    program.restore()
    program.finish()


@test("an io_uring's record with impossible positions, sizes or files is damage, exit status 6", quick=True)
def rings():
    if pathlib.Path("/proc/sys/kernel/io_uring_disabled").exists() and pathlib.Path("/proc/sys/kernel/io_uring_disabled").read_text() != "0\n":
        raise Skip("io_uring is disabled")
    program = saved(RING)
    impossible = {
        "an id": (1, 0), "more requests than fit": (2, 16), "completions that are no power of two": (3, 15), "too many completions": (3, 1 << 17),
        "requests taken": (4, 5), "completions posted": (5, 7), "memory": (7, b"short"), "requests": (8, b""), "no array": (9, 1),
    }
    for what, (field, value) in impossible.items():
        line = refused(spoilt(program, IO_URING, lambda message, at=field, to=value: message.set(at, to)), "damaged")
        check("io_uring" in line, f"{what}: the line does not name it", line)

    def layout(message, *offsets):
        message.drop(6)
        message.set(6, b"".join(varint(offset) for offset in offsets))
    whole = (0, 4, 32, 8, 12, 44, 64, 320)
    for place, offset in ((0, 1), (1, 62), (3, 1 << 31), (6, 1 << 20), (7, 316), (7, 1 << 30)):
        refused(spoilt(program, IO_URING, lambda message, at=place, to=offset: layout(message, *whole[:at], to, *whole[at + 1:])), "damaged")
    refused(spoilt(program, IO_URING, lambda message: layout(message, *whole[:-1])), "damaged")

    def longer(message):
        """Without an array, and longer than its pages: nothing is behind what Cairn would write to."""
        message.set(9, 1)
        message.set(7, message.get(7) + bytes(320 + 4096 - len(message.get(7))))
        layout(message, *whole[:-1], 320 + 4096)
    refused(spoilt(program, IO_URING, longer), "damaged", "io_uring")

    def endless(message):
        """More requests taken than completed: counting them up would take minutes."""
        message.set(4, 1 << 31)
        message.set(7, (1 << 31).to_bytes(4, "little") + message.get(7)[4:])
    refused(spoilt(program, IO_URING, endless), "damaged", "io_uring")

    def old(message):
        """After months of work: that is no damage, but counting takes its time, which is bounded."""
        message.set(4, 1 << 31)
        message.set(5, 1 << 31)
        count = (1 << 31).to_bytes(4, "little")
        message.set(7, count + count + count + count + message.get(7)[16:])
    begin = time.monotonic()
    result = cairn("restore", "-d", "--timeout", "1", spoilt(program, IO_URING, old))
    check(result.status == TIMEOUT and time.monotonic() - begin < 20, f"--timeout 1: exit status {result.status}", result)
    refused(spoilt(program, IO_URING_FILE, lambda message: message.set(2, NOBODY)), "damaged", f"object {NOBODY}", "missing")
    for field, value in ((3, 0), (3, 1 << 30), (5, 1 << 30)):
        refused(spoilt(program, IO_URING_FILE, lambda message, at=field, to=value: message.set(at, to)), "damaged")

    def other_file(message):
        message.set(4, varint(2 << 3) + varint(NOBODY))  # which is one, in slot 0
    others = set(children_of(os.getpid()))
    fault_line(cairn("restore", "-d", spoilt(program, IO_URING_FILE, other_file)), IMAGE, "damaged", f"file {NOBODY}")
    check(not set(children_of(os.getpid())) - others, "a process remains")
    program.restore()
    program.finish()


@test("impossible values in saved files are damage, exit status 6", quick=True)
def values():
    need_cairn()
    program = start([PYTHON, "-c", "import os, time\nPACE = 0.002\n" + FILES + WAIT], "job")
    program.wait_text("ready")
    program.checkpoint("--save-files", "all")
    refused(spoilt(program, SAVED_FILE, lambda message: message.set(PATH, b"file")), "damaged", "impossible")
    for field, value in ((MODE, 0o40755), (SIZE, 1 << 63), (NANOSECONDS, 2000000000)):
        def spoil(message, field=field, value=value):
            identity = Message(message.get(IDENTITY))
            identity.set(field, value)
            message.set(IDENTITY, identity.bytes())
        refused(spoilt(program, SAVED_FILE, spoil), "damaged", "impossible")
    program.restore()
    program.finish()


@test("10,000 descriptors of files, pipes and copies are saved and restored, each as it was")
def ten_thousand():
    need_cairn()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10100:
        raise Skip("the limit of descriptors is too low")
    begin = ("import os, resource, time\nPACE = 0.002\nhard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
             "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\nopen('file', 'wb').truncate(100000)\nfds = []\n"
             "while len(fds) < 10000:\n"
             "    fd = os.open('file', os.O_RDONLY)\n    os.lseek(fd, len(fds), 0)\n    fds += [fd, os.dup(fd), *os.pipe()]\n")
    end = ("for i in range(0, 10000, 4):\n    a, b, r, w = fds[i:i + 4]\n    assert os.lseek(a, 0, 1) == i, i\n    os.lseek(a, 3, 1)\n"
           "    assert os.lseek(b, 0, 1) == i + 3\n    os.write(w, b'%d' % i)\n    assert os.read(r, 9) == b'%d' % i\nos.write(1, b'all\\n')")
    program = start([PYTHON, "-c", begin + WAIT + end], "job")
    program.wait_text("ready")
    program.round_trip()
    program.round_trip()
    program.finish()
    check("all" in program.text(), "it did not get to its end", program.text(), program.text("err"))


@test("a descriptor whose number is above the limit here is refused with the limit and the remedy, before a process exists", quick=True)
def above_the_limit():
    program = saved("os.dup2(0, 900)")

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))
    result = cairn("restore", "-d", "--pids", "same", program.image, preexec_fn=few)
    fault_line(result, FAILED, "901", "600", "ulimit -Hn")
    check(not [pid for pid in children_of(os.getpid()) if pid not in [one.pid for one in Program.running]], "a process remains", result)
    program.restore()
    program.finish()


if __name__ == "__main__":
    main()
