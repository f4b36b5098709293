#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs of pages that an image holds already, at another address or of another process, are not stored again."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import OK, PYTHON, cairn, check, main, need_cairn, need_root, start, test, write

# 8 MiB of its own and copies of it, one of them changed in a few places while it runs; a child, not forked with them, that has the same.
PROGRAM = r"""
import hashlib, mmap, os, random, select, subprocess, sys
SIZE = 8 << 20
data = random.Random(7).randbytes(SIZE)
def copy():
    one = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    one[:] = data
    return one
first, copies = copy(), [copy() for _ in range(3)]
del data
wanted = hashlib.sha256(first).hexdigest()
child = subprocess.Popen([sys.executable, "program.py", "child"]) if len(sys.argv) == 1 else None
source, step = random.Random(3), 0
changes = {}
while not os.path.exists("go"):
    step += 1
    at = source.randrange(SIZE // 8)
    changes[at] = copies[2][at] = step % 256
    for one in (first, *copies[:2]):
        if step % 10 == 0 and hashlib.sha256(one).hexdigest() != wanted:
            print("differs", flush=True)
    if any(copies[2][at] != value for at, value in changes.items()):
        print("differs", flush=True)
    print("step", step, flush=True)
    select.select([], [], [], 0.02)
for one in (first, *copies[:2]):
    if hashlib.sha256(one).hexdigest() != wanted:
        print("differs", flush=True)
sys.exit(child.wait() if child else 0)
"""
DATA = 8 << 20


def begin():
    need_cairn()
    write("job/program.py", PROGRAM)
    program = start([PYTHON, "program.py"], "job")
    program.wait_progress(6)
    return program


def go_on(program):
    program.wait_progress(12)
    check("differs" not in program.text(), "it is not what was saved", program.text()[-800:])


def finish(program):
    go_on(program)
    write(program.path("go"), "")
    program.succeed()
    check("differs" not in program.text(), "it is not what was saved", program.text()[-800:])


def small(image):
    """80 MiB without it. Threads that come to the same pages at the same time both store them; the changed copies have pages of their own between those
    that are not, and ends of runs are stored again. The rest is python's."""
    size = pathlib.Path(image).stat().st_size
    check(size < 6.5 * DATA, f"eight times {DATA} bytes, which are the same, are an image of {size}")


def several():
    program = begin()
    for way in ("none", "lz4", "zstd"):
        program.checkpoint("--compress", way)
        small(program.image)
        cairn("verify", program.image, status=OK)
        program.restore()
        go_on(program)
    finish(program)


@test("copies of data, in one process and in two, are stored once, and each comes back as its own")
def as_root():
    need_root()
    several()


@test("an ordinary user's copies of data are stored once", user=True, quick=True)
def as_user():
    several()


@test("copies are stored once in a live save and a chain, and folding keeps it so")
def chain():
    program = begin()
    images = [pathlib.Path(f"{i}.cairn").resolve() for i in range(3)]
    program.checkpoint("--track", kill=False, image=images[0])
    small(images[0])
    go_on(program)
    program.checkpoint("--track", "--incremental", images[0], kill=False, image=images[1])
    go_on(program)
    program.checkpoint("--incremental", images[1], image=images[2])
    cairn("merge", images[2], "-o", "whole.cairn", status=OK)
    small("whole.cairn")
    for image in (images[2], "whole.cairn"):
        program.restore("--file-changed", "ignore", image=image)
        go_on(program)
        if image == images[2]:
            program.kill()
    finish(program)


@test("copies that are stored once are loaded behind the running program, and mapped from the image")
def lazy():
    need_root()
    program = begin()
    for words in (("--lazy",), ("--lazy=mapped",)):
        program.checkpoint("--compress", "none")
        small(program.image)
        program.restore(*words)
        go_on(program)
    finish(program)


@test("copies in an encrypted image are stored once", quick=True)
def encrypted():
    program = begin()
    with open("key", "wb") as out:
        out.write(pathlib.Path("/dev/urandom").open("rb").read(32))
    pathlib.Path("key").chmod(0o600)
    key = str(pathlib.Path("key").resolve())
    program.checkpoint("--encrypt-key", key)
    small(program.image)
    program.restore("--decrypt-key", key)
    finish(program)


if __name__ == "__main__":
    main()
