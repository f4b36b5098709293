#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""io_urings that are at work, of which it cannot be known whether they are, or that cannot be made again."""
import pathlib
import resource
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, FAILED, PYTHON, TIMEOUT, UNSUPPORTED, Skip, cairn, check, fault_line, main, need_cairn, start, test, unharmed, write)

HEAD = r'''
import ctypes, mmap, os, struct, sys, time
PAUSE = 0.002
libc = ctypes.CDLL(None, use_errno=True)
SETUP, ENTER, REGISTER = 425, 426, 427
NOP, POLL_ADD, TIMEOUT = 0, 6, 11

def call(*words):
    done = libc.syscall(*words)
    if done < 0:
        print("skip", os.strerror(ctypes.get_errno()), flush=True); sys.exit(0)
    return done

class Ring:
    """Requests go one by one, each at its place."""
    def __init__(self, flags=0, entries=8):
        params = bytearray(struct.pack("<10I", 0, 0, flags, 0, 50, 0, 0, 0, 0, 0) + bytes(80))
        self.fd = call(SETUP, entries, (ctypes.c_char * 120).from_buffer(params))
        words = struct.unpack("<30I", params)
        self.mask = words[0] - 1
        (self.sq_tail, self.array), (self.cq_head, self.cq_tail, self.cqes) = (words[11], words[16]), (words[20], words[21], words[25])
        self.memory = mmap.mmap(self.fd, 65536)
        self.requests = mmap.mmap(self.fd, (128 if flags & 1 << 10 else 64) * entries, offset=0x10000000)
        self.tail, self.step = 0, 64

    def word(self, offset):
        return ctypes.c_uint32.from_buffer(self.memory, offset)

    def submit(self, opcode, flags=0, fd=-1, address=0, length=0, word=0, data=0, wait=0, off=0, person=0):
        place = self.tail & self.mask
        at = self.step * place
        self.requests[at:at + 64] = struct.pack("<BBHiQQIIQHH20x", opcode, flags, 0, fd, off, address, length, word, data, 0,
                                                                           person)
        if self.array:
            self.word(self.array + 4 * place).value = place
        self.tail += 1
        self.word(self.sq_tail).value = self.tail
        call(ENTER, self.fd, 1, wait, 1 if wait else 0, None, 0)

    def read(self):
        """Completions, each user_data and result."""
        head, tail = self.word(self.cq_head), self.word(self.cq_tail).value
        found = [struct.unpack_from("<Qi", self.memory, self.cqes + 16 * (n & (2 * self.mask + 1))) for n in range(head.value, tail)]
        head.value = tail
        return found

    def register(self, operation, argument, count):
        return call(REGISTER, self.fd, operation, argument, count)

ints = lambda *numbers: (ctypes.c_int * len(numbers))(*numbers)
'''
TAIL = r'''
print("fd", ring.fd, flush=True)
n = 0
while not os.path.exists("go"):
    time.sleep(PAUSE)
    n += 1
    print("round", n, flush=True)
'''


def begin(make, tail=TAIL):
    need_cairn()
    write("holder.py", HEAD + make + tail)
    program = start([PYTHON, "holder.py"])
    program.wait_text("\n")
    first = program.text().splitlines()[0]
    if first.startswith("skip"):
        raise Skip(first)
    program.wait_text("round")
    return program


def refused(make, *names):
    program = begin(make)
    result = cairn("checkpoint", program.pid, "-o", "image.cairn")
    line = fault_line(result, UNSUPPORTED, program.pid, "io_uring", *names, several=True)
    check("; try" in line, "the line has no remedy", line)
    unharmed(program.pid)
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()


PERMANENT = {
    "sqpoll": ("with a thread of the kernel's", "ring = Ring(1 << 1)", "SQPOLL"),
    "iopoll": ("whose completions are polled for", "ring = Ring(1 << 0)", "IOPOLL"),
    "single_issuer": ("for one thread alone", "ring = Ring(1 << 12)", "SINGLE_ISSUER"),
    "disabled": ("that is not enabled yet", "ring = Ring(1 << 6)", "R_DISABLED"),
    "large_requests": ("with requests of the double size", "ring = Ring(1 << 10, entries=64)", "SQE128"),
    "large_completions": ("with completions of the double size", "ring = Ring(1 << 11, entries=64)", "CQE32"),
    "large_requests_few": ("with few requests of the double size", "ring = Ring(1 << 10); ring.step = 128; [ring.submit(NOP, data=n + 1, wait=1) for n in range(2)]", "SQE128"),
    "large_completions_few": ("with few completions of the double size", "ring = Ring(1 << 11 | 1 << 16); [ring.submit(NOP, data=n + 1, wait=1) for n in range(2)]", "CQE32"),
    "personality": ("with a personality in use", "ring = Ring(); ring.submit(NOP, person=ring.register(9, None, 0), wait=1)", "personalities"),
    "restricted": ("with restrictions", "ring = Ring(1 << 6); ring.register(11, (ctypes.c_char * 16)(0, 0, 12), 1); ring.register(12, None, 0)", "restrictions"),
    "groups": ("with buffers that requests choose from", "place = mmap.mmap(-1, 4096); ring = Ring(); ring.register(22, (ctypes.c_uint64 * 5)("
               "ctypes.addressof(ctypes.c_char.from_buffer(place)), 8 | 9000 << 32, 0, 0, 0), 1)", "buffers that requests choose from"),
    "multishot": ("that polls for ever", "ring = Ring(); ends = os.pipe(); ring.submit(POLL_ADD, fd=ends[0], length=1, word=1)", "multishot"),
    "multishot_fired": ("that polls for ever and has done so once", "ring = Ring(); ends = os.pipe(); ring.submit(POLL_ADD, fd=ends[0], length=1, word=1); "
                        "os.write(ends[1], b'x'); time.sleep(PAUSE); call(ENTER, ring.fd, 0, 1, 1, None, 0); "
                        "ring.read(); [ring.submit(NOP, wait=1) or ring.read() for _ in range(20)]", "under way"),
    "silent": ("with a request that completes without a word", "ring = Ring(); ring.submit(NOP, flags=1 << 6)", "IOSQE_CQE_SKIP_SUCCESS"),
    "file_twice": ("with a registered file that is open twice", "ring = Ring(); open('f', 'w'); fds = [os.open('f', os.O_RDONLY) for _ in range(2)]; "
                   "ring.register(2, ints(fds[1]), 1)", "more than once"),
    "file_closed": ("with a registered file that is closed", "ring = Ring(); open('f', 'w'); fd = os.open('f', os.O_RDONLY); ring.register(2, ints(-1, fd), 2); os.close(fd)",
                    "slot 1"),
    "eventfds": ("with one of two eventfds", "ring = Ring(); fds = [libc.eventfd(0, 0) for _ in range(2)]; ring.register(4, ints(fds[1]), 1)", "eventfd"),
    "two_numbered": ("with a number, and another one", "ring = Ring(); other = Ring(); ring.register(20, (ctypes.c_uint64 * 2)(0, ring.fd), 1)", "number of its own"),
    "closed": ("that is mapped, and closed", "ring = Ring(); [os.close(int(fd)) for fd in os.listdir('/proc/self/fd') if os.path.realpath('/proc/self/fd/' + fd).endswith('[io_uring]')]",
               "open no more"),
}


def add_permanent(name, what, make, word):
    def one():
        if word == "under way":
            program = begin(make)
            line = fault_line(program.checkpoint("--timeout", "1", status=None), TIMEOUT, program.pid, "io_uring", word)
            check("; try" in line, "the line has no remedy", line)
            unharmed(program.pid)
            return
        refused(make, word)
    one.__name__ = name
    test(f"an io_uring {what} is refused by name", quick=name in ("sqpoll", "file_twice"))(one)


for name_, case in PERMANENT.items():
    add_permanent(name_, *case)

AT_WORK = r'''
ring = Ring()
moment = struct.pack("<qq", int(sys.argv[1]), 0)
buffer = ctypes.create_string_buffer(moment)
ring.submit(TIMEOUT, address=ctypes.addressof(buffer), length=1, data=4711)
'''
ENDS = r'''
print("fd", ring.fd, flush=True)
n = 0
found = []
while not found:
    time.sleep(PAUSE)
    n += 1
    print("round", n, flush=True)
    found = ring.read()
print("found", found, flush=True)
while not os.path.exists("go"):
    time.sleep(PAUSE)
for number in range(40):
    ring.submit(NOP, data=number, wait=1)
    found = ring.read()
    assert found == [(number, 0)], found
print("end", flush=True)
'''


@test("an io_uring with a request under way is tried again until --timeout, then refused by name, and nothing is harmed", quick=True)
def at_work():
    program = begin(AT_WORK.replace("int(sys.argv[1])", "1000"))
    fault_line(program.checkpoint("--timeout", "1", status=None), TIMEOUT, program.pid, "io_uring", "1 requests are under way", "--timeout")
    unharmed(program.pid)
    program.wait_progress(3)


@test("an io_uring whose request ends while cairn waits is saved then, with its completion", quick=True)
def ends():
    program = begin(AT_WORK.replace("int(sys.argv[1])", "2"), ENDS)
    check("found" not in program.text(), "the request had ended before")
    program.checkpoint("--timeout", "50")
    program.restore()
    program.wait_text("found [(4711, -62)]")
    program.checkpoint("--timeout", "50")
    program.restore()
    program.path("go").touch()
    program.succeed()
    check("end" in program.text(), "it did not go on", program.text())


@test("a restore whose limit of address space does not let it map an io_uring says so, with the remedy")
def address_space():
    program = begin("ring = Ring()")
    program.checkpoint()
    result = cairn("restore", "-d", program.image, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 34, resource.RLIM_INFINITY)))
    line = fault_line(result, FAILED, program.pid, "io_uring", "ulimit -v", several=True)
    check("vm.max_map_count" in line, "the line does not name the other limit", line)
    program.restore()
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("a program that works through an io_uring all the time is saved, runs on and is restored: every request completes once")
def work():
    need_cairn()
    program = start([BUILD / "tests" / "badluck" / "ring_at_work"], "work")
    program.wait_text("\n")
    if program.text().startswith("skip"):
        raise Skip(program.text())
    for number in range(8):
        program.wait_progress(2)
        program.checkpoint("--timeout", "100", kill=number % 2 == 0, timeout=120)
        if number % 2 == 0:
            program.restore()
    program.wait_progress(2)
    program.path("finish").touch()
    program.succeed()
    check("all right" in program.text() and "wrong" not in program.text(), "what it found", program.text()[-300:])


if __name__ == "__main__":
    main()
