#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A pipeline that a person started in an interactive shell: its session leader is outside the tree."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (CAIRN, DRY, Program, Terminal, check, equal, main, need, reap, same_files, start, test, tree_of,
                        undisturbed, until, write)

# The sink is slow, so that all pipes are full at any moment.
PIPELINE = (r"""seq 1 4000000 | sed s/7/seven/g | tr a-z A-Z | """
            r"""awk 'NR > 2500 { exit } { for (i = 0; i < 9000; i++) s = (s * 31 + length($0) + i) % 1000003; """
            r"""print $0, s; fflush(); while (NR == 1500 && (getline junk < "finish") < 0) system("sleep 0.02") }' > result""")


class Job(Program):
    """The pipeline as a job of the interactive shell: found by its parent."""

    def __init__(self, terminal):
        self.terminal = terminal
        terminal.type("bash ./pipeline")
        pid = until(lambda: tree_of(terminal.pid)[1:], "the job")[0]
        super().__init__(pid, ".")
        until(lambda: len(tree_of(self.pid)) >= 5, "four processes of the pipeline")

    def reap_tree(self, tree):
        """The shell reaps its own job; what that leaves behind is ours."""
        until(lambda: reap() or not any(map(exists, tree)), "the job's end")


def exists(pid):
    return pathlib.Path(f"/proc/{pid}").exists()


def prepare():
    need("bash", "seq", "sed", "tr", "awk")
    write("pipeline", PIPELINE + "\n")
    reference = undisturbed(["bash", "../pipeline"])
    terminal = Terminal()
    return reference, terminal, Job(terminal)


def result_is_right(program, reference):
    check(program.lines("result") == 2500, f"{program.lines('result')} lines in the result, wanted 2500")
    same_files(program, reference, "result")


@test("a shell job of four processes goes on in the foreground of its shell, twice")
def foreground():
    reference, terminal, job = prepare()
    pid = job.pid
    for number in range(2):
        job.wait_lines(200 + 400 * number, "result")
        job.checkpoint()
        if DRY:
            continue
        if number == 0:
            terminal.expect("Killed")  # later it is cairn's exit status that says so
        terminal.expect("ready> ")
        terminal.type(f"{CAIRN} restore {job.image}")
        until(lambda: exists(pid), f"process {pid} again")
        until(lambda: len(tree_of(pid)) >= 5, "the processes of the restored job")
    job.path("finish").touch()
    terminal.expect("ready> ", 60)
    terminal.type("echo status=$?")
    terminal.expect("status=0")
    Program.running.remove(job)
    result_is_right(job, reference)
    terminal.close()


@test("a shell job of four processes goes on detached, twice")
def detached():
    reference, terminal, job = prepare()
    for number in range(2):
        job.wait_lines(200 + 400 * number, "result")
        job.checkpoint()
        if DRY:
            continue
        if number == 0:
            terminal.expect("Killed")  # later it is no job of the shell's
        terminal.expect("ready> ")
        terminal.type(f"{CAIRN} restore -d --pidfile pidfile {job.image}; echo status=$?")
        terminal.expect("status=0")
        equal(int(job.text("pidfile")), job.pid, "PID after the restore")
    job.path("finish").touch()
    if DRY:
        terminal.expect("ready> ", 60)
    else:
        until(lambda: reap() or not exists(job.pid), "end of the job", 60)
    Program.running.remove(job)
    result_is_right(job, reference)
    terminal.close()


@test("a pipeline without a terminal goes on, twice", quick=True)
def plain():
    need("bash", "seq", "sed", "tr", "awk")
    write("pipeline", PIPELINE + "\n")
    reference = undisturbed(["bash", "../pipeline"])
    program = start(["bash", "../pipeline"], "job")
    for count in (200, 600):
        program.wait_lines(count, "result")
        program.round_trip()
    program.finish()
    result_is_right(program, reference)


@test("a pipeline that is saved 20 times and runs on gives the same result")
def runs_on():
    need("bash", "seq", "sed", "tr", "awk")
    write("pipeline", PIPELINE + "\n")
    reference = undisturbed(["bash", "../pipeline"])
    program = start(["bash", "../pipeline"], "job")
    for number in range(20):
        program.wait_lines(50 * number, "result")
        program.checkpoint(kill=False, image=program.path("image.cairn"))
    program.finish()
    result_is_right(program, reference)


if __name__ == "__main__":
    main()
