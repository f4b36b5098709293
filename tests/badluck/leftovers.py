#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What outlives processes: System V objects, message queues, files of sockets and files that a restore puts back. One that is killed leaves none of them."""
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (CAIRN, LONG, PYTHON, Skip, alive, check, children_of, main, need_cairn, need_root, start, state, test, tree_of, until,
                        write)

ROUNDS = 200 if LONG else 50
libc = ctypes.CDLL(None, use_errno=True)

PROGRAM = """
import ctypes, os, socket, struct, time
PACE = 0.002
libc = ctypes.CDLL(None, use_errno=True)
key = int(os.environ["KEY"])
shm, sem, msg = libc.shmget(key, 100000, 0o1600), libc.semget(key, 3, 0o1600), libc.msgget(key, 0o1600)
assert min(shm, sem, msg) >= 0
libc.shmat.restype = ctypes.c_void_p
libc.shmat(shm, None, 0)
assert libc.semop(sem, struct.pack("<Hhh", 1, 5, 0), 1) == 0
assert libc.msgsnd(msg, struct.pack("<q4s", 1, b"text"), 4, 0) == 0
queue = libc.syscall(240, os.environ["KEY"].encode(), 0o102, 0o600, None)
assert queue >= 0
server = socket.socket(socket.AF_UNIX)
server.bind("server")
server.listen(1)
log = open("log", "w")
log.write("of the save")
log.flush()
print("ready", flush=True)
while not os.path.exists("go"):
    print("round", flush=True)
    time.sleep(PACE)
"""


def left(key):
    """Names of what is there of the program's."""
    found = [name for name, get in (("segment", lambda: libc.shmget(key, 0, 0)), ("semaphores", lambda: libc.semget(key, 0, 0)),
                                    ("messages", lambda: libc.msgget(key, 0))) if get() >= 0]
    queue = libc.syscall(240, str(key).encode(), 0, 0, None)
    if queue >= 0:
        os.close(queue)
        found.append("queue")
    return found + [name for name in ("server", "log") if os.path.lexists(f"job/{name}")]


def remove(key):
    for get, control in ((lambda: libc.shmget(key, 0, 0), libc.shmctl), (lambda: libc.msgget(key, 0), libc.msgctl)):
        if get() >= 0:
            control(get(), 0, None)
    if libc.semget(key, 0, 0) >= 0:
        libc.semctl(libc.semget(key, 0, 0), 0, 0)
    libc.syscall(241, str(key).encode())
    for name in ("server", "log"):
        pathlib.Path("job", name).unlink(missing_ok=True)


@test("SIGKILL of a restore leaves no queue, segment, semaphores, socket's file or file that it has made", timeout=300, serial=True)
def killed():
    need_cairn()
    need_root()
    if libc.unshare(0x08000000):  # CLONE_NEWIPC
        raise Skip("IPC namespaces are not permitted")
    key = 0x0ca40000 + os.getpid()
    write("job/own.py", PROGRAM)
    program = start([PYTHON, "own.py"], "job", env={"KEY": str(key)})
    program.wait_text("round")
    check(len(left(key)) == 6, "set-up", left(key))
    program.checkpoint("--save-files", "all")
    remove(key)
    words = [CAIRN, "restore", "-d", "--file-changed", "rollback", str(program.image)]
    whole = min(timed(words, program, key) for _ in range(3))
    cut = 0
    for step in range(ROUNDS):
        check(not left(key), "left before a round", left(key))
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = time.monotonic() + whole * 1.2 * step / ROUNDS
        while time.monotonic() < goal and process.poll() is None:
            pass
        process.kill()
        cut += process.wait() != 0
        outcome = until(lambda: settled(program.pid, key), f"after {step}/{ROUNDS} of a restore all is there or nothing: " + ", ".join(left(key)), 10)
        if outcome == "all":
            end(program.pid, key)
    check(cut > ROUNDS // 4, f"only {cut} restores were cut")
    program.restore("--file-changed", "rollback")
    program.path("go").touch()
    program.succeed()
    remove(key)


def timed(words, program, key):
    begin = time.monotonic()
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - begin
    end(program.pid, key)
    return seconds


def end(pid, key):
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "its end")
    os.waitpid(pid, 0)
    remove(key)


def settled(pid, key):
    others = [one for one in children_of(os.getpid()) if state(one) not in ("Z", None)]
    if not others and not left(key):
        return "nothing"
    return "all" if others == [pid] and len(left(key)) == 6 and state(pid) == "S" and tree_of(pid) == [pid] else None


if __name__ == "__main__":
    main()
