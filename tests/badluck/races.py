#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that fork, make threads or end while they are being frozen."""
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, LONG, OK, PYTHON, VANISHED, cairn, check, fault_line, main, need, need_cairn, start, state, test, until, write)

STORM = BUILD / "tests" / "badluck" / "storm"


@test("the programs that notice harm find none without cairn")
def themselves():
    for words in (["worker"], ["storm", "fork"], ["storm", "vfork"], ["storm", "threads"], ["storm", "exec"]):
        program = start([BUILD / "tests" / "badluck" / words[0], *words[1:]], "-".join(words))
        program.wait_progress(3)
        program.path("go").touch()
        program.succeed()


def storm(what):
    need_cairn()
    program = start([STORM, what])
    program.wait_progress(2)
    for _ in range(100 if LONG else 20):
        program.checkpoint("--timeout", "30", kill=False, image=program.path("image.cairn"))
        program.wait_progress(1)
        check("differs" not in program.text(), "the program noticed", program.text()[-800:])
    for _ in range(2):
        program.checkpoint("--timeout", "30")
        program.restore()
        program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("a program that forks all the time is saved, runs on, and is restored")
def fork():
    storm("fork")


@test("a child that just ends shares nothing with somebody who has ended")
def ended():
    need_cairn()
    zombie = start([PYTHON, "-c", "import os, time\nPAUSE = 0.01\nif not os.fork(): os._exit(0)\nprint('ready', flush=True)\n"
                    "while not os.path.exists('go'): time.sleep(PAUSE)\n"], "zombie")
    zombie.wait_text("ready")
    program = start([STORM, "fork"], "storm")
    program.wait_progress(1)
    for _ in range(1000 if LONG else 150):
        cairn("check", str(program.pid), status=OK)
    for one in (program, zombie):
        one.path("go").touch()
        one.succeed()


CRONUS = """
import os, signal
children = []
for _ in range(150):
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    children.append(child)
print("ready", flush=True)
while not os.path.exists("go"):
    pass
for child in reversed(children):
    os.kill(child, signal.SIGKILL)
print(sum(os.waitpid(child, 0)[1] == signal.SIGKILL for child in children), "killed", flush=True)
"""


@test("a program that ends its children as soon as it runs again, before the last of them is let go, is restored all the same")
def cronus():
    need_cairn()
    write("cronus.py", CRONUS)
    program = start([PYTHON, "cronus.py"])
    program.wait_text("ready")
    program.checkpoint()
    program.path("go").touch()
    for count in range(1, 6):
        result = cairn("restore", "--file-changed", "ignore", program.image, timeout=30)
        check(result.status == OK, "the status of the program", result)
        check(program.text().count("150 killed") == count, "what it has seen", program.text(), result)


@test("a program that spawns by vfork all the time is saved, runs on, and is restored")
def vfork():
    storm("vfork")


@test("a program that makes and ends threads all the time is saved, runs on, and is restored")
def threads():
    storm("threads")


@test("a program whose threads run exec all the time is saved, runs on, and is restored, and no save waits for itself")
def execs():
    storm("exec")


@test("threads that have stopped already are not lost when Cairn is slow to ask the others")
def slowly():
    need_cairn()
    need("strace")
    program = start([BUILD / "tests" / "badluck" / "worker", "2"])
    program.wait_progress(3)
    saving = subprocess.run(["strace", "-f", "-qq", "-o", "trace", "-e", "trace=ptrace", "-e", "inject=ptrace:delay_enter=15000", CAIRN, "checkpoint", str(program.pid), "--timeout",
                             "40", "-o", "image.cairn"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    check(saving.returncode == OK, "a slow save", saving.stderr)
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("a program that makes and closes descriptors of all kinds all the time is saved, runs on, and is restored")
def descriptors():
    storm("descriptors")


@test("a program of two processes that is saved again and again and runs on notices nothing", timeout=900 if LONG else 180)
def often():
    need_cairn()
    program = start([BUILD / "tests" / "badluck" / "worker", "8"])
    program.wait_progress(3)
    for number in range(1000 if LONG else 150):
        program.checkpoint(kill=False, image=program.path("image.cairn"))
        noticed = [line for line in program.text().splitlines() if line.startswith("differs")]
        check(not noticed, f"after {number + 1} saves the program noticed", *noticed)
    program.path("go").touch()
    program.succeed()


@test("a program that ends while it is being frozen is a fault of its own, exit status 5")
def ends():
    need_cairn()
    seen = set()
    for step in range(200 if LONG else 50):
        program = start([STORM, "exit", str(step * step * 40)])
        result = cairn("checkpoint", program.pid, "-o", "image.cairn")
        seen.add(result.status)
        if result.status != OK:
            fault_line(result, VANISHED, program.pid)
        check(program.wait() == 0, "the program did not end by itself")
    check(OK in seen and VANISHED in seen, f"only {seen} was seen")


def in_sleep(pid, call):
    """In that system call: clock_nanosleep or restart_syscall."""
    return state(pid) == "S" and pathlib.Path(f"/proc/{pid}/syscall").read_text().split()[0] == str(call)


@test("a program that was stopped and continued in the middle of a sleep, as by ^Z and fg, sleeps on after a restore, not shorter", user=True)
def resumed_sleep():
    need_cairn()
    begin = time.monotonic()
    program = start(["sleep", "6"])  # its time is relative, so the kernel goes on by restart_syscall(2)
    until(lambda: in_sleep(program.pid, 230), "the sleep")
    program.signal(signal.SIGSTOP)
    until(lambda: state(program.pid) == "T", "the stop")
    program.signal(signal.SIGCONT)
    until(lambda: in_sleep(program.pid, 219), "the sleep again")
    for _ in range(3):
        program.checkpoint(kill=False)
    program.checkpoint()
    program.restore()
    program.succeed()
    check(time.monotonic() - begin >= 6, "a sleep of six seconds", time.monotonic() - begin)


if __name__ == "__main__":
    main()
