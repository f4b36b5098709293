#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Saves of programs that run on, while memory is copied behind their backs: every image is one instant."""
import os
import json
import pathlib
import random
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import BUILD, CAIRN, LONG, PYTHON, cairn, check, main, need, need_cairn, start, test, unharmed, until, write

INSTANT = BUILD / "tests" / "badluck" / "instant"


def instant(what, *options, forked=False):
    """Saved while it runs on; then it is killed, and each of the images goes on and finds nothing wrong. @forked: from a copy-on-write child."""
    need_cairn()
    program = start([INSTANT, what, *(["direct"] if forked else [])])
    program.wait_progress(2)
    for _ in range(10 if LONG else 3):
        images = []
        for _ in range(3):
            images.append(program.next_image())
            result = program.checkpoint("--json", *options, kill=False, image=images[-1])
            ways = json.loads(result.out.splitlines()[-1])["copied"]
            check(bool(ways["forked"]) == forked and bool(ways["tracked"]) == (not forked), "how the memory was copied", ways)
            program.wait_progress(1)
            check("differs" not in program.text(), "the program noticed", program.text()[-800:])
        for image in images:
            program.checkpoint(kill=True, image=program.path("last.cairn"))
            program.restore("--file-changed", "ignore", image=image)
            program.wait_progress(2)
            check("differs" not in program.text(), f"what {image} brought back is not one instant", program.text()[-800:])
            image.unlink()
    write(program.path("go"), "")
    program.succeed()


@test("an image of a running program is one instant of its private and shared memory")
def sequence():
    instant("sequence")


@test("an image of a program that maps, moves, protects and gives back memory all the time is one instant")
def chaos():
    instant("chaos")


@test("an image of a program that forks children with all its memory is one instant")
def fork():
    instant("fork")


@test("an image whose private memory comes from a copy-on-write child is one instant of private and shared memory")
def forked_sequence():
    instant("sequence", forked=True)


@test("an image from a copy-on-write child of a program that maps, moves, protects and gives back memory all the time is one instant")
def forked_chaos():
    instant("chaos", forked=True)


@test("an image from a copy-on-write child of a program that forks children with all its memory is one instant")
def forked_fork():
    instant("fork", forked=True)


@test("an image from a copy-on-write child of a process that shares its memory with another is one instant")
def forked_shared():
    instant("shared", forked=True)


@test("what is held back in memory is bounded, and more than that changes nothing")
def bounded():
    instant("chaos", "--max-extra-memory", "1M")


ENDERS = """
import os
while not os.path.exists("go"):
    children = []
    for size in (20, 50):
        child = os.fork()
        if child == 0:
            memory = b"x" * (size << 20)
            os._exit(len(memory) & 0xff)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    print("round", flush=True)
"""


def enders(program):
    program.wait_lines(1)
    for _ in range(15):
        program.checkpoint(kill=False, image=program.path("image.cairn"))
    write(program.path("go"), "")
    program.succeed()


@test("large processes that come and end while the tree is copied end no save", quick=True)
def ends():
    need_cairn()
    write("enders.py", ENDERS)
    enders(start([PYTHON, "enders.py"]))


@test("a save right after one that was killed while it copied waits for what that had armed", quick=True)
def after_killed():
    need_cairn()
    program = start([PYTHON, "-c", "import os, time\nPAUSE = 0.01\ndata = bytearray(os.urandom(200 << 20))\nprint('ready', flush=True)\n"
                     "while not os.path.exists('go'): time.sleep(PAUSE)\n"])
    program.wait_text("ready", timeout=60)
    for _ in range(10):
        saving = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-o", "killed.cairn", "-q"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: any(" uw" in line for line in pathlib.Path(f"/proc/{program.pid}/smaps").read_text().splitlines() if line.startswith("VmFlags")) or
              saving.poll() is not None, "write protection")
        saving.kill()
        program.checkpoint(kill=False)
        saving.wait()
    write(program.path("go"), "")
    program.succeed()


@test("without --no-live most of the memory is copied while the program runs", quick=True)
def copied_before():
    need_cairn()
    program = start([INSTANT, "sequence"])
    program.wait_progress(2)
    for options, live in (((), True), (("--no-live",), False)):
        result = cairn("checkpoint", program.pid, "-v", "-o", "a.cairn", *options, status=0)
        check(("copied while the program runs" in result.err) == live, f"live: {live}", result)
        unharmed(program.pid)
    write(program.path("go"), "")
    program.succeed()


@test("a save has its time for the freeze also if copying before that took long, unless --timeout bounds all of it", long_only=True)
def slow_rounds():
    need_cairn()
    need("strace")
    program = start([INSTANT, "sequence"])
    program.wait_progress(2)
    slow = ["strace", "-f", "-qq", "-o", "trace", "-e", "trace=pwritev,pwrite64", "-e", "inject=pwritev,pwrite64:delay_enter=11000000:when=2"]
    for options, status in (((), 0), (("--timeout", "5"), 7)):
        done = subprocess.run([*slow, CAIRN, "checkpoint", str(program.pid), "-o", "a.cairn", *options], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=100)
        check(done.returncode == status, f"exit status {done.returncode}, wanted {status}", done.stderr)
        unharmed(program.pid)
    write(program.path("go"), "")
    program.succeed()


@test("every way to store memory brings the same back; a wrong word is wrong usage", quick=True)
def compress():
    need_cairn()
    program = start([INSTANT, "chaos"])
    program.wait_progress(1)
    sizes = {}
    for way in random.sample(["none", "lz4", "zstd", "zstd:9"], 4):
        result = program.checkpoint("--compress", way, "--json")
        sizes[way] = json.loads(result.out)["bytes"]
        cairn("verify", program.image, status=0)
        program.restore()
        program.wait_progress(2)
        check("differs" not in program.text(), f"{way} brought something else back", program.text()[-800:])
    check(sizes["zstd"] < sizes["none"] / 2 and sizes["lz4"] < sizes["none"] / 2, f"sizes: {sizes}")
    for word in ("gzip", "zstd:0", "zstd:20", "zstd:", "zstd:3x", "lz4:1"):
        cairn("checkpoint", program.pid, "-o", "b.cairn", "--compress", word, status=2)
    write(program.path("go"), "")
    program.succeed()


@test("a chain of incremental images brings the program back, is small, and folds into one file")
def incremental():
    need_cairn()
    program = start([INSTANT, "chaos"])
    program.wait_progress(2)
    images = [pathlib.Path(f"{number}.cairn").resolve() for number in range(4)]
    sizes = []
    for number, image in enumerate(images):
        parent = ("--incremental", str(images[number - 1])) if number else ()
        result = program.checkpoint("--compress", "none", "--json", *parent, kill=number == 3, image=image)
        sizes.append(json.loads(result.out)["bytes"])
        cairn("verify", image, status=0)
        if number < 3:
            program.wait_progress(1)
    # It does not look alike for long: what two images have in common is what the first rounds left alone.
    check(min(sizes[1:]) < sizes[0], f"sizes: {sizes}")
    cairn("merge", images[3], "-o", "whole.cairn", status=0)
    cairn("merge", images[3], status=2)
    moved = pathlib.Path("moved")
    moved.mkdir()
    for image in images:
        image.rename(moved / image.name)
    for image in (moved / "3.cairn", pathlib.Path("whole.cairn").resolve()):
        program.restore("--file-changed", "ignore", image=image)
        program.wait_progress(2)
        check("differs" not in program.text(), f"{image} brought something else back", program.text()[-800:])
        program.kill()
    program.restore("--lazy", "--file-changed", "ignore", image=moved / "3.cairn")
    program.wait_progress(2)
    check("differs" not in program.text(), "the lazy restore brought something else back", program.text()[-800:])
    write(program.path("go"), "")
    program.succeed()


def holders():
    """Those of this test: root sees everybody's. (The ones that know the writes of a program have its PID in their names.)"""
    names = [json.loads(line)["name"] for line in cairn("ps", "--json", status=0).out.splitlines() if json.loads(line).get("tracking")]
    return [name for name in names if os.path.exists(f"/proc/{name.removeprefix('track-')}")]


def tracked(what):
    """A chain of saves, each of only what was written since the one before; each image goes on, in any order, and finds nothing wrong."""
    need_cairn()
    program = start([INSTANT, what])
    program.wait_progress(2)
    images = [pathlib.Path(f"{number}.cairn").resolve() for number in range(8 if LONG else 5)]
    for number, image in enumerate(images):
        parent = ("--incremental", str(images[number - 1])) if number else ()
        last = number == len(images) - 1
        program.checkpoint(*parent, *(() if last else ("--track",)), kill=last, image=image)
        check(holders() == ([] if last else [f"track-{program.pid}"]), "who tracks", holders())
        if not last:
            program.wait_progress(1)
            check("differs" not in program.text(), "the program noticed", program.text()[-800:])
    cairn("verify", images[-1], status=0)
    for image in random.sample(images, len(images)):
        program.restore("--file-changed", "ignore", image=image)
        program.wait_progress(2)
        check("differs" not in program.text(), f"what {image} brought back is not one instant", program.text()[-800:])
        program.kill()
    program.restore("--file-changed", "ignore", image=images[-1])
    write(program.path("go"), "")
    program.succeed()


@test("a family that shares memory copy-on-write is saved live, in a chain, and folded with each page stored once")
def family():
    need_cairn()
    program = start([BUILD / "tests" / "kinds" / "cow", "family"], "probe")
    until(lambda: "ready\n" in program.text(), "'ready' of the probe")
    images = [program.path(f"chain-{i}.cairn") for i in range(3)]
    program.checkpoint("--track", "--compress", "none", kill=False, image=images[0])
    program.checkpoint("--incremental", images[0], kill=False, image=images[1])
    program.checkpoint("--incremental", images[1], kill=True, image=images[2])
    whole = program.path("whole.cairn")
    cairn("merge", images[2], "-o", whole, status=0)
    first = images[0].stat().st_size
    check(first < 60 << 20, f"seven processes of 24 MiB, which they share, are {first} bytes")
    check(images[1].stat().st_size < first / 4, "the second image holds what has not changed")
    check(whole.stat().st_size < first * 1.2, f"folded it is {whole.stat().st_size} bytes, and was {first}")
    program.restore(image=images[2])
    program.checkpoint(kill=True, image=program.path("last.cairn"))
    program.restore(image=whole)
    write(program.path("go"), "")
    program.succeed()


@test("a chain of tracked saves of a program that maps, moves, protects and gives back memory is a chain of instants")
def tracked_chaos():
    tracked("chaos")


@test("a chain of tracked saves of a program that forks children is a chain of instants")
def tracked_fork():
    tracked("fork")


@test("a chain of tracked saves of two processes that share their memory is a chain of instants")
def tracked_shared():
    tracked("shared")


@test("a chain of tracked saves of private and shared memory is a chain of instants")
def tracked_sequence():
    tracked("sequence")


@test("tracking ends by cairn kill, with the program, or with a save from another parent, and harms nothing", quick=True)
def tracking_ends():
    need_cairn()
    program = start([INSTANT, "sequence"])
    program.wait_progress(2)
    for option in ("--kill", "--stop", "--no-live"):
        cairn("checkpoint", program.pid, "-o", "a.cairn", "--track", option, status=2)
    cairn("checkpoint", program.pid, "-o", "a.cairn", "--track", status=0)
    cairn("check", program.pid, status=0)
    # What fails before it touches anything ends nothing.
    cairn("checkpoint", program.pid, "-o", "b.cairn", "--incremental", "nothing.cairn", status=1)
    check(holders() == [f"track-{program.pid}"], "who tracks", holders())
    refused = cairn("checkpoint", f"track-{program.pid}", "-o", "b.cairn", status=2)
    check("try its PID" in refused.err, "a holder is no job", refused)
    cairn("kill", f"track-{program.pid}", status=0)
    until(lambda: not holders(), "the holder ends")
    unharmed(program.pid)
    # Nothing is known any more: the contents are compared.
    cairn("checkpoint", program.pid, "-o", "b.cairn", "--track", "--incremental", "a.cairn", status=0)
    cairn("checkpoint", program.pid, "-o", "c.cairn", "--track", "--incremental", "a.cairn", status=0)
    cairn("checkpoint", program.pid, "-o", "d.cairn", "--track", status=0)
    check(holders() == [f"track-{program.pid}"], "who tracks", holders())
    program.wait_progress(1)
    for image in ("c.cairn", "d.cairn"):
        program.kill()
        program.restore("--file-changed", "ignore", image=pathlib.Path(image).resolve())
        until(lambda: not holders(), "the holder ends with the program")
        program.wait_progress(2)
        check("differs" not in program.text(), f"what {image} brought back is not one instant", program.text()[-800:])
    write(program.path("go"), "")
    program.succeed()


@test("an incremental image without its parent, or with another in its place, is refused by name and id", quick=True)
def parents():
    need_cairn()
    program = start([INSTANT, "sequence"])
    program.wait_progress(1)
    program.checkpoint(kill=False, image=program.path("parent.cairn"))
    cairn("checkpoint", program.pid, "-o", "x.cairn", "--incremental", "nothing.cairn", status=1)
    program.checkpoint("--incremental", "parent.cairn", kill=False, image=program.path("child.cairn"))
    for needed in ("parent.cairn", "child.cairn"):
        refused = cairn("checkpoint", program.pid, "-o", needed, "--incremental", "child.cairn", "--kill", status=2)
        check("would need" in refused.err, "an image that is needed may be replaced", refused)
    unharmed(program.pid)
    cairn("verify", "child.cairn", status=0)
    program.checkpoint("--incremental", "child.cairn", image=program.path("grandchild.cairn"))
    program.path("parent.cairn").rename("away.cairn")
    for word in ("verify", "inspect", "restore"):
        fault = cairn(word, "grandchild.cairn")
        check(fault.status in (6, 125) and "parent.cairn (id " in fault.err, "the missing parent is not named", fault)
    program.path("child.cairn").rename("parent.cairn")
    check("child.cairn (id " in cairn("verify", "grandchild.cairn", status=6).err, "another image is taken for the parent")


if __name__ == "__main__":
    main()
