#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Everyday tools in the middle of their work, among processes, pipes, locks and many files."""
import hashlib
import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import PYTHON, check, equal, main, need, sh, start, test, until, write

WRITER = r'''
import os, sqlite3, sys, time
database = sqlite3.connect("data", isolation_level=None)
database.execute("pragma journal_mode=wal")
database.execute("create table if not exists rows (number integer primary key, text)")
log = open("log", "a")
number = 0
while not os.path.exists("finish"):
    database.execute("begin immediate")
    for _ in range(20):
        database.execute("insert into rows values (?, ?)", (number, "x" * (number % 1000)))
        number += 1
    database.execute("commit")
    log.write(f"{number}\n")
    log.flush()
database.close()
'''


@test("sqlite under a write load in WAL mode keeps every committed row, and its locks", quick=True)
def sqlite():
    write("job/writer.py", WRITER)
    program = start([PYTHON, "writer.py"], "job")
    for count in (20, 50):
        program.wait_lines(count, "log")
        program.checkpoint(kill=False, image=program.path("image.cairn"))
        program.round_trip()
    program.wait_progress(10, "log")
    program.finish()
    committed = int(program.text("log").splitlines()[-1])
    need("sqlite3")
    equal(sh("sqlite3", "job/data", "pragma integrity_check; select count(*), max(number) from rows").split(),
          ["ok", f"{committed}|{committed - 1}"], "the database")


def make_tree(path, files=300):
    generator = random.Random(7)
    for number in range(files):
        file = pathlib.Path(path, f"d{number % 17}", f"f{number}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(generator.randbytes(generator.randrange(60000)))


def tree_hash(path):
    total = hashlib.sha256()
    for file in sorted(pathlib.Path(path).rglob("*")):
        if file.is_file():
            total.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return total.hexdigest()


def twice_in_mid_work(program, progress):
    """Two round trips when progress() has come to 1 and 2 of 3; a tool that was too quick is no failure."""
    for part in (1, 2):
        until(lambda: progress() >= part / 3 or not os.path.exists(f"/proc/{program.pid}"), "mid-work", 60)
        if program.inner_pid():
            program.round_trip()
    program.wait(120)


@test("tar | zstd through a slow reader makes the archive that it was to make", quick=True)
def tar():
    need("tar", "zstd")
    make_tree("job/tree")
    write("job/slow.py", "import os, sys, time\nout = open('archive', 'wb')\n"
          "while data := sys.stdin.buffer.read1(40000):\n    out.write(data); out.flush(); time.sleep(0.003)\n")
    program = start(["sh", "-c", "tar c --sort=name tree | zstd -q -1 | python3 slow.py; echo ${?}"], "job")
    size = sum(file.stat().st_size for file in pathlib.Path("job/tree").rglob("*") if file.is_file())
    archive = pathlib.Path("job/archive")
    twice_in_mid_work(program, lambda: (archive.stat().st_size if archive.exists() else 0) / size)
    equal(program.text(), "0\n", "status")
    pathlib.Path("unpacked").mkdir()
    sh("sh", "-c", "zstd -dqc job/archive | tar x -C unpacked")
    equal(tree_hash("unpacked/tree"), tree_hash("job/tree"), "contents")


@test("rsync of a tree into another ends with equal trees", quick=True)
def rsync():
    need("rsync")
    make_tree("job/from", 600)
    program = start(["rsync", "-a", "--bwlimit=12000", "from/", "to/"], "job")
    size = sum(file.stat().st_size for file in pathlib.Path("job/from").rglob("*") if file.is_file())

    def progress():
        try:
            return sum(file.stat().st_size for file in pathlib.Path("job/to").rglob("*") if file.is_file()) / size
        except OSError:
            return 0
    twice_in_mid_work(program, progress)
    equal(program.text("err"), "", "errors")
    equal(tree_hash("job/to"), tree_hash("job/from"), "contents")


@test("git gc packs a repository that is whole afterwards", quick=True)
def git():
    need("git")
    make_tree("job/work", 150)
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"]):
        sh("git", "-C", "job/work", "-c", "gc.auto=0", *words)
    before = sh("git", "-C", "job/work", "rev-parse", "HEAD")
    program = start(["git", "-C", "work", "-c", "pack.threads=2", "gc", "--quiet", "--no-cruft"], "job")
    for part in (0.05, 0.05):
        try:
            program.wait_cpu(part)
        except Exception:
            break
        if os.path.exists(f"/proc/{program.pid}") and program.inner_pid():
            program.round_trip()
    program.wait(120)
    equal(program.text("err"), "", "errors")
    sh("git", "-C", "job/work", "fsck", "--full", "--strict")
    equal(sh("git", "-C", "job/work", "rev-parse", "HEAD"), before, "the commit")
    check(not list(pathlib.Path("job/work/.git").rglob("*.lock")), "a lock file is left")


if __name__ == "__main__":
    main()
