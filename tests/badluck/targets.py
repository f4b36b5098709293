#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What cannot be a target: each is refused by one line, and nothing is touched."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import re
import shutil
import subprocess

from cairn_test import (BUILD, CAIRN, PERMISSION, PYTHON, TIMEOUT, UNSUPPORTED, USAGE, VANISHED, Skip, cairn, check, children_of, fault_line, main, need,
                        need_cairn, need_root, proc_status, start, state, test, unharmed, until, write)

WORKER = BUILD / "tests" / "badluck" / "worker"


def refused(target, status, *named):
    result = cairn("checkpoint", target, "-o", "image.cairn")
    fault_line(result, status, *named)
    check(not os.path.exists("image.cairn"), "an image was made")
    return result


@test("a PID that does not exist is named, exit status 5", quick=True)
def no_such_pid():
    need_cairn()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    refused(pid, VANISHED, pid)


@test("a process that has ended and was not waited for is named, exit status 5", quick=True)
def zombie():
    need_cairn()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    refused(pid, VANISHED, pid)
    os.waitpid(pid, 0)


@test("a kernel thread is refused by name, exit status 3", host=True)
def kernel_thread():
    need_cairn()
    status = proc_status(2)
    if not status or status["Name"] != "kthreadd":
        raise Skip("no kernel threads are seen here: this is a PID namespace")
    refused(2, UNSUPPORTED, 2, "kthreadd")


@test("PID 1 is refused by name, exit status 3", quick=True)
def init():
    need_cairn()
    refused(1, UNSUPPORTED, "process 1")


@test("an ancestor of cairn is refused by name, exit status 3", quick=True)
def ancestor():
    need_cairn()
    refused(os.getpid(), UNSUPPORTED, os.getpid(), "ancestor")


@test("cairn itself is refused, exit status 3", quick=True)
def itself():
    need_cairn()
    # The shell's exec keeps the PID: $$ is cairn.
    done = subprocess.run(["sh", "-c", f"exec '{CAIRN}' checkpoint $$ -o image.cairn"], stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL)
    check(done.returncode == UNSUPPORTED and done.stderr.startswith(b"cairn: ") and done.stderr.count(b"\n") == 1,
          f"exit status {done.returncode}: {done.stderr}")


@test("a word that is no PID is a usage error, exit status 2", quick=True)
def no_number():
    need_cairn()
    for word in ("12x", "-5", "0", "99999999999999999999"):
        result = cairn("checkpoint", "--", word)
        check(result.status in (USAGE, VANISHED), f"exit status {result.status} for '{word}'", result)
        check(result.err.startswith("cairn: ") and result.err.count("\n") == 1, "not one line", result)


@test("a process of root is not permitted to others, exit status 4", quick=True)
def not_permitted():
    need_cairn()
    need_root()
    need("setpriv")
    program = start([WORKER])
    program.wait_text("ready")
    os.chmod(".", 0o777)
    # The program's file may lie where only root may look.
    shutil.copy(CAIRN, "cairn-copy")
    os.chmod("cairn-copy", 0o755)
    done = subprocess.run(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=-all",
                           os.path.abspath("cairn-copy"), "checkpoint", str(program.pid), "-o", "image.cairn"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.unlink("cairn-copy")
    text = done.stderr.decode()
    check(done.returncode == PERMISSION, f"exit status {done.returncode}, wanted {PERMISSION}", text)
    check(text.startswith("cairn: ") and text.count("\n") == 1 and str(program.pid) in text, "not one line that names it", text)
    unharmed(program.pid)
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()


def refused_by_name(argv, words):
    """A program that says when it is ready, and waits."""
    program = start(argv)
    program.wait_text("ready")
    fault_line(cairn("checkpoint", program.pid, "-o", "a.cairn"), UNSUPPORTED, words)
    unharmed(program.pid)
    program.kill()


@test("two threads that share a working directory apart from their process are refused by name, and unharmed", quick=True)
def apart():
    need_cairn()
    write("apart.py", """
import ctypes, os, threading
def second():
    ready.release()
    wait.acquire()
def first():
    assert ctypes.CDLL(None).unshare(0x200) == 0
    threading.Thread(target=second, daemon=True).start()
    second()
ready, wait = threading.Semaphore(0), threading.Semaphore(0)
threading.Thread(target=first, daemon=True).start()
ready.acquire()
ready.acquire()
print("ready", flush=True)
threading.Event().wait()
""")
    refused_by_name([PYTHON, "apart.py"], "share a working directory and umask")


@test("a thread with a descriptor table of its own is refused by name, and unharmed", quick=True)
def own_table():
    need_cairn()
    write("own.py", """
import ctypes, threading
def apart():
    assert ctypes.CDLL(None).unshare(0x400) == 0
    ready.release()
    threading.Event().wait()
ready = threading.Semaphore(0)
threading.Thread(target=apart, daemon=True).start()
ready.acquire()
print("ready", flush=True)
threading.Event().wait()
""".lstrip())
    refused_by_name([PYTHON, "own.py"], "a descriptor table of its own")


@test("a 32-bit program is refused by name before it is touched", quick=True)
def narrow():
    need_cairn()
    need("gcc")
    write("narrow.s", """
.globl _start
_start: mov $4, %eax; mov $1, %ebx; mov $text, %ecx; mov $6, %edx; int $0x80
again:  mov $29, %eax; int $0x80; jmp again
.data
text: .ascii "ready\\n"
""".lstrip())
    built = subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-o", "narrow", "narrow.s"], stdin=subprocess.DEVNULL, capture_output=True)
    if built.returncode:
        raise Skip(f"gcc -m32: {built.stderr.decode()}")
    try:
        subprocess.Popen(["./narrow"], stdout=subprocess.DEVNULL).kill()
    except OSError as error:
        raise Skip(f"32-bit programs do not run here: {error}") from error
    refused_by_name(["./narrow"], "32-bit")


@test("what a tree shares with a process that is not below the target is refused, with that process's PID", quick=True)
def outside():
    need_cairn()
    write("outside.py", """
import ctypes, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
share = int(sys.argv[1], 0)
def sibling():
    pid = libc.syscall(56, share | signal.SIGCHLD, None, None, None, None)
    assert pid >= 0, ctypes.get_errno()
    if not pid:
        while True:
            signal.pause()
    return pid
first, second = sibling(), sibling()
print("ready", first, second, flush=True)
signal.pause()
""".lstrip())
    for flag, what in ((0x400, "descriptor table"), (0x200, "working directory")):
        program = start([PYTHON, os.path.abspath("outside.py"), hex(flag)], hex(flag))
        program.wait_lines(1)
        first, second = re.search(r"ready (\d+) (\d+)", program.text()).groups()
        # The parent shares too, and is passed over here: it is said where the tree stands still.
        result = cairn("checkpoint", first, "-o", "a.cairn")
        fault_line(result, UNSUPPORTED, what, several=True)
        check(f"process {second}" in result.err, "the sibling is not named", result)
        unharmed(program.pid)
        program.kill()


@test("a tree that spans namespaces is refused by the namespace and the process", quick=True)
def spans():
    need_cairn()
    need_root()
    need("unshare")
    for option, name in (("--uts", "uts"), ("--net", "net"), ("--mount", "mnt")):
        program = start(["sh", "-c", f"echo ready; unshare {option} sh -c 'echo inside $$; exec sleep 1000'; true"], name)
        program.wait_text("inside")
        inside = program.text().split()[-1]
        refused(program.pid, UNSUPPORTED, inside, f"another {name} namespace")
        unharmed(program.pid)


@test("a vfork child that neither execs nor ends is named with its parent when the time is up", quick=True)
def vforked():
    need_cairn()
    # The child never returns from pause(), so it may borrow the interpreter.
    program = start([PYTHON, "-c", "import ctypes; libc = ctypes.CDLL(None); print('ready', flush=True); libc.vfork() or libc.pause()"], "job")
    program.wait_text("ready")
    child = until(lambda: children_of(program.pid), "the child")[0]
    until(lambda: state(program.pid) == "D", "the parent's sleep")
    result = cairn("checkpoint", program.pid, "-o", "image.cairn", "--timeout", "1")
    fault_line(result, TIMEOUT, program.pid, f"vfork child {child}")
    unharmed(program.pid)


if __name__ == "__main__":
    main()
