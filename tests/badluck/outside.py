#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Pipes and message queues whose other end is outside the tree (of sockets: sockets.py)."""
import ctypes
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import OK, PYTHON, UNSUPPORTED, cairn, check, equal, fault_line, main, need_cairn, start, test, unharmed, write

PROGRAM = """
import os, signal, sys, time
PACE = 0.002
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
if sys.argv[1:]:
    r, w = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK), os.open(sys.argv[2], os.O_WRONLY)
    os.set_blocking(r, True)
else:
    r, w = 71, 72
print("first", os.read(r, 3), flush=True)
while not os.path.exists("go"):
    time.sleep(PACE)
try:
    print("rest", os.read(r, 100), os.read(r, 100), flush=True)
    print("written", os.write(w, b"answer"), flush=True)
except BrokenPipeError:
    print("EPIPE", flush=True)
"""

QUEUE = """
import ctypes, os, sys, time
PACE = 0.002
libc = ctypes.CDLL(None, use_errno=True)
queue = int(sys.argv[1])
print("asked", libc.msgsnd(queue, b"\\x07" + bytes(7) + b"what", 4, 0), flush=True)
while not os.path.exists("go"):
    time.sleep(PACE)
answer = ctypes.create_string_buffer(108)
print("answered", libc.msgrcv(queue, answer, 100, 9, 0), answer.raw[8:12], flush=True)
"""


def refused_then_closed(program, reader, writer, named):
    """Our ends, by which it is fed and heard."""
    line = fault_line(program.checkpoint(status=None, kill=False), UNSUPPORTED, program.pid, named, "--outside close", several=True)
    check("outside the tree" in line, "what is wrong", line)
    fault_line(cairn("check", program.pid), UNSUPPORTED, program.pid, named, several=True)
    unharmed(program.pid)
    program.checkpoint("--outside", "close", image="image.cairn")
    os.close(writer)
    equal(os.read(reader, 100), b"", "what comes of a program that has ended")
    os.close(reader)
    program.restore()
    program.path("go").touch()
    program.succeed()
    check("rest b'of it' b''" in program.text() and "EPIPE" in program.text(), "wrong output", program.text())


@test("pipes whose other ends are outside are refused by name; --outside close: what is in them is read, then they are at their end", quick=True)
def pipes():
    need_cairn()
    write("ends.py", PROGRAM)
    (theirs, feed), (hear, speak) = os.pipe(), os.pipe()

    here = os.getpid()

    def give():
        for number, end, flags in ((71, theirs, os.O_RDONLY), (72, speak, os.O_WRONLY)):
            os.dup2(os.open(f"/proc/{here}/fd/{end}", flags), number)
    os.write(feed, b"oneof it")
    program = start([PYTHON, "ends.py"], prepare=give)
    os.close(theirs)
    os.close(speak)
    program.wait_text("first b'one'")
    refused_then_closed(program, hear, feed, "pipe:")


@test("what a look at a running program could only suspect is found out before its memory is copied, and no pipe of its own is taken for one", quick=True)
def early():
    need_cairn()
    code = ("import os, time\nPACE = 0.002\ndata = bytearray(os.urandom(64 << 20))\nends = os.pipe()\nr, w = os.pipe()\nos.close(w)\n"
            "print('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(PACE)\n")
    hear, speak = os.pipe()
    end = f"/proc/{os.getpid()}/fd/{speak}"
    for outside in (True, False):
        program = start([PYTHON, "-c", code], f"job{outside}", prepare=lambda: outside and os.dup2(os.open(end, os.O_WRONLY), 71))
        program.wait_text("ready")
        options = ("checkpoint", program.pid, "-o", f"{outside}.cairn", "-vv")
        result = cairn(*options, status=UNSUPPORTED if outside else OK)
        check(("pages copied while the program runs" in result.err) != outside, "copied first, or never", result)
        check(("rehearsal" in result.err) == outside, "frozen for nothing", result)
        unharmed(program.pid)
        cairn("check", program.pid, status=UNSUPPORTED if outside else OK)
        write(program.path("go"), "")
        program.succeed()
    os.close(hear)
    os.close(speak)


def fifo_program():
    need_cairn()
    write("ends.py", PROGRAM)
    for name in ("feed", "answers"):
        os.mkfifo(name)
    hear = os.open("answers", os.O_RDONLY | os.O_NONBLOCK)
    feed = os.open("feed", os.O_RDWR)
    os.write(feed, b"oneof it")
    program = start([PYTHON, "ends.py", "feed", "answers"])
    program.wait_text("first b'one'")
    os.close(feed)
    feed = os.open("feed", os.O_WRONLY)
    line = fault_line(program.checkpoint(status=None, kill=False), UNSUPPORTED, program.pid, "/feed", "--outside reconnect", several=True)
    check("outside the tree" in line, "what is wrong", line)
    unharmed(program.pid)
    program.checkpoint("--outside", "reconnect")
    return program, feed, hear


@test("a FIFO that somebody outside keeps open is opened again by its name, and nothing in it is lost or doubled", quick=True)
def fifos_kept():
    program, feed, hear = fifo_program()
    program.restore()
    os.write(feed, b" and more")
    os.close(feed)
    program.path("go").touch()
    program.succeed()
    check("rest b'of it and more' b''" in program.text() and "written 6" in program.text(), "wrong output", program.text())
    equal(os.read(hear, 100), b"answer", "what came")


@test("a FIFO that nobody has kept open gets back what was in it", quick=True)
def fifos_left():
    program, feed, hear = fifo_program()
    os.close(feed)
    os.close(hear)
    program.restore()
    program.path("go").touch()
    program.succeed()
    check("rest b'of it' b''" in program.text() and "EPIPE" in program.text(), "wrong output", program.text())


@test("a message queue that somebody outside uses as well is refused with his PID; --outside reconnect: the same queue is used again")
def queue():
    need_cairn()
    libc = ctypes.CDLL(None, use_errno=True)
    here = libc.msgget(0, 0o600)
    check(here >= 0, "msgget")
    write("queue.py", QUEUE)
    program = start([PYTHON, "queue.py", str(here)])
    program.wait_text("asked 0")
    program.checkpoint(kill=False, image=program.path("alone.cairn"))
    asked = ctypes.create_string_buffer(108)
    equal(libc.msgrcv(here, asked, 100, 7, 0), 4, "bytes of the question")
    line = fault_line(program.checkpoint(status=None, kill=False), UNSUPPORTED, f"message queue {here}", os.getpid(), "--outside reconnect")
    check("outside the tree" in line, "what is wrong", line)
    unharmed(program.pid)
    program.checkpoint("--outside", "reconnect")
    program.restore()
    equal(libc.msgsnd(here, b"\x09" + bytes(7) + b"that", 4, 0), 0, "msgsnd")
    program.path("go").touch()
    program.succeed()
    check("answered 4 b'that'" in program.text(), "wrong output", program.text())
    libc.msgctl(here, 0, None)


if __name__ == "__main__":
    main()
