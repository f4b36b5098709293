#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cgroup that is frozen, as `docker pause` or a batch system's suspend does it, before a save and in the middle of one."""
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, LONG, OK, PATIENCE, PYTHON, TIMEOUT, Skip, cairn, check, fault_line, main, need_cairn, need_root, start, test,
                        unharmed, until)

WORKER = BUILD / "tests" / "badluck" / "worker"
ROUNDS = 40 if LONG else 12


class Freezer:
    """A cgroup for one program, which threads do not leave while it is frozen (version 1: version 2 lets tracers go on)."""

    def __init__(self, program):
        need_root()
        self.path = pathlib.Path(f"/sys/fs/cgroup/freezer/cairn-test-{os.urandom(4).hex()}")
        try:
            self.path.mkdir()
        except OSError as error:
            raise Skip(f"no cgroup of the freezer: {error}")
        self.tell("cgroup.procs", program.pid)

    def tell(self, name, value):
        (self.path / name).write_text(f"{value}\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tell("freezer.state", "THAWED")
        for pid in (self.path / "cgroup.procs").read_text().split():
            pathlib.Path("/sys/fs/cgroup/freezer/cgroup.procs").write_text(pid)
        until(self.removed, "the end of the cgroup")

    def removed(self):
        try:
            self.path.rmdir()
        except OSError:
            return False
        return True


@test("a program of many threads whose cgroup is frozen is given up in time, by name, and runs on when it is thawed")
def before():
    need_cairn()
    program = start([PYTHON, "-c", "import threading, time\n"
                     "for _ in range(60): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
                     "while True: print('round', flush=True); time.sleep(0.01)"])
    program.wait_progress(3)
    with Freezer(program) as freezer:
        freezer.tell("freezer.state", "FROZEN")
        result = cairn("checkpoint", program.pid, "-o", "image.cairn", "--timeout", "1")
        fault_line(result, TIMEOUT, program.pid, "cgroup")
        check(result.seconds < 10 * PATIENCE, "--timeout 1", result)
        freezer.tell("freezer.state", "THAWED")
        unharmed(program.pid)
        program.wait_progress(3)
        program.checkpoint(kill=False, image="image.cairn")
    program.kill()


def during(*words):
    """The cgroup is frozen at random moments of saves. What has to come back from a call that Cairn lets it make cannot: it is left where it is, and
    goes home by itself when it is thawed."""
    need_cairn()
    program = start([WORKER, "24", *words])
    program.wait_progress(3)
    whole = cairn("checkpoint", program.pid, "-o", "whole.cairn", status=OK).seconds
    descriptors = set(os.listdir(f"/proc/{program.pid}/fd"))
    with Freezer(program) as freezer:
        for _ in range(ROUNDS):
            process = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-o", "image.cairn", "--timeout", "1"], stderr=subprocess.PIPE)
            time.sleep(random.random() * whole)
            freezer.tell("freezer.state", "FROZEN")
            if not words: # what a filter would kill on its way home is waited for
                process.communicate(timeout=10 * PATIENCE)
            freezer.tell("freezer.state", "THAWED")
            said = process.communicate(timeout=20 * PATIENCE)[1]
            check(process.returncode in (OK, TIMEOUT), f"exit status {process.returncode}", said)
            unharmed(program.pid)
            program.wait_progress(2)
            noticed = [line for line in program.text().splitlines() if line.startswith("differs")]
            check(not noticed, "the program noticed", *noticed)
        check(set(os.listdir(f"/proc/{program.pid}/fd")) == descriptors, "it has descriptors of Cairn's")
    program.round_trip()
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("a cgroup that is frozen in the middle of a save ends the save in time, and the program runs on when it is thawed", timeout=300)
def meanwhile():
    during()


@test("a program under a seccomp filter whose cgroup is frozen for a while in the middle of a save runs on", timeout=300)
def confined():
    during("suspendable")


if __name__ == "__main__":
    main()
