#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Files that a program had open, and that went on without it: --save-files at the checkpoint, --file-changed rollback at the restore."""
import os
import pathlib
import sqlite3
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import FAILED, OK, PYTHON, check, cairn, equal, fault_line, main, need_cairn, run, start, test, unharmed, until, write

# Each round is a line in the log, and one of a table in the middle of another file; both say how far it is.
WORKER = """
import mmap, os, sys, time
os.umask(0o22)
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
table = os.open("table", os.O_RDWR | os.O_CREAT)
os.ftruncate(table, 100000)
shared = os.open("shared", os.O_RDWR | os.O_CREAT)
os.ftruncate(shared, 8192)
mapped = mmap.mmap(shared, 8192)
os.close(shared)
PACE = 0.002
step = 0
while not os.path.exists("finish") or step < 50:
    step += 1
    os.write(log, b"step %d\\n" % step)
    os.pwrite(table, b"%08d" % step, 50000 + step % 100 * 8)
    mapped[:8] = b"%08d" % step
    os.write(1, b"round %d\\n" % step)
    time.sleep(PACE)
"""


def begin():
    write("worker.py", WORKER)
    program = start([PYTHON, "../worker.py"], "job")
    program.wait_progress(20)
    return program


def held(program):
    """What the three files say; the program does not run."""
    return tuple(program.path(name).read_bytes() for name in ("log", "table", "shared"))


def is_consistent(files):
    """One moment of the program, give or take the round that it was in."""
    log, table, shared = files
    last = int(log.split()[-1])
    in_table = max(int(table[at:at + 8].strip(b"\0") or b"0") for at in range(50000, 50800, 8))
    check(log == b"".join(b"step %d\n" % step for step in range(1, last + 1)), "the log has gaps", log[-200:])
    check(last - 1 <= in_table <= last and last - 1 <= int(shared[:8]) <= last, "the files are of different moments", last, in_table, shared[:8])


def finish(program):
    program.finish()
    is_consistent(held(program))
    equal(program.path("out").read_bytes().count(b"\n"), int(program.path("log").read_bytes().split()[-1]), "lines of both logs")


@test("a program that ran on after its save, and was killed, is rolled back with all of its files, mapped ones too", quick=True)
def all_files():
    need_cairn()
    program = begin()
    program.checkpoint("--save-files", "all", kill=False)
    program.wait_progress(20)
    inode = program.path("table").stat().st_ino
    program.kill()
    ahead = held(program)
    fault_line(cairn("restore", "-d", program.image), FAILED, "has changed since", several=True)
    equal(held(program), ahead, "files after a refused restore")
    fault_line(cairn("check", program.image), FAILED, "has changed since", several=True)
    cairn("check", "--file-changed", "rollback", program.image, status=OK)
    equal(held(program), ahead, "files after a check")
    cairn("verify", program.image, status=OK)
    inspected = cairn("inspect", program.image, status=OK).out
    for name in ("log", "table", "shared", "out"):
        check(f"saved file {program.path(name)}" in inspected, f"cairn inspect does not name {name}", inspected)
    program.restore("--file-changed", "rollback", "--leave-stopped")
    back = held(program)
    is_consistent(back)
    check(len(back[0]) < len(ahead[0]), "nothing was rolled back")
    equal(program.path("table").stat().st_ino, inode, "inode")
    program.kill()
    # As good as unchanged, and a second time the same.
    program.restore("--leave-stopped")
    equal(held(program), back, "files after the second restore")
    os.kill(program.pid, 18)
    finish(program)


@test("without --save-files a restore cuts off what was appended, and refuses what it cannot undo", quick=True)
def nothing_saved():
    need_cairn()
    program = begin()
    program.checkpoint(kill=False)
    program.wait_progress(20)
    program.kill()
    ahead = held(program)
    refused = cairn("restore", "-d", "--file-changed", "rollback", program.image)
    fault_line(refused, FAILED, "table", "was modified", "--save-files")
    equal(held(program), ahead, "files after a refused restore")


def ready(code):
    program = start([PYTHON, "-c", code], "job")
    program.wait_text("ready")
    return program


@test("--save-files append takes along what is open for appending: a log that was rotated away is there again", quick=True)
def appended():
    need_cairn()
    code = ("import os, time\nlog = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)\n"
            "other = os.open('other', os.O_RDWR | os.O_CREAT)\nos.write(other, b'other')\nos.write(log, b'before\\n')\nos.write(1, b'ready\\n')\n"
            "while not os.path.exists('finish'): time.sleep(0.002)\nos.write(log, b'after\\n')\n")
    program = ready(code)
    program.checkpoint("--save-files", "append")
    check("other" not in cairn("inspect", program.image, status=OK).out.partition("saved file")[2].splitlines()[0], "another file was saved")
    os.rename(program.path("log"), program.path("log.1"))
    fault_line(cairn("restore", "-d", program.image), FAILED, "log: is missing")
    program.restore("--file-changed", "rollback")
    program.finish()
    equal(program.path("log").read_text(), "before\nafter\n", "the log")
    equal(program.path("log").stat().st_mode & 0o777, 0o640, "its mode")
    equal(program.path("log.1").read_text(), "before\n", "the one that was rotated away")


@test("a restore that fails has rolled nothing back, and made nothing; a symbolic link is not followed", quick=True)
def untouched():
    need_cairn()
    program = begin()
    program.checkpoint("--save-files", "all")
    victim = write("victim", "mine")
    program.path("log").unlink()
    program.path("table").unlink()
    program.path("table").symlink_to(victim.resolve())
    result = cairn("restore", "-d", "--file-changed", "rollback", program.image)
    fault_line(result, FAILED, "table: is a symbolic link")
    equal(victim.read_text(), "mine", "what the link leads to")
    check(not program.path("log").exists(), "a failed restore left a file that it had made")
    program.path("table").unlink()
    # Not even a byte before everything else is done: a descriptor whose number is too high comes late.
    write("job/table", "x" * 100000)
    result = cairn("restore", "-d", "--file-changed", "rollback", program.image, preexec_fn=few_descriptors)
    check(result.status != OK, "restored with few descriptors", result)
    equal(program.path("table").read_text(), "x" * 100000, "the table after a restore that failed")
    program.restore("--file-changed", "rollback")
    finish(program)


def few_descriptors():
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))


@test("a large file with holes is saved and rolled back with its holes", quick=True)
def holes():
    need_cairn()
    code = ("import os, time\nf = os.open('sparse', os.O_RDWR | os.O_CREAT)\nos.pwrite(f, b'start', 0)\nos.pwrite(f, b'end', 5 << 30)\n"
            "os.write(1, b'ready\\n')\nwhile not os.path.exists('finish'): time.sleep(0.002)\n"
            "print(os.pread(f, 6, 0), os.pread(f, 6, 5 << 30), os.fstat(f).st_size)\n")
    program = ready(code)
    program.checkpoint("--save-files", "all")
    check(os.path.getsize(program.image) < 50 << 20, "the image holds the hole")
    program.path("sparse").unlink()
    program.restore("--file-changed", "rollback")
    check(program.path("sparse").stat().st_blocks < 1000, "the hole was filled")
    program.finish()
    check("b'start\\x00' b'end' 5368709123" in program.text(), "what the file holds", program.text())


WATCHER = """
import ctypes, os, time
PACE = 0.002
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
os.mkdir("watched")
file = os.open("watched/file", os.O_RDWR | os.O_CREAT)
os.write(file, b"then")
libc.inotify_add_watch(watch, b"watched", 0x2 | 0x8 | 0x20 | 0x100)
libc.inotify_add_watch(watch, b"watched/file", 0x2 | 0x8 | 0x20)
os.write(1, b"ready\\n")
while not os.path.exists("finish"): time.sleep(PACE)
try:
    print("seen", os.read(watch, 4096))
except BlockingIOError:
    print("nothing seen", os.pread(file, 9, 0))
"""


@test("a program that watches a file of its own does not see that it is rolled back", quick=True)
def watched():
    need_cairn()
    write("watcher.py", WATCHER)
    program = start([PYTHON, "../watcher.py"], "job")
    program.wait_text("ready")
    program.checkpoint("--save-files", "all")
    program.path("watched/file").write_text("other things")
    program.restore("--file-changed", "rollback")
    program.finish()
    check("nothing seen b'then'" in program.text(), "what it saw", program.text(), program.text("err"))


@test("a program that watches a log of its own does not see that what was appended to it is cut off", quick=True)
def watched_log():
    need_cairn()
    write("watcher.py", WATCHER)
    program = start([PYTHON, "../watcher.py"], "job")
    program.wait_text("ready")
    program.checkpoint()
    with program.path("watched/file").open("a") as log:
        log.write(" and more")
    program.restore("--file-changed", "rollback")
    program.finish()
    check("nothing seen b'then'" in program.text(), "what it saw", program.text(), program.text("err"))


@test("a save of the contents of a file that may not be read is refused by its name, and the program runs on", user=True, quick=True)
def unreadable():
    need_cairn()
    code = ("import os, time\nf = os.open('secret', os.O_WRONLY | os.O_CREAT, 0o200)\nos.write(1, b'ready\\n')\n"
            "while not os.path.exists('finish'): time.sleep(0.002)\n")
    program = ready(code)
    result = cairn("checkpoint", "--save-files", "all", "-o", "image.cairn", program.pid)
    fault_line(result, 4, "secret", "without --save-files")
    unharmed(program.pid)
    program.checkpoint()
    program.restore()
    program.finish()


DATABASE = """
import os, sqlite3, time
base = sqlite3.connect("base.db", isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("PRAGMA wal_autocheckpoint=40")
base.execute("CREATE TABLE IF NOT EXISTS rounds (number INTEGER PRIMARY KEY, text)")
number = 0
while not os.path.exists("finish") or number < 50:
    number += 1
    base.execute("BEGIN")
    base.execute("INSERT INTO rounds VALUES (?, ?)", (number, str(number) * 200))
    base.execute("UPDATE rounds SET text = text || 'x' WHERE number % 7 = ?", (number % 7,))
    base.execute("COMMIT")
    os.write(1, b"round %d\\n" % number)
"""


@test("a database that went on and was killed is rolled back to the moment of the save: nothing is lost or doubled")
def database():
    need_cairn()
    write("database.py", DATABASE)
    program = start([PYTHON, "../database.py"], "job")
    program.wait_progress(30)
    program.checkpoint("--save-files", "all", kill=False)
    for _ in range(3):
        program.wait_progress(60)
        program.kill()
        program.restore("--file-changed", "rollback")
    program.finish()
    rounds = program.text().splitlines()
    equal(rounds, [f"round {number}" for number in range(1, len(rounds) + 1)], "rounds")
    base = sqlite3.connect(program.path("base.db"))
    equal(base.execute("PRAGMA integrity_check").fetchall(), [("ok",)], "integrity_check")
    equal([row[0] for row in base.execute("SELECT number FROM rounds ORDER BY number")], list(range(1, len(rounds) + 1)), "committed rounds")
    base.close()


@test("a job that is saved from time to time and killed is resumed with the files of its last save")
def resumed():
    need_cairn()
    write("worker.py", WORKER)
    words = ["--image", "job.cairn", "--every", "0.3", "--resume", "--save-files", "all", "--", PYTHON, "../worker.py"]
    job = run(*words, directory="job")
    until(lambda: job.path("job.cairn").exists(), "a checkpoint")
    seen = job.path("job.cairn").stat().st_mtime_ns
    until(lambda: job.path("job.cairn").stat().st_mtime_ns != seen, "another checkpoint")
    job.wait_progress(10)
    job.kill()
    write("job/finish", "")
    again = run(*words, directory="job")
    again.succeed()
    is_consistent(held(again))
    lines = [line for line in again.text().splitlines() if line.startswith("round")]
    equal(lines, [f"round {number}" for number in range(1, len(lines) + 1)], "rounds")


if __name__ == "__main__":
    main()
