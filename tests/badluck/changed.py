#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Executables and libraries that are missing or changed when a program is to come back."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import shutil
import subprocess

from cairn_test import (BUILD, FAILED, PYTHON, Program, Skip, cairn, check, children_of, fault_line, main, need, need_cairn, need_root, sh, start,
                        test, until, write)

WORKER = BUILD / "tests" / "badluck" / "worker"


def refused(program, *named):
    result = cairn("restore", "-d", program.image)
    fault_line(result, FAILED, *named)
    check(not [pid for pid in children_of(os.getpid()) if pid not in [one.pid for one in Program.running]], "a process remains", result)


def goes_on(program):
    program.restore()
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("an executable that is missing at the restore is named, and nothing remains", quick=True)
def missing_executable():
    need_cairn()
    shutil.copy(WORKER, "worker")
    program = start(["../worker"], "job")
    program.wait_progress(2)
    program.checkpoint()
    os.rename("worker", "away")
    refused(program, "/worker")
    os.rename("away", "worker")
    goes_on(program)


@test("an executable that changed since the save is named, and nothing remains", quick=True)
def changed_executable():
    need_cairn()
    shutil.copy(WORKER, "worker")
    program = start(["../worker"], "job")
    program.wait_progress(2)
    program.checkpoint()
    os.rename("worker", "away")
    shutil.copy(WORKER.with_name("storm"), "worker")
    refused(program, "/worker")
    os.rename("away", "worker")
    goes_on(program)


@test("a restore with too few huge pages says how many are missing, and nothing remains", serial=True)
def huge_pages_gone():
    need_cairn()
    need_root()
    pool = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    if not pool.exists():
        raise Skip("this kernel has no huge pages")
    before = pool.read_text()
    try:
        program = start([BUILD / "tests" / "kinds" / "hugetlb"], "probe")
        until(lambda: "ready\n" in program.text() or "skipped" in program.text(), "'ready' of the probe")
        if "skipped" in program.text():
            program.wait()
            raise Skip(program.text().strip())
        program.checkpoint()
        pool.write_text("3")
        refused(program, "needs 16 huge pages of 2048 kB", "are missing here", "vm.nr_hugepages=")
        pool.write_text("40")
        program.restore()
        program.path("go").touch()
        program.succeed()
    finally:
        pool.write_text(before)


@test("a file that may not be written to any more, by an attribute or a mount, is named with the remedy before anything starts", quick=True)
def unwritable():
    need_cairn()
    need_root()
    need("chattr", "mount")
    os.mkdir("job")
    try:
        sh("mount", "-t", "tmpfs", "none", "job")
        program = start([PYTHON, "-c", "import os, time\nf = open('data', 'w')\nf.write('1\\n')\nf.flush()\nprint('ready', flush=True)\n"
                         "while not os.path.exists('go'): time.sleep(0.002)\nf.write('2\\n')\n"], "job")
        program.wait_text("ready")
        program.checkpoint(image=pathlib.Path("image.cairn").resolve())

        def stands_against(*named):
            refused(program, "data", *named)
            fault_line(cairn("check", program.image), FAILED, "data", *named)
        for flag, word in (("i", "immutable"), ("a", "appended")):
            if subprocess.run(["chattr", f"+{flag}", "job/data"], capture_output=True).returncode == 0:
                stands_against(word, f"chattr -{flag}")
                sh("chattr", f"-{flag}", "job/data")
        sh("mount", "-o", "remount,ro", "job")
        result = cairn("check", program.image)
        fault_line(result, FAILED, "read-only", "--map-path", several=True)
        sh("mount", "-o", "remount,rw", "job")
        program.restore()
        program.path("go").touch()
        program.succeed()
        check(program.path("data").read_text() == "1\n2\n", "what was written")
    finally:
        subprocess.run(["umount", "-l", "job"])


@test("a pipe that is larger than this user may have one gets what there may be, if its contents fit; else it is refused with the remedy", quick=True,
      serial=True)
def pipe_limit():
    need_cairn()
    need_root()
    limit = pathlib.Path("/proc/sys/fs/pipe-max-size")
    before = limit.read_text()
    write("pipes.py", "import fcntl, os, sys, time\nr, w = os.pipe()\nfcntl.fcntl(w, 1031, 4 << 20)\nos.write(w, b'x' * int(sys.argv[1]))\n"
          "print('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.002)\n"
          "print('holds', len(os.read(r, 8 << 20)), fcntl.fcntl(r, 1032), flush=True)\n")
    try:
        limit.write_text(str(4 << 20))
        programs = [start([PYTHON, "../pipes.py", size], size) for size in ("100000", str(3 << 20))]
        for program in programs:
            program.wait_text("ready")
            program.checkpoint()
        limit.write_text(before)
        little, much = programs
        result = little.restore()
        little.path("go").touch()
        little.succeed()
        said = [int(word) for word in little.text().split()[2:]]
        check(said[0] == 100000 and (said[1] == 4 << 20 or (said[1] >= 1 << 19 and "continuing with" in result.err)), "its pipe", little.text(), result)
        result = much.restore(status=None)
        if result.status != 0: # not with CAP_SYS_RESOURCE
            check("pipe-max-size" in result.err, "the remedy", result)
            limit.write_text(str(4 << 20))
            much.restore()
        much.path("go").touch()
        much.succeed()
        check(f"holds {3 << 20} {4 << 20}" in much.text(), "its pipe", much.text())
    finally:
        limit.write_text(before)


@test("a program whose terminal is gone goes on with /dev/null where there is none, and is told so", quick=True)
def terminal_gone():
    need_cairn()
    master, slave = os.openpty()
    path = os.ttyname(slave)
    code = ("import os, time\nprint('terminal', os.isatty(77), flush=True)\n"
            "while not os.path.exists('go'): time.sleep(0.01)\n"
            "os.write(77, b'x' * 100000)\nprint('after', os.isatty(77), os.read(77, 10), flush=True)\n")

    def give_terminal():
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        os.dup2(fd, 77)
        os.close(fd)
    program = start([PYTHON, "-c", code], "job", prepare=give_terminal)
    program.wait_text("terminal True")
    program.checkpoint()
    os.close(slave)
    os.close(master)
    if os.path.exists(path):
        raise Skip(f"{path} is somebody else's now")
    result = program.restore()
    check("/dev/null" in result.err and path in result.err, "no warning", result)
    program.path("go").touch()
    program.succeed()
    check("after False b''" in program.text(), "what it saw", program.text())


@test("a lock that somebody else holds at the restore is named with his PID, and nothing remains", quick=True)
def lock_held():
    need_cairn()
    code = ("import fcntl, os, sys, time\nf = open(sys.argv[1], 'r+')\n{}\nprint('locked', flush=True)\n"
            "while not os.path.exists('go'): time.sleep(0.01)\n")
    for number, call in enumerate(("fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)")):
        locked = write(f"locked-{number}", "0123456789").resolve()
        programs = [start([PYTHON, "-c", code.format(call), locked], f"job-{number}")]
        programs[0].wait_text("locked")
        programs[0].checkpoint()
        programs.append(start([PYTHON, "-c", code.format(call), locked], f"other-{number}"))
        programs[1].wait_text("locked")
        refused(programs[0], f"locked-{number}", programs[1].pid)
        programs[1].path("go").touch()
        programs[1].succeed()
        programs[0].restore()
        programs[0].path("go").touch()
        programs[0].succeed()


def with_library():
    need_cairn()
    need("gcc")
    write("library.c", "int answer(int x) { return x * 2; }\n")
    write("program.c", '#include <stdio.h>\n#include <unistd.h>\nint answer(int);\nint main(void) {\n'
          'for (int i = 0; access("go", F_OK); i++) { printf("round %d\\n", answer(i) / 2); fflush(stdout);'
          ' usleep(2000); } return 0; }\n')
    sh("gcc", "-shared", "-fPIC", "-o", "libanswer.so", "library.c")
    sh("gcc", "-o", "program", "program.c", "-L.", "-lanswer", "-Wl,-rpath," + os.getcwd())
    program = start(["../program"], "job")
    program.wait_progress(2)
    program.checkpoint()
    return program


@test("a library that is missing at the restore is named, and nothing remains", quick=True)
def missing_library():
    program = with_library()
    os.rename("libanswer.so", "away")
    refused(program, "libanswer.so")
    os.rename("away", "libanswer.so")
    goes_on(program)


@test("a library that changed since the save is named, and nothing remains", quick=True)
def changed_library():
    program = with_library()
    os.rename("libanswer.so", "away")
    write("library.c", "int answer(int x) { return x * 3 + 1; }\nint more(void) { return 1; }\n")
    sh("gcc", "-shared", "-fPIC", "-o", "libanswer.so", "library.c")
    refused(program, "libanswer.so")
    os.rename("away", "libanswer.so")
    goes_on(program)


@test("an open file that is missing at the restore is named, and nothing remains", quick=True)
def missing_file():
    need_cairn()
    program = start([WORKER], "job")
    program.wait_progress(2)
    program.checkpoint()
    os.rename("job/out", "away")
    refused(program, "job/out")
    os.rename("away", "job/out")
    goes_on(program)


if __name__ == "__main__":
    main()
