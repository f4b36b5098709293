#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs whose files are elsewhere when they are to come back: --map-path says where."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os

from cairn_test import (FAILED, OK, USAGE, cairn, check, children_of, equal, fault_line, main, need, need_cairn, sh,
                        start, test, tree_of, write)

HERE = pathlib.Path.cwd()
# It remembers no path, so that it cannot see that its files have moved.
PROGRAM = r"""
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    pid_t child = fork();
    for (int i = 0; access("go", F_OK); usleep(2000), i++)
        if (child) { printf("round %d\n", i); fflush(stdout); }
    return child && (wait(&child) < 0 || child);
}
"""


def started():
    """Executable, working directory and the file that it appends to lie below `first`."""
    need_cairn()
    need("gcc")
    os.mkdir("first")
    write("program.c", PROGRAM)
    sh("gcc", "-o", "first/worker", "program.c")
    program = start(["../worker"], "first/job")
    program.wait_progress(2)
    return program


def move(program, old, new):
    os.rename(old, new)
    program.directory = HERE / new / "job"


def lies_in(program, directory):
    for pid in tree_of(program.pid):
        equal(os.readlink(f"/proc/{pid}/cwd"), str(HERE / directory / "job"), "working directory")
        equal(os.readlink(f"/proc/{pid}/exe"), str(HERE / directory / "worker"), "executable")
        equal(os.readlink(f"/proc/{pid}/fd/1"), str(HERE / directory / "job" / "out"), "standard output")
        maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
        check(f"{HERE}/{directory}/worker" in maps, "the executable is not mapped from its new place", maps)


def refused(program, status, *words, named=()):
    before = program.text()
    result = cairn("restore", "-d", *words, program.image)
    fault_line(result, status, *named, several=True)
    check(not children_of(os.getpid()), "a process remains", result)
    equal(program.text(), before, "the file that it appends to, after a refused restore")
    return result


@test("a program whose directory was renamed is refused by name, and goes on with --map-path; twice in a row", quick=True)
def renamed():
    program = started()
    for old, new in (("first", "second"), ("second", "third")):
        program.checkpoint(image=HERE / "image.cairn")
        move(program, old, new)
        result = refused(program, FAILED, named=(HERE / old,))
        for name in ("worker", "job", "job/out"):
            check(f"{HERE}/{old}/{name}" in result.err, f"{name} is not named", result)
        refused(program, FAILED, "--map-path", f"{HERE}/{old}=/nowhere/else", named=("/nowhere/else",))
        check(cairn("check", program.image).status == FAILED, "the dry run sees nothing")
        cairn("check", "--map-path", f"{HERE}/{old}={HERE}/{new}", program.image, status=OK)
        lines = program.lines()
        program.restore("--map-path", f"{HERE}/{old}={HERE}/{new}")
        lies_in(program, new)
        check(not os.path.exists(old), "something was made in the old place")
        program.wait_lines(lines + 3)
    program.path("go").touch()
    program.succeed()


@test("the longest --map-path wins, and one without use is only a warning", quick=True)
def longest():
    program = started()
    program.checkpoint(image=HERE / "image.cairn")
    os.mkdir("other")
    move(program, "first", "other/place")
    os.rename("other/place/job", "job")
    program.directory = HERE / "job"
    program.restore("--map-path", f"{HERE}/first/job={HERE}/job/", "--map-path", f"{HERE}/first/={HERE}/other/place",
                    "--map-path", f"{HERE}/fir=/wrong")
    equal(os.readlink(f"/proc/{program.pid}/cwd"), str(HERE / "job"), "working directory")
    equal(os.readlink(f"/proc/{program.pid}/exe"), str(HERE / "other" / "place" / "worker"), "executable")
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("libraries, FIFOs, devices, directories and deleted files are looked for in the mapped place", quick=True)
def every_kind():
    need_cairn()
    need("gcc")
    os.mkdir("old")
    sh("mknod", "old/null", "c", "1", "3")
    os.mkfifo("old/fifo")
    write("library.c", "int answer(int x) { return x * 2; }\n")
    write("program.c", r"""
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int answer(int);
int main(void) {
    int null = open("null", O_WRONLY), fifo = open("fifo", O_RDWR), here = open(".", O_RDONLY | O_DIRECTORY);
    int gone = open("gone", O_RDWR | O_CREAT, 0600);
    char kept[5] = "";
    if (null != 3 || fifo != 4 || here != 5 || gone != 6 || write(gone, "kept", 4) != 4 || unlink("gone")) return 1;
    for (int i = 0; access("go", F_OK); i++) { printf("round %d\n", answer(i) / 2); fflush(stdout); usleep(2000); }
    if (write(null, "x", 1) != 1 || pread(gone, kept, 4, 0) != 4 || kept[3] != 't' || faccessat(here, "go", F_OK, 0)) return 2;
    return 0;
}
""")
    sh("gcc", "-shared", "-fPIC", "-o", "old/libanswer.so", "library.c")
    sh("gcc", "-o", "old/program", "program.c", "-Lold", "-lanswer", "-Wl,-rpath," + str(HERE / "old"))
    program = start(["./program"], "old")
    program.wait_progress(2)
    program.checkpoint(image=HERE / "image.cairn")
    os.rename("old", "new")
    program.directory = HERE / "new"
    result = cairn("restore", "-d", program.image)
    fault_line(result, FAILED, several=True)
    for name in ("program", "libanswer.so", "null", "fifo", "out"):
        check(f"{HERE}/old/{name}" in result.err, f"{name} is not named", result)
    program.restore("--map-path", f"{HERE}/old={HERE}/new")
    maps = pathlib.Path(f"/proc/{program.pid}/maps").read_text()
    check(f"{HERE}/new/libanswer.so" in maps and f"{HERE}/old" not in maps, "what is mapped", maps)
    for fd, name in ((3, "/null"), (4, "/fifo"), (5, "")):
        equal(os.readlink(f"/proc/{program.pid}/fd/{fd}"), f"{HERE}/new{name}", f"descriptor {fd}")
    check(os.readlink(f"/proc/{program.pid}/fd/6").startswith(f"{HERE}/new/"), "the deleted file lies elsewhere")
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()


@test("words of --map-path that are not OLD=NEW with absolute paths are wrong usage, exit status 2", quick=True)
def usage():
    need_cairn()
    for word, named in (("/a", "/a"), ("a=/b", "'a'"), ("/a=b", "'b'"), ("=/b", "''"), ("/a=", "''")):
        for command in (["restore"], ["restore", "-d"], ["check"]):
            line = fault_line(cairn(*command, "--map-path", word, "missing.cairn"), USAGE, "--map-path", named)
            check("; try " in line, "no remedy", line)
    fault_line(cairn("check", "--map-path", "/a=/b"), USAGE, "--map-path")
    fault_line(cairn("check", "--map-path", "/a=/b", os.getpid()), USAGE, "--map-path")


@test("a mapped path that becomes too long is a fault, and nothing is made", quick=True)
def too_long():
    program = started()
    program.checkpoint(image=HERE / "image.cairn")
    refused(program, FAILED, "--map-path", f"{HERE}/first=/{'x' * 4090}", named=("--map-path", "shorter"))
    program.restore()
    program.path("go").touch()
    program.succeed()


if __name__ == "__main__":
    main()
