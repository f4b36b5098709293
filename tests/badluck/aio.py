#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Asynchronous I/O (io_setup) that is at work, or that cannot be made again, and what a Cairn that dies in the middle leaves of it."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, FAILED, LONG, PYTHON, TIMEOUT, UNSUPPORTED, Failure, Skip, cairn, check, children_of, fault_line, main, need, need_cairn, need_root, start, test, tree_of,
                        unharmed, until, write)

PROGRAM = BUILD / "tests" / "badluck" / "aio_at_work"
ONE_TRY = 60  # ptrace calls, and a few more, by which a program is frozen and asked
STEPS = 300 if LONG else 40

HEAD = r'''
import ctypes, os, sys, time
PAUSE = 0.002
libc = ctypes.CDLL(None, use_errno=True)

def call(*words):
    done = libc.syscall(*words)
    if done < 0:
        print("skip", os.strerror(ctypes.get_errno()), flush=True); sys.exit(0)
    return done
def setup(requests):
    context = ctypes.c_ulong(0)
    call(206, requests, ctypes.byref(context))
    return context.value
def munmap(address, size):
    assert libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size)) == 0
'''
TAIL = r'''
n = 0
while not os.path.exists("finish"):
    time.sleep(PAUSE)
    n += 1
    print("round", n, flush=True)
'''


def begin(mode):
    need_cairn()
    program = start([PROGRAM, mode], mode)
    program.wait_text("\n")
    if program.text().startswith("skip"):
        raise Skip(program.text())
    program.wait_progress(2)
    return program


def goes_on(program):
    unharmed(program.pid)
    program.wait_progress(2)
    check("wrong" not in program.text(), "what the program found", program.text()[-300:])


def end(program):
    program.path("finish").touch()
    program.succeed()
    check("all right" in program.text() and "wrong" not in program.text(), "what the program found", program.text()[-300:])


@test("asynchronous I/O with nothing under way is untouched by a save, to the last byte and slot", quick=True)
def still():
    program = begin("still")
    for _ in range(5):
        program.checkpoint(kill=False)
        goes_on(program)
    program.checkpoint("--no-live", kill=False)
    goes_on(program)
    end(program)


@test("asynchronous I/O of an ordinary user's program is untouched by a save", user=True)
def still_user():
    still()


@test("asynchronous I/O with a request under way is tried again until --timeout, then refused by name, and nothing is harmed", quick=True)
def stuck():
    program = begin("stuck")
    fault_line(program.checkpoint("--timeout", "1", status=None), TIMEOUT, program.pid, "asynchronous I/O", "1 requests are under way", "--timeout")
    goes_on(program)
    program.path("release").touch()
    program.wait_progress(2)
    end(program)


@test("asynchronous I/O whose request ends while cairn waits is saved then, with its event", quick=True)
def ends():
    program = begin("stuck")
    program.image, tree = program.next_image(), tree_of(program.pid)
    saving = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-o", program.image, "--kill", "--timeout", "50", "-vv"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    seen = ""
    while "are under way" not in seen:
        line = saving.stderr.readline()
        check(line, "the save ended", seen)
        seen += line
    program.path("release").touch()
    seen += saving.stderr.read()
    check(saving.wait(60) == 0, "the save", seen)
    program.reap_tree(tree)
    program.path("restored").touch()
    program.restore()
    program.wait_progress(2)
    end(program)


@test("a program that does asynchronous I/O all the time is saved, runs on and is restored: every request completes once")
def work():
    program = begin("work")
    for number in range(20 if LONG else 8):
        program.wait_progress(2)
        program.checkpoint("--timeout", "100", kill=number % 2 == 0, timeout=120)
        if number % 2 == 0:
            program.restore("--file-changed", "ignore")
        goes_on(program)
    end(program)


def refused(make, *named):
    need_cairn()
    pathlib.Path("finish").unlink(missing_ok=True)
    write("holder.py", HEAD + make + TAIL)
    program = start([PYTHON, "holder.py"])
    program.wait_text("\n")
    if program.text().startswith("skip"):
        raise Skip(program.text())
    program.wait_progress(2)
    line = fault_line(program.checkpoint(status=None), UNSUPPORTED, *named, several=True)
    check("; try" in line, "the line has no remedy", line)
    goes_on(program)
    program.path("finish").touch()
    program.succeed()


@test("a ring of asynchronous I/O of which a part is unmapped is refused by name")
def parts():
    for page in (0, 2, 4):
        refused(f"munmap(setup(300) + {page} * 4096, 4096)", "asynchronous I/O", "not mapped any more")


@test("a ring of asynchronous I/O that a child has from its parent is refused by name")
def inherited():
    refused("setup(3)\nif os.fork() == 0:\n    while os.getppid() > 1 and not os.path.exists('finish'): time.sleep(PAUSE)\n    os._exit(0)\n", "asynchronous I/O", "without a context")


@test("asynchronous I/O that begins when the program has been looked at, but does not stand still yet, is carried all the same")
def late():
    need_cairn()
    need("strace")
    write("holder.py", HEAD + "while not os.path.exists('begin'): time.sleep(PAUSE)\nsetup(5)\nprint('begun', flush=True)" + TAIL)
    program = start([PYTHON, "holder.py"])
    until(lambda: "holder.py" in pathlib.Path(f"/proc/{program.pid}/cmdline").read_text(), "the program")
    saving = subprocess.Popen(["strace", "-f", "-qq", "-o", "trace", "-e", "trace=ptrace,openat", "-e", "inject=ptrace:delay_enter=1000000:when=1", CAIRN, "checkpoint", "--no-live",
                               str(program.pid), "-o", "image.cairn"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: pathlib.Path("trace").exists() and "ptrace(PTRACE_SEIZE" in pathlib.Path("trace").read_text(), "the end of the look")
    program.path("begin").touch()
    _, err = saving.communicate(timeout=60)
    check(saving.returncode == 0, "the save", err)
    check("begun" in program.text(), "it began too late", program.text())
    goes_on(program)
    check("/[aio]" in str(cairn("inspect", "--json", "image.cairn", status=0).out) or "asynchronous" in str(cairn("inspect", "--json", "image.cairn").out), "what is in the image")
    program.path("finish").touch()
    program.succeed()


@test("a program that has no descriptor left is told that counting its asynchronous I/O takes two")
def no_descriptors():
    refused("import resource\nsetup(3)\nsys.stdout.flush()\nn = len(os.listdir('/proc/self/fd')) - 1\nresource.setrlimit(resource.RLIMIT_NOFILE, (n + 1, 1000))\n", "descriptors", "ulimit -n")


@test("a restore that may not have so much asynchronous I/O says which sysctl forbids it", serial=True, host=True)
def most():
    need_root()
    limit = pathlib.Path("/proc/sys/fs/aio-max-nr")
    program = begin("still")
    program.path("restored").touch()
    program.checkpoint()
    before = limit.read_text()
    try:
        limit.write_text("1")
    except OSError as error:
        raise Skip(f"{limit}: {error.strerror}") from None
    try:
        fault_line(cairn("restore", "-d", program.image), FAILED, "asynchronous I/O", "fs.aio-max-nr", several=True)
    finally:
        limit.write_text(before)
    program.restore()
    goes_on(program)
    end(program)


def killed(mode):
    """Cairn alone is killed: its deputy has to put all back."""
    program = begin(mode)
    save = [CAIRN, "checkpoint", str(program.pid), "-o", "image.cairn", "--timeout", "0.3" if mode == "stuck" else "50"]
    whole = 0.3 if mode == "stuck" else min(cairn(*save[1:], status=0).seconds for _ in range(3))
    cut = 0
    for step in range(STEPS):
        moment = whole * 1.2 * step / STEPS
        process = subprocess.Popen(save, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = time.monotonic()
        while time.monotonic() - begun < moment and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        cut += process.wait() == -signal.SIGKILL
        try:
            goes_on(program)
        except Failure as failure:
            raise Failure(f"killed after {moment * 1e6:.0f} us: {failure}") from None
    check(cut > STEPS // 8, f"only {cut} of {STEPS} saves were cut")
    program.path("release").touch()
    end(program)


@test("SIGKILL of cairn at any moment of a save leaves asynchronous I/O with nothing under way as it was", timeout=600, serial=True)
def killed_still():
    killed("still")


@test("SIGKILL of cairn at any moment of a save leaves asynchronous I/O with a request under way as it was", timeout=600, serial=True)
def killed_stuck():
    killed("stuck")


@test("SIGKILL of cairn at any moment of a save does not disturb a program that does asynchronous I/O all the time", timeout=600, serial=True)
def killed_work():
    killed("work")


@test("SIGKILL of cairn and of its deputy at any step leaves asynchronous I/O with nothing under way as it was", timeout=600)
def killed_both():
    need("strace")
    program = begin("still")
    program.path("restored").touch()  # what was read already is not put back then
    save = ["strace", "-f", "-qq", "-o", "trace", "-e", "trace=ptrace"]
    command = [CAIRN, "checkpoint", "--no-live", str(program.pid), "-o", "image.cairn"]

    def traced(*inject):
        return subprocess.run([*save, *inject, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=100).returncode
    check(traced() == 0, "the save that nothing happens to")
    calls = len(re.findall(r"ptrace\(", pathlib.Path("trace").read_text()))
    for number in range(1, calls + 1, 1 if LONG else 3):
        # The end of the deputy is Cairn's.
        status = traced("-e", f"inject=ptrace:signal=SIGKILL:when={number}")
        try:
            goes_on(program)
        except Failure as failure:
            raise Failure(f"killed at ptrace call {number} of {calls} (status {status}): {failure}") from None
    end(program)


def killed_at_each(mode, *options):
    """Cairn alone, while its deputy stands before each of its ptrace calls."""
    need("strace")
    program = begin(mode)
    command = [CAIRN, "checkpoint", *options, str(program.pid), "-o", "image.cairn"]

    def traced(*inject):
        pathlib.Path("trace").write_text("")
        return subprocess.Popen(["strace", "-f", "-qq", "-o", "trace", "-e", "trace=ptrace", *inject, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def calls():
        return pathlib.Path("trace").read_text().count(" ptrace(")
    traced().wait(60)
    for number in range(1, min(calls(), ONE_TRY) + 1, 1 if LONG else 3):
        saving = traced("-e", f"inject=ptrace:delay_enter=30000:when={number}")
        until(lambda number=number, saving=saving: calls() >= number or saving.poll() is not None, "the call")
        for child in children_of(saving.pid):
            os.kill(child, signal.SIGKILL)
        saving.wait(60)
        try:
            goes_on(program)
        except Failure as failure:
            raise Failure(f"killed at ptrace call {number}: {failure}") from None
    program.path("release").touch()
    end(program)


@test("SIGKILL of cairn before each step of its deputy leaves asynchronous I/O with nothing under way as it was", timeout=600)
def killed_before_still():
    killed_at_each("still", "--no-live")


@test("SIGKILL of cairn before each step of its deputy leaves asynchronous I/O with a request under way as it was", timeout=600)
def killed_before_stuck():
    killed_at_each("stuck", "--no-live", "--timeout", "0.5")


@test("a Cairn that sleeps for longer than a thread rests, at any call, leaves asynchronous I/O with a request under way as it was", timeout=600)
def late_stuck():
    need("strace")
    program = begin("stuck")
    command = [CAIRN, "checkpoint", "--no-live", "--timeout", "0.5", str(program.pid), "-o", "image.cairn"]

    def traced(*inject):
        subprocess.run(["strace", "-f", "-qq", "-o", "trace", "-e", "trace=ptrace", *inject, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=100)
        return pathlib.Path("trace").read_text().count(" ptrace(")
    calls = min(traced(), ONE_TRY)
    check(calls == ONE_TRY, "it was not tried")
    for number in range(1, calls + 1, 1 if LONG else 4):
        traced("-e", f"inject=ptrace:delay_enter=700000:when={number}")
        try:
            goes_on(program)
        except Failure as failure:
            raise Failure(f"late at ptrace call {number} of {calls}: {failure}") from None
    program.path("release").touch()
    end(program)


def failing(mode, *options):
    """Every call by which Cairn reads and writes the program's memory fails once."""
    need("strace")
    program = begin(mode)
    command = [CAIRN, "checkpoint", *options, str(program.pid), "-o", "image.cairn"]

    def traced(call, *inject):
        done = subprocess.run(["strace", "-f", "-qq", "-o", "trace", "-e", f"trace={call}", *inject, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, timeout=100)
        return done.returncode, done.stderr
    for call in ("process_vm_readv", "process_vm_writev"):
        status, text = traced(call)
        check(status in (0, TIMEOUT), "the save in which nothing fails", text)
        count = min(pathlib.Path("trace").read_text().count(call + "("), 2 * ONE_TRY)
        for number in range(1, count + 1, 1 if LONG else 1 + count // 40):
            status, text = traced(call, "-e", f"inject={call}:error=ENOMEM:when={number}")
            try:
                goes_on(program)
            except Failure as failure:
                raise Failure(f"{call} number {number} of {count} failed (status {status}): {failure}", text) from None
    program.path("release").touch()
    end(program)


@test("a save that fails because Cairn cannot read or write memory leaves asynchronous I/O with nothing under way as it was, in all that counts", timeout=900)
def failing_still():
    pathlib.Path("still").mkdir(exist_ok=True)
    pathlib.Path("still/restored").touch()
    failing("still", "--no-live")


@test("a save that fails because Cairn cannot read or write memory leaves asynchronous I/O with a request under way as it was, in all that counts", timeout=900)
def failing_stuck():
    pathlib.Path("stuck").mkdir(exist_ok=True)
    pathlib.Path("stuck/restored").touch()
    failing("stuck", "--timeout", "0.5")


@test("a save that fails because Cairn cannot read or write memory does not disturb a program that does asynchronous I/O all the time", timeout=900)
def failing_work():
    failing("work", "--no-live")


if __name__ == "__main__":
    main()
