#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cairn restore --lazy: the program runs at once, and its memory is plain memory at every moment."""
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, LONG, all_pids, cairn, check, main, need_cairn, need_root, proc_status, reap, start, test, until,
                        wait_gone, write)

INSTANT = BUILD / "tests" / "badluck" / "instant"


def pagers():
    reap()
    return [pid for pid in all_pids() if (proc_status(pid) or {}).get("Name") == "cairn-pager"]


def lazy(what, *compress, restore=()):
    """Saved, killed, brought back while its memory is still in the image, again and again."""
    need_cairn()
    need_root()
    program = start([INSTANT, what], what)
    program.wait_progress(2)
    for _ in range(20 if LONG else 4):
        program.checkpoint("--timeout", "60", *compress)
        program.restore("--lazy", *restore)
        program.wait_progress(2)
        check("differs" not in program.text(), "it is not what was saved", program.text()[-800:])
    until(lambda: not pagers(), "end of the loading")
    write(program.path("go"), "")
    program.succeed()


@test("a program that runs before its memory is loaded finds all of it")
def sequence():
    lazy("sequence")


@test("a program that maps, moves, protects and gives back memory while it is loaded finds what it should")
def chaos():
    lazy("chaos")


@test("a program that forks while its memory is loaded finds it in every child")
def fork():
    lazy("fork", "--compress", "zstd")


@test("the image may be replaced and deleted while it is loaded; a save waits until all is there", quick=True)
def replaced():
    need_cairn()
    need_root()
    program = start([INSTANT, "chaos"])
    program.wait_progress(1)
    program.checkpoint("--compress", "none")
    program.restore("--lazy")
    with open(program.image, "r+b") as image:
        os.unlink(program.image)
        write(program.image, "something else")
        image.close()
    program.checkpoint("--timeout", "60", kill=False, image=program.path("next.cairn"))
    program.wait_progress(2)
    check("differs" not in program.text(), "it is not what was saved", program.text()[-800:])
    cairn("verify", "next.cairn", status=0)
    write(program.path("go"), "")
    program.succeed()


def bereft(choose, *restore):
    """Those of guard and pager that @choose says are killed while they load."""
    need_cairn()
    need_root()
    for step in range(20 if LONG else 5):
        program = start([INSTANT, "chaos"], f"killed-{step}")
        program.wait_progress(1)
        program.checkpoint()
        program.restore("--lazy", *restore)
        for pid in choose(pagers()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        until(lambda: not pagers(), "end of the pager")
        reap()
        check("differs" not in program.text(), "it has seen what was never there", program.text()[-800:])
        if proc_status(program.pid):
            program.kill()
        else:
            wait_gone([program.pid])


@test("a program whose memory can no longer be loaded is killed, and never sees zeros")
def killed():
    # The guard is the parent of the one that loads; whoever of the two is killed, the other goes on or ends it all.
    bereft(lambda found: found[-1:])


@test("in a PID namespace of its own a program runs before its memory is loaded, is saved and killed meanwhile, and comes back")
def private():
    for what in ("chaos", "fork"):
        lazy(what, restore=("--pids", "private"))


@test("in a PID namespace of its own a program whose guard and pager are killed never sees zeros, and its job ends")
def private_killed():
    bereft(lambda found: found, "--pids", "private")


@test("words of --lazy that exclude each other or do not exist are wrong usage", quick=True)
def usage():
    cairn("restore", "--lazy", "--eager", "a.cairn", status=2)
    cairn("restore", "--lazy=mapped", "--eager", "a.cairn", status=2)
    cairn("restore", "--lazy=other", "a.cairn", status=2)


if __name__ == "__main__":
    main()
