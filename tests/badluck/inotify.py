#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""inotify events that are queued while a program is saved can only be seen by taking them."""
import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import OK, PYTHON, TIMEOUT, check, equal, fault_line, main, need_cairn, start, test, unharmed, write

JOB = r'''
import ctypes, os, struct, time
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(0)
os.makedirs("dir", exist_ok=True)
watch = libc.inotify_add_watch(fd, b"dir", 0x100)
print("watching", flush=True)
seen = 0
def waiting(): time.sleep(0.01); return not os.path.exists("go")
while waiting():
    if os.path.exists("read"):
        os.set_blocking(fd, False)
        try:
            events = os.read(fd, 65536)
            while events:
                number, mask, cookie, length = struct.unpack_from("iIII", events)
                seen += 1
                print("event", number == watch, hex(mask), events[16:16 + length].rstrip(b"\0").decode(), flush=True)
                events = events[16 + length:]
        except BlockingIOError:
            pass
'''


def begin():
    need_cairn()
    write("job/job.py", JOB)
    program = start([PYTHON, "job.py"], "job")
    program.wait_text("watching")
    write("job/dir/first", "")
    return program


@test("queued inotify events are waited for, then refused by name; --in-flight lose goes on without them", quick=True)
def queued():
    program = begin()
    fault_line(program.checkpoint("--timeout", "1", status=None), TIMEOUT, program.pid, "inotify", "--in-flight lose")
    unharmed(program.pid)
    program.checkpoint("--in-flight", "lose")
    program.restore()
    write("job/read", "")
    write("job/dir/second", "")
    program.wait_text("second")
    check("first" not in program.text(), "a lost event came back", program.text())
    program.path("go").touch()
    program.succeed()


@test("inotify events that the program reads while cairn waits are not lost", quick=True)
def read_meanwhile():
    program = begin()
    reader = threading.Timer(0.5, lambda: write("job/read", ""))
    reader.start()
    result = program.checkpoint(status=None)
    reader.join()
    equal(result.status, OK, f"status: {result}")
    program.restore()
    write("job/dir/second", "")
    program.wait_text("second")
    equal(program.text().count("event True 0x100"), 2, "events")
    program.path("go").touch()
    program.succeed()


if __name__ == "__main__":
    main()
