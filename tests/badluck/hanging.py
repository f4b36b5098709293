#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A file system that does not answer, as one on a network, while a program that has a file there is saved."""
import ctypes
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (CAIRN, OK, PATIENCE, PYTHON, TESTS, TIMEOUT, Skip, cairn, check, children_of, equal, main, need_cairn, need_root, start, state,
                        test, unharmed, until, write)

PROGRAM = """
import os, time
PACE = 0.01
f = open("mnt/file")
print("read", f.read(4), flush=True)
while not os.path.exists("go"):
    print("round", flush=True)
    time.sleep(PACE)
print("read", f.read(), flush=True)
"""


class Slow:
    """The file system at mnt, as long as the block lasts; and a program that has a file there."""

    def __enter__(self):
        need_cairn()
        need_root()
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise Skip("no /dev/fuse")
        pathlib.Path("mnt").mkdir()
        self.server = subprocess.Popen([PYTHON, str(TESTS / "hanging_fs.py"), "mnt"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = self.server.stdout.readline().decode()
        if said != "ready\n":
            self.server.wait()
            raise Skip(f"FUSE: {said}")
        write("slow.py", PROGRAM)
        self.program = start([PYTHON, "slow.py"])
        self.program.wait_text("round")
        return self.program

    def __exit__(self, *_):
        pathlib.Path("hang").unlink(missing_ok=True)
        self.server.kill()
        self.server.wait()
        ctypes.CDLL(None).umount2(b"mnt", 2)


@test("a file system that does not answer: --timeout ends the save, which holds Cairn itself, and nothing is harmed", quick=True)
def hanging():
    with Slow() as program:
        program.checkpoint(kill=False, image="good.cairn")
        before = os.stat("good.cairn").st_ino
        for words in ([], ["--kill"], ["--stop"]):
            write("hang", "")
            # What is held there cannot even be killed (fs/fuse/dev.c request_wait_answer), and has its standard error: no pipe, which would not end.
            with open("said", "wb") as said:
                status = subprocess.run([CAIRN, "checkpoint", str(program.pid), "-o", "good.cairn", "--timeout", "1", *words], stdin=subprocess.DEVNULL,
                                        stderr=said, timeout=15 * PATIENCE).returncode
            equal(status, TIMEOUT, "exit status")
            said = pathlib.Path("said").read_text()
            check(said.startswith("cairn: good.cairn: out of time") and said.count("\n") == 1, "what is said", said)
            pathlib.Path("hang").unlink()
            unharmed(program.pid)
            program.wait_progress(3)
        equal(os.stat("good.cairn").st_ino, before, "the image of before")
        program.round_trip("--timeout", "50")
        program.path("go").touch()
        program.succeed()
        check("read data" in program.text() and "read  of a slow file system" in program.text(), "what was read", program.text()[-300:])


@test("SIGTERM and SIGKILL of a save with --timeout reach what works for it", quick=True)
def signals():
    with Slow() as program:
        for number in (signal.SIGKILL, signal.SIGTERM):
            write("hang", "")
            process = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-o", "image.cairn", "--timeout", "2"], stderr=subprocess.DEVNULL)
            until(lambda: [pid for pid in children_of(process.pid) if state(pid) in "DS"], "the child that is held")
            process.send_signal(number)
            status = process.wait(20 * PATIENCE)
            check(status in (-number, TIMEOUT), f"exit status {status}")
            pathlib.Path("hang").unlink()
            unharmed(program.pid)
        cairn("checkpoint", program.pid, "-o", "image.cairn", "--timeout", "20", status=OK)
        program.path("go").touch()
        program.succeed()


if __name__ == "__main__":
    main()
