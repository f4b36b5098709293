#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""POSIX shared memory has a name and outlives its program, but it is the program's memory: an older image brings it back as it was then."""
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, DRY, OK, PYTHON, UNSUPPORTED, Skip, cairn, check, main, need, need_cairn, need_root, sh,  # noqa: E402
                        start, test, until, write)

PROGRAM = """
import ctypes, mmap, os, struct, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.ftruncate(fd, 3 << 20)
memory = mmap.mmap(fd, 3 << 20)
watched = None
if "ways" in sys.argv:  # mapped in every other way too: below, locked, and with a page of its own
    watched = mmap.mmap(fd, 3 << 20, prot=mmap.PROT_READ)
    assert ctypes.CDLL(None).mlock(ctypes.byref(ctypes.c_char.from_buffer(memory)), 1 << 20) == 0
    private = mmap.mmap(fd, 3 << 20, flags=mmap.MAP_PRIVATE)
    private[1 << 20] = 99
os.close(fd)
count = 0
while not os.path.exists("go"):
    if watched and (watched[2 << 20:(2 << 20) + 8] != struct.pack("<Q", count) or private[1 << 20] != 99):
        print("differs where it is mapped in another way", flush=True)
        sys.exit(1)
    seen, = struct.unpack("<Q", memory[2 << 20:(2 << 20) + 8])
    if seen != count:
        print(f"differs: {seen}, not {count}", flush=True)
        sys.exit(1)
    count += 1
    memory[2 << 20:(2 << 20) + 8] = struct.pack("<Q", count)
    print(count, flush=True)
    threading.Event().wait(0.02)
print("whole", flush=True)
os.unlink(sys.argv[1])
"""


def begin(*words):
    need_cairn()
    if DRY:
        raise Skip("is about images that are older than what they left")
    if not os.access("/dev/shm", os.W_OK):
        raise Skip("no /dev/shm")
    name = pathlib.Path(f"/dev/shm/cairn-test-named-{os.stat('.').st_ino}")  # PIDs are the same in every test
    name.unlink(missing_ok=True)
    write("job/program.py", PROGRAM)
    program = start([PYTHON, "program.py", name, *words], "job")
    program.wait_progress(5)
    return program, name


def finish(program):
    write(program.path("go"), "")
    program.succeed()
    check("differs" not in program.text() and "whole" in program.text(), "its memory is not what was saved", program.text()[-500:])


@test("named shared memory comes back as it was at the save, also when the program has gone on since, and when it is gone")
def older(*words):
    program, name = begin(*words)
    program.checkpoint()
    for _ in range(2):
        program.restore("--file-changed", "ignore")
        program.wait_progress(5)
        program.kill()
    name.unlink()
    program.restore("--file-changed", "ignore")
    program.wait_progress(5)
    finish(program)
    check(not name.exists(), "its name was not the one that it had")


PASSING = """
import mmap, os, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
os.ftruncate(fd, 32768)
memory = mmap.mmap(fd, 32768)
os.close(fd)
memory[20000:20007] = b"passing"
print("mapped", flush=True)
while not os.path.exists("go"):
    threading.Event().wait(0.005)
print("whole" if memory[20000:20007] == b"passing" and os.stat(sys.argv[1]).st_mode == 0o100640 else "differs", flush=True)
os.unlink(sys.argv[1])
os.rmdir(os.path.dirname(sys.argv[1]))
"""


@test("a small file in /tmp that a program has mapped and removes at its end (Java's hsperfdata) is made again for the next restore, with its directory", quick=True)
def passing():
    need_cairn()
    directory = pathlib.Path(tempfile.mkdtemp(dir="/tmp", prefix="cairn-test-passing-"))
    write("job/program.py", PASSING)
    program = start([PYTHON, "program.py", directory / "file"], "job")
    program.wait_text("mapped")
    program.checkpoint()
    for count in (1, 2, 3):
        write(program.path("go"), "")
        program.restore("--file-changed", "ignore")
        program.succeed()
        check("differs" not in program.text() and program.text().count("whole") == count, "its file is not what was saved", program.text())
        check(not directory.exists(), "it has not removed its directory")
    program.path("go").unlink()
    refused = cairn("restore", "--clones", 2, "--file-changed", "ignore", program.image, status=125)
    check(f"{directory}/file" in refused.err and "without --clones" in refused.err, "what is refused", refused)
    check(not directory.exists(), "what is left of a refused restore")


@test("named shared memory that is also mapped for reading, privately, and locked, comes back likewise")
def ways():
    older("ways")


@test("named shared memory comes back where there is no room for it twice")
def small():
    need_root()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000):  # CLONE_NEWNS
        raise Skip(os.strerror(ctypes.get_errno()))
    sh("mount", "--make-rprivate", "/")
    here = os.open(".", os.O_RDONLY)  # which may lie in the other /dev/shm
    with tempfile.TemporaryDirectory(dir=BUILD) as place:
        os.chdir(place)
        sh("mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", "/dev/shm")
        try:
            older()
        finally:
            sh("umount", "-l", "/dev/shm")
            os.fchdir(here)


@test("a restore is not ended by who opens named shared memory while it looks whether somebody has it open")
def looked_at():
    need("strace")
    program, name = begin()
    program.checkpoint()
    restoring = subprocess.Popen(["strace", "-o", "calls", "-e", "trace=fcntl", "-e", "inject=fcntl:delay_exit=1000000:when=1..2", CAIRN, "restore", "-d",
                                  "--file-changed", "ignore", program.image], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    calls = pathlib.Path("calls")
    until(lambda: calls.exists() and "F_SETLEASE, F_WRLCK" in calls.read_text() or restoring.poll() is not None, "a lease")
    name.read_bytes()
    out = restoring.communicate()[0]
    check(restoring.returncode == OK, f"exit status {restoring.returncode}")
    check("--- SIG" in calls.read_text(), "nobody was told: the lease had been given back before")
    program.pid = int(out.split()[0])
    program.wait_progress(5)
    finish(program)


@test("named shared memory that somebody else has open stays as it is, which is said, unless files are to be rolled back")
def shared():
    program, name = begin()
    program.checkpoint()
    program.restore("--file-changed", "ignore")
    program.wait_progress(5)
    program.kill()
    with open(name, "rb"):
        result = cairn("restore", "-d", "--file-changed", "ignore", program.image, status=OK)
        check("stays as it is" in result.err, "nothing was said of it", result)
        pid = int(result.out.split()[0])
        program.pid = pid
        program.wait_text("differs")
        program.kill()
        program.restore("--file-changed", "rollback")
        program.wait_progress(5)
    write(program.path("go"), "")
    program.succeed()


@test("clones would have named shared memory together: they are refused")
def clones():
    program, name = begin()
    program.checkpoint()
    result = cairn("restore", "-d", "--clones", "2", "--file-changed", "ignore", program.image)
    check(result.status == UNSUPPORTED and "clones" in result.err, f"exit status {result.status}", result)
    program.restore("--file-changed", "ignore")
    finish(program)


if __name__ == "__main__":
    main()
