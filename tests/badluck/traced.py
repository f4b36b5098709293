#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A program that somebody traces already: refused by name, and the tracer goes on."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import subprocess

from cairn_test import (BUILD, UNSUPPORTED, cairn, fault_line, main, need, need_cairn, proc_status, start, test, unharmed, until)

WORKER = BUILD / "tests" / "badluck" / "worker"


def traced(command, by_signal):
    need_cairn()
    need(command[0])
    program = start([WORKER])
    program.wait_text("ready")
    tracer = subprocess.Popen([word.replace("PID", str(program.pid)) for word in command], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: proc_status(program.pid)["TracerPid"] != "0", f"{command[0]} traces it")
    result = cairn("checkpoint", program.pid, "-o", "image.cairn")
    fault_line(result, UNSUPPORTED, program.pid, "traced")
    assert proc_status(program.pid)["TracerPid"] == str(tracer.pid), "its tracer is another now"
    tracer.stdin.close()
    if by_signal:
        tracer.terminate()
    tracer.wait()
    unharmed(program.pid)
    program.wait_progress(3)
    program.path("go").touch()
    program.wait()  # strace and gdb may interrupt a poll: its status is theirs


@test("a program under strace is refused by name, exit status 3")
def by_strace():
    traced(["strace", "-f", "-o", "/dev/null", "-p", "PID"], by_signal=True)


@test("a program under gdb is refused by name, exit status 3")
def by_gdb():
    traced(["gdb", "-q", "-nx", "-batch-silent", "-ex", "set pagination off", "-ex", "shell cat", "-p", "PID"], by_signal=False)


if __name__ == "__main__":
    main()
