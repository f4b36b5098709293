#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libcairn from inside a program: C, static C, and Python."""
import os
import pathlib
import re

import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, FAILED, OK, PYTHON, REPOSITORY, TIMEOUT, UNSUPPORTED, alive, cairn, check, equal, fault_line, jobs, main,
                        need, need_cairn, reap, run, start, test, unharmed, until)

INSIDE = BUILD / "tests" / "jobs" / "inside"
STATIC = BUILD / "tests" / "jobs" / "inside-static"
MODULE = {"PYTHONPATH": str(REPOSITORY / "python"), "CAIRN_LIBRARY": str(BUILD / "libcairn.so")}


def ids(program):
    """(what, generation, id) of the lines in which the program says them."""
    return re.findall(r"^(id|child) (\d+) ([0-9a-f]{32})$", program.text(), re.M)


def no_faults(program):
    check("differs" not in program.text(), "the program noticed", program.text()[-1000:])


@test("without Cairn around libcairn's calls answer so and harm nothing", user=True)
def alone():
    for name, binary in (("shared", INSIDE), ("static", STATIC)):
        program = start([binary, "alone"], name)
        program.succeed()
        lines = program.text().splitlines()
        equal(lines[0], "job 0", "cairn_is_job")
        equal(lines[1], "me -1 errno 19", "cairn_checkpoint_me")
        check("cairn run" in lines[2], "the reason has no remedy", lines)
        equal(lines[3], "hold 0 release 0 again -1", "hold and release")
        equal(lines[4], "id 0 " + "0" * 32, "generation and id")


@test("cairn_checkpoint_me is 0 after the save and 1 after each restore, also of two copies, which differ in their ids", user=True, timeout=180)
def checkpoint_me():
    need_cairn()
    for name, binary in (("shared", INSIDE), ("static", STATIC)):
        program = run("--name", name, "--image", "own.cairn", "--", binary, "plain", "ask", directory=name)
        program.wait_text("urgent\n")
        equal(re.findall(r"^me (-?\d+)", program.text(), re.M), ["0"], "cairn_checkpoint_me")
        check("ready 1" in program.text(), "cairn_is_job is not 1")
        cairn("kill", name, status=OK)
        program.wait()
        until(lambda: not jobs(), "the end of the job")
        for copy in (1, 2):
            cairn("restore", "-d", "--file-changed", "ignore", program.path("own.cairn"), status=OK)
            until(lambda: program.text().count("me 1") == copy and program.text().count("urgent") == copy + 1, "the copy goes on")
        equal(sorted(jobs()), [name, f"{name}-2"], "jobs")
        found = ids(program)
        equal([one[1] for one in found], ["0", "0", "1", "1"], "generations")
        equal([one["restored"] for one in jobs().values()], [1, 1], "generations of the jobs")
        for one in jobs():
            equal(pathlib.Path(os.environ["XDG_RUNTIME_DIR"], "cairn", f"{one}.restored").read_text(), "1\n", "generation in the job's directory")
        check(len({one[2] for one in found}) == 3, "two copies have the same id", found)
        # Each copy asks its own job, though CAIRN_JOB names the first one's socket in both.
        program.path("own.cairn").rename(program.path("old.cairn"))
        program.path("again").touch()
        until(lambda: program.text().count("me again") == 2, "both ask again")
        check("no image" in program.text() or "me again 0" in program.text(), "the answer", program.text())
        program.path("finish").touch()
        until(lambda: reap() or not jobs(), "the end of both")
        no_faults(program)
        os.unlink(program.path("old.cairn"))


@test("a checkpoint that the program asks for and that fails is said to it, and it goes on", user=True)
def failing():
    need_cairn()
    program = run("--name", "sad", "--image", "nosuch/own.cairn", "--", INSIDE, "plain", "ask", directory="sad")
    program.wait_text("urgent\n")
    check(re.search(r"^me -1 .*nosuch", program.text(), re.M), "the reason does not name the file", program.text())
    program.path("nosuch").mkdir()
    program.path("again").touch()
    program.wait_text("me again 0")
    program.finish()
    program = run("--name", "homeless", "--", INSIDE, "plain", "ask", directory="homeless")
    program.wait_text("urgent\n")
    check(re.search(r"^me -1 .*--image", program.text(), re.M), "the reason has no remedy", program.text())
    program.path("again").touch()
    program.finish()


@test("a checkpoint waits for the end of critical sections, and gives up with a word", user=True)
def hold():
    need_cairn()
    program = start([INSIDE, "hold"], "hold")
    program.wait_text("ready")
    for _ in range(8):
        program.checkpoint(kill=False)
    for _ in range(3):
        program.round_trip()
        program.wait_text(f"ready")
        no_faults(program)
    program.finish()
    no_faults(program)
    write = "import cairn, os\nfrom time import sleep as pause\ncairn.hold()\nprint('held', flush=True)\nwhile not os.path.exists('finish'): pause(0.01)\n"
    program = start([PYTHON, "-c", write], "long", env=MODULE)
    program.wait_text("held")
    fault_line(cairn("checkpoint", program.pid, "-o", "never.cairn", "--timeout", "0.5"), TIMEOUT, "cairn_hold")
    check(not os.path.exists("never.cairn"), "there is an image")
    unharmed(program.pid)
    program.finish()


@test("hooks run before a checkpoint, after it and after a restore, in order, and may object", user=True)
def hooks():
    need_cairn()
    program = start([INSIDE, "hooks"], "hooks")
    program.wait_text("ready")
    program.checkpoint(kill=False)
    program.wait_text("after two 1")
    equal(program.text().splitlines()[2:], ["before three", "before one", "after one 1", "after two 1"], "hooks of a checkpoint")
    for number in (1, 2):
        seen = program.lines()
        program.round_trip()
        program.wait_text(f"restored three {number}")
        equal(program.text().splitlines()[seen:], ["before three", "before one", f"restored one {number}", f"restored three {number}"],
              "hooks of a restore")
    seen = program.lines()
    program.path("object").touch()
    fault_line(cairn("checkpoint", program.pid, "-o", "never.cairn"), UNSUPPORTED, "42")
    until(lambda: program.lines() >= seen + 1, "the end of the hooks")
    program.path("object").unlink()
    program.checkpoint(kill=False)
    program.wait_text("after two 1")
    fault_line(cairn("checkpoint", program.pid, "-o", "nosuch/never.cairn"), FAILED, "nosuch")
    until(lambda: program.text().count("after two 0") >= 1, "the end of the failed one")
    program.finish()
    no_faults(program)


@test("hooks are told the end when Cairn dies in the middle", user=True)
def hooks_dead():
    need_cairn()
    need("strace")
    program = start([INSIDE, "hooks"], "hooks")
    program.wait_text("ready")
    cairn_run = start(["strace", "-f", "-o", "/dev/null", "-e", "trace=ptrace", "-e", "inject=ptrace:signal=KILL:when=20", CAIRN, "checkpoint",
                       str(program.pid), "-o", "x.cairn"], "killed")
    cairn_run.wait()
    if "before one" in program.text():
        program.wait_text("after two 0")
    unharmed(program.pid)
    program.round_trip()
    program.wait_text("restored one 1")
    program.finish()
    no_faults(program)


@test("a child of fork has neither hooks nor holds of its parent's, counts on from its generation, and is restored with it", user=True)
def children():
    need_cairn()
    program = start([INSIDE, "children"], "children")
    program.wait_text("child 0")
    program.round_trip()
    program.round_trip()
    program.finish()
    no_faults(program)
    found = [one for one in ids(program) if one[0] == "child"]
    equal([one[1] for one in found], ["0", "2"], "generations of the child")


REPORTER = r"""
import cairn, os, random
from time import sleep as pause
assert cairn.cairn_checkpoint_me is cairn.checkpoint_me and len(cairn.restore_id()) == 16
def say(*words):
    print(*words, flush=True)
cairn.hooks_add(before=lambda: say("before"), after=lambda saved: say("after", saved),
                restored=lambda generation: (random.seed(), say("restored", generation)))
random.seed(1)
say("job", cairn.is_job())
with cairn.hold():
    try:
        cairn.checkpoint_me()
    except OSError as error:
        say("refused", error.errno)
say("me", cairn.checkpoint_me(), cairn.generation(), random.random())
while not os.path.exists("finish"):
    pause(0.01)
say("end")
"""


@test("a Python program has all of it by the module, and its random numbers differ in two copies when it reseeds them", user=True)
def python():
    need_cairn()
    program = run("--name", "snake", "--image", "own.cairn", "--", PYTHON, "-c", REPORTER, directory="snake", env=MODULE)
    program.wait_text("me 0")
    lines = program.text().splitlines()
    equal(lines[:4], ["job True", "refused 35", "before", "after True"], "what it said")
    cairn("kill", "snake", status=OK)
    program.wait()
    until(lambda: not jobs(), "the end of the job")
    for copy in (1, 2):
        cairn("restore", "-d", "--file-changed", "ignore", program.path("own.cairn"), status=OK)
        until(lambda: program.text().count("me 1 1") == copy, "the copy goes on")
    equal(program.text().count("restored 1"), 2, "hooks after a restore")
    numbers = re.findall(r"^me \d \d (.*)$", program.text(), re.M)
    check(len(set(numbers)) == 3, "random numbers repeat", numbers)
    program.path("finish").touch()
    until(lambda: reap() or not jobs(), "the end of both")
    alone = start([PYTHON, "-c", "import cairn\nprint(cairn.is_job(), cairn.generation())\nwith cairn.hold(): pass\ntry: cairn.checkpoint_me()\n"
                   "except OSError as error: print(error.errno)"], "alone", env={**MODULE, "CAIRN_LIBRARY": "/nosuch"})
    alone.succeed()
    equal(alone.text().split(), ["False", "0", "19"], "without a job")


if __name__ == "__main__":
    main()
