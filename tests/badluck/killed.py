#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""^C and SIGKILL of cairn at any moment of a save and of a restore."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import signal
import subprocess
import time

from cairn_test import (BUILD, CAIRN, LONG, OK, Failure, cairn, check, children_of, describe, is_unharmed, main, need, need_cairn, need_root, reap, start,
                        state, test, tree_of, unharmed, until)

WORKER = BUILD / "tests" / "badluck" / "worker"
STEPS = 400 if LONG else 60
# The same image again and again: its log has grown meanwhile.
AGAIN = ("--file-changed", "ignore")


def interrupted(words, after_us, number):
    """Runs cairn and sends it a signal when that much time has passed. Its exit status (negative: by the signal)."""
    process = subprocess.Popen([CAIRN, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    until_ns = time.monotonic_ns() + int(after_us * 1000)
    while time.monotonic_ns() < until_ns and process.poll() is None:
        pass
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(60)


def moments(whole_us):
    """Growing times from nothing to a little more than a whole run."""
    return [whole_us * 1.3 * step / STEPS for step in range(STEPS)]


def save(number, *words):
    need_cairn()
    program = start([WORKER, "24", *words], "job")
    program.wait_progress(3)
    whole = min(cairn("checkpoint", program.pid, "-o", "whole.cairn", status=OK).seconds for _ in range(3)) * 1e6
    cut = 0

    def alone():
        """A copy of its memory would be ours: we adopt orphans."""
        reap()
        return [one for one in children_of(os.getpid()) if state(one) not in ("Z", None)] == [program.pid]
    for moment in moments(whole):
        status = interrupted(["checkpoint", program.pid, "-o", "image.cairn"], moment, number)
        cut += status != 0
        try:
            unharmed(program.pid)
            program.wait_progress(2, timeout=10)
            until(alone, "that nothing of Cairn's making is left", 5)
            noticed = [line for line in program.text().splitlines() if line.startswith("differs")]
            check(not noticed, "the program noticed", *noticed)
        except Failure as failure:
            raise Failure(f"{signal.Signals(number).name} after {moment:.0f} us of {whole:.0f}: {failure}") from None
        if os.path.exists("image.cairn"):
            check(cairn("verify", "image.cairn").status == OK, "an image that is not whole has its name")
            os.unlink("image.cairn")
    check(cut > STEPS // 8, f"only {cut} of {STEPS} saves were cut")
    program.path("go").touch()
    program.succeed()


@test("SIGKILL of cairn at any moment of a save leaves the program unharmed", timeout=600, serial=True)
def kill_save():
    save(signal.SIGKILL)


@test("SIGKILL of cairn at any moment of a save by a copy-on-write child leaves the program unharmed, and no child", timeout=600, serial=True)
def kill_forked():
    save(signal.SIGKILL, "plain", "direct")


@test("^C of cairn at any moment of a save by a copy-on-write child leaves the program unharmed, and no child", timeout=600, serial=True)
def interrupt_forked():
    save(signal.SIGINT, "plain", "direct")


@test("SIGKILL of cairn at any moment of a save by a copy-on-write child of a program under seccomp filters leaves it unharmed, and no child", timeout=600, serial=True)
def kill_forked_confined():
    need_root()
    save(signal.SIGKILL, "confined", "direct")


@test("^C of cairn at any moment of a save leaves the program unharmed", timeout=600, serial=True)
def interrupt_save():
    save(signal.SIGINT)


@test("SIGKILL of cairn at any moment of a save leaves a program unharmed whose seccomp filter kills for Cairn's calls", timeout=600, serial=True)
def kill_confined():
    need_root()
    save(signal.SIGKILL, "confined")


@test("^C of cairn at any moment of a save leaves a program unharmed whose seccomp filter kills for Cairn's calls", timeout=600, serial=True)
def interrupt_confined():
    need_root()
    save(signal.SIGINT, "confined")


@test("a handler that came when a thread went home without Cairn returns there, though another Cairn has saved the program meanwhile", timeout=200)
def returning():
    need_cairn()
    need("strace")
    program = start([BUILD / "tests" / "badluck" / "slow_handler"], "job")
    program.wait_progress(1)
    save = [CAIRN, "checkpoint", "--no-live", "-o", "image.cairn", str(program.pid)]

    def traced(*inject):
        return subprocess.run(["strace", "-qq", "-o", "trace", "-e", "trace=ptrace", *inject, *save], stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode
    check(traced() == OK, "a save that nothing happens to")
    calls = pathlib.Path("trace").read_text().splitlines()
    runs = [i + 1 for i, call in enumerate(calls) if "PTRACE_CONT" in call]
    for number in runs:
        # Dead before the thread rests, which has the signal blocked: it comes in the last call of the way home.
        traced("-e", f"inject=ptrace:signal=KILL:when={number + 1}")
        program.signal(signal.SIGALRM)
        until(lambda: pathlib.Path(f"/proc/{program.pid}/syscall").read_text().split()[0] in ("35", "230"), "the handler's sleep")
        cairn(*save[1:], status=OK)
        try:
            program.wait_progress(1, timeout=20)
        except Failure as failure:
            raise Failure(f"dead at ptrace call {number + 1}: {failure}") from None
    check("differs" not in program.text(), "the program noticed", program.text())
    program.kill()


@test("SIGKILL of cairn at any step of a save leaves a program unharmed that can have no further mapping", timeout=300)
def kill_full():
    need_cairn()
    need("strace")

    def traced(program, *inject):
        return subprocess.run(["strace", "-qq", "-o", "trace", "-e", "trace=ptrace", *inject, CAIRN, "checkpoint", "--no-live", "-vv", "-o", "image.cairn", str(program.pid)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def begin():
        program = start([BUILD / "tests" / "kinds" / "protection", "limit"], f"job{len(list(pathlib.Path('.').glob('job*')))}")
        program.wait_text("ready")
        return program

    def end(program):
        program.path("go").touch()
        program.succeed()
    program = begin()
    plain = traced(program)
    check(plain.returncode == OK and "one is made longer" in plain.stderr, "a save that nothing happens to", plain.stderr)
    calls = pathlib.Path("trace").read_text().splitlines()
    mappings = pathlib.Path(f"/proc/{program.pid}/maps").read_bytes()
    for step, number in enumerate(range(1, len(calls) + 1, 1 if LONG else 7)):
        traced(program, "-e", f"inject=ptrace:signal=KILL:when={number}")
        try:
            unharmed(program.pid)
            until(lambda: pathlib.Path(f"/proc/{program.pid}/maps").read_bytes() == mappings, "what was borrowed is given back", 10)
        except Failure as failure:
            raise Failure(f"dead at ptrace call {number}, {calls[number - 1]}: {failure}") from None
        if step % 8 == 7:
            # Each death costs some of the little room that stubs have.
            end(program)
            program = begin()
            mappings = pathlib.Path(f"/proc/{program.pid}/maps").read_bytes()
    end(program)


def be_late(*worker):
    need_cairn()
    need("strace")
    program = start([WORKER, "2", *worker], "job")
    program.wait_progress(3)

    def traced(name, *inject):
        status = subprocess.run(["strace", "-f", "-qq", "-o", f"{name}.trace", "-e", "trace=ptrace", *inject, CAIRN, "checkpoint", "-vv", "--no-live", "-o",
                                 "image.cairn", str(program.pid)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
        check(status.returncode == OK, status.stderr)
        return status.stderr
    traced("plain")
    calls = [line for line in pathlib.Path("plain.trace").read_text().splitlines() if " ptrace(" in line]
    # Threads are interrupted to freeze them, and where they rest.
    first = next(i for i, call in enumerate(calls) if "PTRACE_SYSCALL" in call)
    rests = [i + 1 for i in range(first, len(calls)) if "PTRACE_INTERRUPT" in calls[i]]
    check(len(rests) >= 4, "interrupts at rest", *calls)
    gone = 0
    for number in rests[::3] + rests[1::3] + rests[2::3]:
        if gone == 3 and not LONG:
            break
        gone += "went on by itself" in traced("late", "-e", f"inject=ptrace:delay_enter=700000:when={number}")
        unharmed(program.pid)
        program.wait_progress(2, timeout=10)
        noticed = [line for line in program.text().splitlines() if line.startswith("differs")]
        check(not noticed, f"late at ptrace call {number}: the program noticed", *noticed)
    check(gone, "no thread went on by itself")
    program.path("go").touch()
    program.succeed()


@test("a Cairn that sleeps longer than a thread rests for it, so that the thread goes on by itself, lets it, and saves it again", timeout=600)
def late():
    be_late()


@test("the same where the thread's seccomp filter would kill it on its way home", timeout=600)
def late_confined():
    need_root()
    be_late("confined")


def restore(number, way="--eager"):
    need_cairn()
    program = start([WORKER, "24"], "job")
    program.wait_progress(3)
    pid = program.pid
    tree = tree_of(pid)
    program.checkpoint()
    times = []
    for _ in range(3):
        times.append(program.restore(*AGAIN, way).seconds)
        program.wait_progress(1)
        program.kill()
    whole = min(times) * 1e6
    cut = 0
    for moment in moments(whole):
        status = interrupted(["restore", "-d", way, *AGAIN, "--pidfile", "pidfile", program.image], moment, number)
        cut += status != 0
        where = f"{signal.Signals(number).name} after {moment:.0f} us of {whole:.0f}, exit status {status}"

        lines = program.lines()

        def settled():
            reap()
            left = [one for one in children_of(os.getpid()) if state(one) not in ("Z", None)]
            if not left:
                return "nothing"
            return left == [pid] and tree_of(pid) == tree and program.lines() >= lines + 2 and not is_unharmed(pid) and "all"
        try:
            outcome = until(settled, "that nothing or all is there", 5)
        except Failure:
            left = [describe(one) for child in children_of(os.getpid()) for one in tree_of(child)]
            raise Failure(f"{where}: remains, neither all nor nothing: " + "; ".join(left)) from None
        if outcome == "all":  # past the commit point
            program.pid = pid
            program.kill()
        else:
            check(status != 0, f"{where}: success, and nothing is there")
    check(cut > STEPS // 8, f"only {cut} of {STEPS} restores were cut")
    program.restore(*AGAIN)
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("SIGKILL of cairn at any moment of a restore leaves nothing behind", timeout=600, serial=True)
def kill_restore():
    restore(signal.SIGKILL)


@test("SIGKILL of cairn at any moment of a lazy restore leaves nothing behind", timeout=600, serial=True)
def kill_lazy():
    need_root()
    restore(signal.SIGKILL, "--lazy")


@test("^C of cairn at any moment of a restore leaves nothing behind", timeout=600, serial=True)
def interrupt_restore():
    restore(signal.SIGINT)


if __name__ == "__main__":
    main()
