#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""xz compressing a large file: much memory, one or several threads, bit-identical output."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import random

from cairn_test import LONG, main, need, same_files, start, test, undisturbed

MEGABYTES = int(os.environ.get("CAIRN_TEST_XZ_MB", "200" if LONG else "40"))


def generate(path):
    """Half text that compresses, half that does not; always the same."""
    source = random.Random(2)
    words = [source.randbytes(source.randrange(3, 12)) for _ in range(5000)]
    with open(path, "wb") as out:
        for _ in range(MEGABYTES):
            block = b"".join(source.choices(words, k=10000))[:65536] * 8
            out.write(block + source.randbytes(1048576 - len(block)))


def compress(*options):
    need("xz")
    generate("data")
    command = ["xz", "-1" if not LONG else "-3", *options, "-c", "../data"]
    reference = undisturbed(command)
    program = start(command, "job")
    for _ in range(2):
        program.wait_cpu(0.4)
        program.round_trip()
    program.wait_cpu(0.1)
    program.succeed(600)
    same_files(program, reference, "out", "err")


@test("xz of a large file is bit-identical after two restores", timeout=900)
def single():
    compress("-T1")


@test("xz with two threads is bit-identical after two restores", timeout=900)
def threads():
    compress("-T2")


if __name__ == "__main__":
    main()
