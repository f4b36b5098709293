#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Any system call of Cairn may fail: for want of memory, descriptors or room, or because a disk is broken."""
import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import re
import subprocess

from cairn_test import (BUILD, CAIRN, LONG, OK, TIMEOUT, Failure, cairn, check, children_of, describe, is_unharmed, main, need, need_cairn, reap, start, state,
                        test, tree_of, unharmed, until)

WORKER = BUILD / "tests" / "badluck" / "worker"
# What each may answer, and Cairn has to bear.
ERRORS = {"openat": "EMFILE", "read": "EIO", "readlink": "ENOMEM", "readlinkat": "ENOMEM", "getdents64": "ENOMEM", "process_vm_readv": "ENOMEM",
          "process_vm_writev": "ENOMEM", "mmap": "ENOMEM", "pwrite64": "ENOSPC", "pwritev": "ENOSPC", "write": "ENOSPC", "fsync": "EIO", "fdatasync": "EIO",
          "linkat": "EDQUOT", "renameat": "EDQUOT", "renameat2": "EDQUOT", "ftruncate": "EIO", "kcmp": "EPERM", "pidfd_open": "EMFILE",
          "pidfd_getfd": "EMFILE", "clone3": "EAGAIN", "clone": "EAGAIN", "wait4": "EINTR", "ioctl": "ENOMEM", "sendmsg": "ENOBUFS", "recvmsg": "ENOMEM",
          "socket": "ENFILE", "pread64": "EIO", "preadv": "EIO", "newfstatat": "ENOMEM", "dup3": "EMFILE", "pipe2": "EMFILE", "memfd_create": "ENFILE",
          "socketpair": "ENFILE", "io_uring_setup": "EPERM", "sched_setaffinity": "EPERM", "signalfd4": "EMFILE", "getsockopt": "ENOBUFS"}
# Of each call, so many moments.
MOMENTS = 60 if LONG else 3


def traced(words, *inject):
    # A restore's children would be traced by two.
    follow = ["-f"] if words[0] == "checkpoint" else []
    process = subprocess.run(["strace", *follow, "-qq", "-o", "trace", *inject, CAIRN, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, timeout=100)
    return process.returncode, process.stderr


def count_calls():
    return collections.Counter(re.findall(r"^(?:\d+ +)?(\w+)\(", pathlib.Path("trace").read_text(), re.M))


def moments(words):
    """(call, its number) of a run that nothing happens to."""
    status, text = traced(words, "-e", "trace=" + ",".join(ERRORS))
    check(status == OK, "the run in which nothing fails", text)
    counts = count_calls()
    # What fails in the loader or in libc's own beginning is not Cairn's.
    traced(["--version"], "-e", "trace=" + ",".join(ERRORS))
    before = count_calls()
    check(len(counts) > 10, "calls", counts)
    for call, count in sorted(counts.items()):
        first = before[call] + 1
        for number in sorted({first + (count - first + 1) * i // MOMENTS for i in range(MOMENTS)}):
            if number <= count:
                yield call, number


def inject(call, number):
    return "-e", f"trace={call}", "-e", f"inject={call}:error={ERRORS[call]}:when={number}"


def failing_saves(*options, manner=()):
    need_cairn()
    need("strace")
    program = start([WORKER, "24", *manner], "job")
    program.wait_progress(3)
    words = ["checkpoint", *options, "-o", "image.cairn", program.pid]
    failed = 0
    for call, number in moments(words):
        if os.path.exists("image.cairn"):
            os.unlink("image.cairn")
        status, text = traced(words, *inject(call, number))
        try:
            unharmed(program.pid)
            program.wait_progress(2, timeout=10)
            noticed = [line for line in program.text().splitlines() if line.startswith("differs")]
            check(not noticed, "the program noticed", *noticed)
            check(OK <= status <= TIMEOUT, f"exit status {status}", text)
            check(status == OK or "cairn: " in text, f"exit status {status} without a word", text)
            if status == OK or call == "fsync":  # the last one is its directory's
                check(not os.path.exists("image.cairn") or cairn("verify", "image.cairn").status == OK, "the image is damaged", text)
            else:
                check(not os.path.exists("image.cairn"), "there is an image of a save that failed", text)
        except Failure as failure:
            raise Failure(f"{ERRORS[call]} of {call} number {number}: {failure}") from None
        failed += status != OK
    check(failed, "no save failed")
    program.path("go").touch()
    program.succeed()


@test("a save that fails because a system call of Cairn does says so, and leaves the program unharmed and no image", timeout=3000, serial=LONG)
def save():
    failing_saves("--no-live")


@test("a live save that fails because a system call of Cairn does says so, and leaves the program unharmed and no image", timeout=3000, serial=LONG)
def save_live():
    failing_saves()


@test("a save by a copy-on-write child that fails because a system call of Cairn does says so, and leaves the program unharmed and no image", timeout=3000, serial=LONG)
def save_forked():
    failing_saves(manner=("plain", "direct"))


@test("a restore that fails because a system call of Cairn does says so, and leaves nothing behind", timeout=3000, serial=LONG)
def restore():
    need_cairn()
    need("strace")
    program = start([WORKER, "24"], "job")
    program.wait_progress(3)
    pid, tree = program.pid, tree_of(program.pid)
    program.checkpoint()
    words = ["restore", "-d", "--file-changed", "ignore", program.image]
    failed = 0

    def settled():
        reap()
        left = [one for one in children_of(os.getpid()) if state(one) not in ("Z", None)]
        if not left:
            return "nothing"
        return left == [pid] and tree_of(pid) == tree and not is_unharmed(pid) and "all"

    def end():
        program.pid = pid
        program.kill()
    calls = list(moments(words))
    end()
    for call, number in calls:
        status, text = traced(words, *inject(call, number))
        where = f"{ERRORS[call]} of {call} number {number}, exit status {status}"
        try:
            outcome = until(settled, "that nothing or all is there", 5)
        except Failure:
            left = [describe(one) for child in children_of(os.getpid()) for one in tree_of(child)]
            raise Failure(f"{where}: remains, neither all nor nothing: " + "; ".join(left)) from None
        check((outcome == "all") == (status == OK), f"{where}: {outcome} is there", text)
        check(OK <= status <= TIMEOUT, where, text)
        check(status == OK or "cairn: " in text, f"{where}: not a word", text)
        failed += status != OK
        if outcome == "all":
            program.pid = pid
            program.wait_progress(1)
            end()
    check(failed, "no restore failed")


if __name__ == "__main__":
    main()
