#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A program in the foreground of a terminal that comes back in another one."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import CAIRN, OK, PYTHON, Terminal, cairn, equal, main, need_cairn, test, tree_of, until, write

WINDOW = r"""
import os, signal, sys
def size(word):
    print(word, *os.get_terminal_size(1)[::-1], os.ttyname(0), flush=True)
signal.signal(signal.SIGWINCH, lambda *_: size("changed"))
signal.signal(signal.SIGINT, lambda *_: (print("interrupted", flush=True), sys.exit(7)))
size("begins")
for line in sys.stdin:
    print("read", line.strip()[::-1], flush=True)
"""


def window(user):
    need_cairn()
    write("window.py", WINDOW)
    first, second = Terminal(size=(24, 80)), Terminal(size=(50, 132))
    first.type(f"{PYTHON} window.py")
    first.expect("begins 24 80")
    first.type("one")
    first.expect("read eno")
    pid = until(lambda: tree_of(first.pid)[1:], "the program")[0]
    cairn("checkpoint", pid, "-o", "image.cairn", "--kill", status=OK)
    first.close()
    options = "--pids private" if user else ""
    for terminal, rows, columns in ((second, 50, 132), (Terminal(size=(11, 40)), 11, 40)):
        terminal.type(f"{CAIRN} restore {options} image.cairn")
        terminal.expect(f"changed {rows} {columns} /dev/")
        terminal.type("two")
        terminal.expect("read owt")
        os.write(terminal.master, b"\x03")
        terminal.expect("interrupted")
        terminal.expect("ready> ")
        terminal.type("echo status=$?")
        terminal.expect("status=7")
        terminal.close()
    # In one of the same size nothing is said.
    same = Terminal(size=(24, 80))
    same.type(f"{CAIRN} restore {options} image.cairn")
    until(lambda: len(tree_of(same.pid)) >= 3, "the program")
    same.type("three")
    equal("changed" in same.expect("read eerht"), False, "told of another size")
    os.write(same.master, b"\x03")
    same.expect("interrupted")
    same.expect("ready> ")
    same.close()


@test("a program that is restored in another terminal is told its size by SIGWINCH, reads what is typed there, and gets its ^C", quick=True)
def as_root():
    window(os.getuid() != 0)


@test("the same as an ordinary user", user=True)
def as_user():
    window(True)


if __name__ == "__main__":
    main()
