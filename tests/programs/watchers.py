#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that wait for changes of files: tail -F on a log that is rotated, inotifywait on a tree."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import check, equal, main, need, start, test, until, write


def append(path, text):
    with open(path, "a") as log:
        log.write(text)


@test("tail -F follows a log through rotations before, between and after two restores", quick=True)
def tail():
    need("tail")
    log = write("job/log", "line 0\n").resolve()
    program = start(["tail", "-n", "+1", "-F", str(log)], "job")
    program.wait_text("line 0")
    wanted = ["line 0"]
    for number in range(1, 7):
        if number % 2 == 0:
            os.rename(log, f"{log}.{number}")
            write(log, "")
        append(log, f"line {number}\n")
        wanted.append(f"line {number}")
        program.wait_text(f"line {number}\n")
        if number in (1, 4):
            program.round_trip()
    append(log, "last\n")
    program.wait_text("last")
    equal([line for line in program.text().splitlines()], wanted + ["last"], "lines")
    program.kill()


def watches(pid):
    """How many inotify watches the process has. It still starts: a descriptor may be gone before it is looked at."""
    count = 0
    for fdinfo in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            count += fdinfo.read_text().count("inotify wd")
        except FileNotFoundError:
            pass
    return count


@test("inotifywait reports what happens in a tree after two restores, and nothing twice", quick=True)
def inotifywait():
    need("inotifywait")
    for name in ("tree/a/b", "tree/c"):
        pathlib.Path("job", name).mkdir(parents=True)
    program = start(["inotifywait", "-m", "-r", "-q", "-e", "create,delete,move", "--format", "%e %w%f", "tree"], "job")
    until(lambda: watches(program.pid) == 4, "four watches")
    wanted = []
    for number, directory in enumerate(("a", "a/b", "c")):
        write(f"job/tree/{directory}/file", "")
        wanted.append(f"CREATE tree/{directory}/file")
        program.wait_text(wanted[-1])
        os.rename(f"job/tree/{directory}/file", f"job/tree/{directory}/moved")
        wanted += [f"MOVED_FROM tree/{directory}/file", f"MOVED_TO tree/{directory}/moved"]
        program.wait_text(wanted[-1])
        if number < 2:
            program.round_trip()
    equal(program.text().splitlines(), wanted, "events")
    check(program.text("err") == "", "inotifywait complained", program.text("err"))
    program.kill()


if __name__ == "__main__":
    main()
