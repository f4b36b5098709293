#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Old PIDs that are not free any more."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import pathlib

from cairn_test import (BUILD, FAILED, Skip, cairn, check, equal, fault_line, main, need_cairn, need_root, start, state, test,
                        until)

WORKER = BUILD / "tests" / "badluck" / "worker"


def saved():
    need_cairn()
    need_root()
    program = start([WORKER], "job")
    program.wait_progress(3)
    program.checkpoint()
    return program


def occupy(pid):
    """A process of ours at that PID."""
    try:
        pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    except OSError as error:
        raise Skip(f"ns_last_pid: {error}")
    child = os.fork()
    if child == 0:
        import signal
        signal.pause()
    if child != pid:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise Skip(f"PID {pid} could not be taken")
    # What comes next must not take the PIDs of the program's other processes.
    pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid + 100))
    return child


@test("a PID that is taken does not matter: the program goes on in a PID namespace of its own", quick=True)
def taken():
    program = saved()
    old = program.pid
    other = occupy(old)
    program.restore()
    check(program.pid != old, f"PID {program.pid} is somebody else's")
    status = pathlib.Path(f"/proc/{program.pid}/status").read_text()
    inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
    equal(int(inner), old, "PID inside the namespace")
    program.wait_progress(3)
    program.path("go").touch()
    until(lambda: "all as it was" in program.text(), "the end of the program", 20)
    program.wait()
    os.kill(other, 9)
    os.waitpid(other, 0)


@test("a PID that is taken is named when the same PIDs are asked for, and nothing remains", quick=True)
def taken_same():
    program = saved()
    other = occupy(program.pid)
    result = cairn("restore", "-d", "--pids", "same", program.image)
    fault_line(result, FAILED, program.pid)
    equal(state(other), "S", "state of the process that has the PID")
    os.kill(other, 9)
    os.waitpid(other, 0)
    program.restore()
    program.path("go").touch()
    program.succeed()


@test("a private PID namespace can be asked for", quick=True)
def private():
    program = saved()
    program.restore("--pids", "private")
    program.wait_progress(3)
    program.path("go").touch()
    until(lambda: "all as it was" in program.text(), "the end of the program", 20)
    program.wait()


@test("a PID above this host's pid_max does not matter", quick=True)
def above_pid_max():
    # In a PID namespace of its own (6.14 and later) a test may set the limit.
    limit = pathlib.Path("/proc/sys/kernel/pid_max")
    program = saved()
    old = limit.read_text()
    host = int(os.environ.get("CAIRN_HOST_PID_MAX", "0"))
    if program.pid < 400 and host == 0:
        try:
            pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text("3000")
        except OSError as error:
            raise Skip(f"ns_last_pid: {error}")
        program.restore()
        program.kill()
        program = start([WORKER], "high")
        program.wait_progress(3)
        program.checkpoint()
    check(program.pid > 3000, f"PID {program.pid} is not high")
    try:
        pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text("50")
        limit.write_text("2000")
    except OSError as error:
        raise Skip(f"pid_max: {error}")
    if pathlib.Path("/proc/1/root/proc/sys/kernel/pid_max").read_text() != limit.read_text():
        limit.write_text(old)
        raise Skip("this kernel has one pid_max for all")
    try:
        program.restore()
        program.wait_progress(3)
        program.path("go").touch()
        until(lambda: "all as it was" in program.text(), "the end of the program", 20)
        program.wait()
    finally:
        limit.write_text(old)


if __name__ == "__main__":
    main()
