#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cairn restore --lazy=mapped: the program runs on memory that is mapped from the image."""
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, LONG, PYTHON, check, equal, main, need_cairn, need_root, sh, start, test, tree_of, until, write)

INSTANT = BUILD / "tests" / "badluck" / "instant"
COW = BUILD / "tests" / "kinds" / "cow"
MIB = 1 << 20

# Says the sum of what it has; each time somebody makes the file "look".
HOLDER = """
import os, sys, time
PAUSE = 0.01
data = bytearray(os.urandom({size}))
def total():
    return sum(memoryview(data)[i] for i in range(0, len(data), 4096))
wanted = total()
print("begin", flush=True)
seen = 0
while not os.path.exists("go"):
    looks = len([name for name in os.listdir(".") if name.startswith("look")])
    if looks > seen:
        seen = looks
        print("good" if total() == wanted else "differs", flush=True)
    time.sleep(PAUSE)
"""


def holder(size, directory="holder"):
    program = start([PYTHON, "-c", HOLDER.format(size=size)], directory)
    program.wait_text("begin", timeout=60)
    return program


def look(program, count=1):
    good = program.text().count("good")
    write(program.path(f"look-{good}"), "")
    until(lambda: program.text().count("good") + program.text().count("differs") >= good + count, "what it sees")
    check("differs" not in program.text(), "its memory is not what it was", program.tail())


def image_maps(pid):
    return [line for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines() if ".cairn" in line]


def kilobytes(pid, what):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(what))


def again_and_again(what, *restore):
    need_cairn()
    program = start([INSTANT, what], what)
    program.wait_progress(2)
    for step in range(12 if LONG else 3):
        program.checkpoint("--timeout", "60", "--compress", "none")
        program.restore("--lazy=mapped", *restore)
        check(len(image_maps(program.pid)) > 1, "nothing is mapped from the image", image_maps(program.pid))
        if step == 1:
            # Nobody needs its name.
            os.rename(program.image, "elsewhere.cairn")
            write(program.image, "something else")
        program.wait_progress(2)
        check("differs" not in program.text(), "it is not what was saved", program.text()[-800:])
    # The next image holds all of it, and says nothing of the one that it was mapped from.
    program.checkpoint("--timeout", "60", kill=False)
    program.wait_progress(1)
    program.checkpoint("--timeout", "60")
    os.unlink("elsewhere.cairn")
    for path in program.directory.glob("*.cairn"):
        if path != program.image:
            path.unlink()
    program.restore(*restore)
    equal(image_maps(program.pid), [], "mappings of an image")
    program.wait_progress(2)
    write(program.path("go"), "")
    program.succeed()


@test("a program on memory that is mapped from its image forks, moves, unmaps and protects it, is saved and comes back")
def chaos():
    need_root()
    again_and_again("mapped", "--trust-image")


@test("the same as an ordinary user, in a PID namespace of its own", user=True)
def ordinary():
    again_and_again("mapped")


@test("every place of memory that is mapped from an image is of one instant", user=True)
def sequence():
    again_and_again("sequence")


@test("programs that run on one image share its pages", user=True)
def shared():
    need_cairn()
    program = holder(64 * MIB)
    program.checkpoint("--compress", "none")
    found = []
    for _ in range(4):
        program.restore("--lazy=mapped", "--pids", "private")
        found.append(program.pid)
    look(program, 4)
    for pid in found:
        check(kilobytes(pid, "Rss:") > 64 * 1024, "it has not read its memory", kilobytes(pid, "Rss:"))
        check(kilobytes(pid, "Pss:") < 32 * 1024, "its pages are not shared", kilobytes(pid, "Pss:"))
    write(program.path("go"), "")
    program.succeed()
    until(lambda: not [pid for pid in found if os.path.exists(f"/proc/{pid}/exe")], "end of all four")


@test("a live save of a program on memory that is mapped from its image reads it from a copy-on-write child, when the program runs on")
def live():
    need_cairn()
    need_root()
    program = holder(64 * MIB)
    program.checkpoint("--compress", "none")
    program.restore("--lazy=mapped", "--trust-image")
    image = program.path("live.cairn")
    result = program.checkpoint("--json", "--compress", "none", kill=False, image=image)
    ways = json.loads(result.out.splitlines()[-1])["copied"]
    check(ways["forked"] >= 64 * MIB and ways["frozen"] < 16 * MIB, "how it was copied", ways)
    look(program)
    program.checkpoint(kill=True, image=program.path("last.cairn"))
    program.restore("--trust-image", "--file-changed", "ignore", image=image)
    look(program)
    write(program.path("go"), "")
    program.succeed()


@test("a family on memory that is mapped from its image is stored once again")
def family():
    need_cairn()
    need_root()
    program = start([PYTHON, "-c", HOLDER.format(size=48 * MIB).replace('print("begin"', 'os.fork() and os.fork(); print("begin"')], "family")
    until(lambda: program.text().count("begin") == 3, "three of them")
    program.checkpoint("--compress", "none")
    program.restore("--lazy=mapped", "--trust-image")
    look(program, 3)
    program.checkpoint("--compress", "none")
    size = os.path.getsize(program.image)
    check(size < 96 * MIB, "the image holds the same memory more than once", size)
    program.restore("--trust-image")
    look(program, 3)
    write(program.path("go"), "")
    program.succeed()


@test("what is compressed, or lies in a parent image, is loaded, and a warning says so", user=True)
def loaded():
    need_cairn()
    program = start([INSTANT, "mapped"], "compressed")
    program.wait_progress(1)
    program.checkpoint("--compress", "zstd")
    result = program.restore("--lazy=mapped")
    check("continuing with --eager" in result.err, "no warning", result)
    equal(image_maps(program.pid), [], "mappings of an image")
    program.wait_progress(2)
    program.checkpoint("--compress", "none", kill=False, image=program.path("first.cairn"))
    program.checkpoint("--compress", "none", "--incremental", program.path("first.cairn"))
    program.restore("--lazy=mapped")
    program.wait_progress(2)
    write(program.path("go"), "")
    program.succeed()


@test("an image that others may write is not mapped, and nothing is made", user=True, quick=True)
def writable():
    need_cairn()
    program = holder(4 * MIB)
    program.checkpoint("--compress", "none")
    os.chmod(program.image, 0o666)
    result = program.restore("--lazy=mapped", status=None)
    equal(result.status, 4, "exit status")
    check("others could change the memory" in result.err and "chmod" in result.err, "no reason and remedy", result)
    equal(program.restore("--lazy=mapped", "--json", status=None).status, 4, "exit status")
    os.chmod(program.image, 0o600)
    program.restore("--lazy=mapped")
    look(program)
    write(program.path("go"), "")
    program.succeed()


@test("an image from standard input can be mapped as well", user=True)
def standard_input():
    need_cairn()
    program = holder(16 * MIB)
    program.checkpoint("--compress", "none")
    result = sh("sh", "-c", f"cat {program.image} | {CAIRN} restore -d --json --lazy=mapped -")
    program.pid = json.loads(result)["pid"]
    program.init = tree_of(os.getpid())[1]
    look(program)
    write(program.path("go"), "")
    program.succeed()


if __name__ == "__main__":
    main()
