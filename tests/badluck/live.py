#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Saves of programs that run on, while memory is copied behind their backs: every image is one instant."""
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import BUILD, LONG, cairn, check, main, need_cairn, start, test, unharmed, write

INSTANT = BUILD / "tests" / "badluck" / "instant"


def instant(what, *options):
    """Saved while it runs on; then it is killed, and each of the images goes on and finds nothing wrong."""
    need_cairn()
    program = start([INSTANT, what])
    program.wait_progress(2)
    for _ in range(10 if LONG else 3):
        images = []
        for _ in range(3):
            images.append(program.next_image())
            program.checkpoint(*options, kill=False, image=images[-1])
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


@test("what is held back in memory is bounded, and more than that changes nothing")
def bounded():
    instant("chaos", "--max-extra-memory", "1M")


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


if __name__ == "__main__":
    main()
