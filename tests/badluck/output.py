#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where the image cannot be written: one line, the program runs on, no file remains."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import subprocess

from cairn_test import (BUILD, FAILED, OK, PERMISSION, cairn, check, fault_line, main, need_cairn, need_root, start, test,
                        unharmed)

WORKER = BUILD / "tests" / "badluck" / "worker"


def mount(path, *options):
    os.makedirs(path, exist_ok=True)
    done = subprocess.run(["mount", *options, path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    check(done.returncode == 0, "mount", done.stdout.decode())


def harmless(output, statuses, *named, size=1):
    program = start([WORKER, str(size)], "job")
    program.wait_text("ready")
    for options in ([], ["--kill"]):
        result = cairn("checkpoint", program.pid, "-o", output, *options)
        check(result.status in statuses, f"exit status {result.status}, wanted {statuses}", result)
        fault_line(result, result.status, *named)
        unharmed(program.pid)
        program.wait_progress(3)
    program.path("go").touch()
    program.succeed()


@test("a directory that does not exist is named, and the program runs on", quick=True)
def missing_directory():
    need_cairn()
    harmless("nowhere/image.cairn", (FAILED,), "nowhere/image.cairn")


@test("a read-only file system is named, and the program runs on", quick=True)
def read_only():
    need_cairn()
    need_root()
    mount("readonly", "-t", "tmpfs", "-o", "ro", "none")
    harmless("readonly/image.cairn", (FAILED, PERMISSION), "readonly/image.cairn", "read-only")


@test("a bar is drawn where it is asked for, on standard error only, and is gone at the end", quick=True)
def progress():
    need_cairn()
    program = start([WORKER, "256"], "job")
    program.wait_text("ready")
    drawn = 0
    for word, *options in (("never",), ("auto",), ("always", "--no-live", "--compress", "zstd:15")):
        result = cairn("checkpoint", program.pid, "-o", "a.cairn", "--progress", word, *options, status=OK)
        check("[" not in result.out, "the bar is on standard output", result)
        if word == "always" and result.err:
            drawn = result.err.count("checkpoint [")
            check(drawn > 0 and result.err.endswith("\x1b[K"), "the bar is not wiped off", repr(result.err))
        elif word != "always":
            check(not result.err, f"--progress {word} to a file draws", repr(result.err))
    check(drawn, "no bar though it is always wanted", result)
    unharmed(program.pid)
    program.path("go").touch()
    program.succeed()


@test("a full disk in the middle of the save is named, no file remains, and the program runs on", quick=True)
def disk_full():
    need_cairn()
    need_root()
    mount("small", "-t", "tmpfs", "-o", "size=6m", "none")
    harmless("small/image.cairn", (FAILED,), "small/image.cairn", size=32)
    check(not os.listdir("small"), f"left in the directory: {os.listdir('small')}")
    check(os.statvfs("small").f_bfree >= os.statvfs("small").f_blocks - 2, "the space was not given back")


@test("a full disk leaves the old image as it was", quick=True)
def old_image_kept():
    need_cairn()
    need_root()
    mount("small", "-t", "tmpfs", "-o", "size=12m", "none")
    first = start([WORKER, "1"], "first")
    first.wait_progress(1)
    cairn("checkpoint", first.pid, "-o", "small/image.cairn", status=OK)
    with open("small/image.cairn", "rb") as image:
        before = image.read()
    harmless("small/image.cairn", (FAILED,), "small/image.cairn", size=32)
    with open("small/image.cairn", "rb") as image:
        check(image.read() == before, "the old image changed")
    check(os.listdir("small") == ["image.cairn"], f"left in the directory: {os.listdir('small')}")


@test("a name that is taken by a directory is refused, and the program runs on", quick=True)
def is_a_directory():
    need_cairn()
    os.mkdir("image.cairn")
    harmless("image.cairn", (FAILED,), "image.cairn")


if __name__ == "__main__":
    main()
