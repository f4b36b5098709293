#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""gcc under make -j2: trees of short processes, vfork, a job server's pipe."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import LONG, main, need, same_files, start, test, undisturbed, write

FILES = 6
FUNCTIONS = 700 if LONG else 130

MAKEFILE = r'''
objects = %s
program: $(objects)
	@until [ -e finish ]; do sleep 0.02; done
	gcc -o $@ $(objects)
%%.o: ../%%.c
	gcc -O2 -g0 -c -o $@ $<
	@echo done $@ >> log
'''


def source(number):
    lines = ["#include <stdio.h>", "#include <stdlib.h>"]
    for i in range(FUNCTIONS):
        lines.append(f"unsigned f{number}_{i}(unsigned a, unsigned b) {{ unsigned s = {i * 7919 + number};"
                     f" for (unsigned k = 0; k < a % {i % 13 + 3}; k++) {{ s = s * {2 * i + 3} + (b ^ k);"
                     f" switch (s % 7) {{ case 0: s += a; break; case 1: s ^= b << 3; break; case 2: s -= k * {i}; break;"
                     f" case 5: s = s >> 2 | b; }} if (s & {1 << i % 20}) s += {f'f{number}_{i - 1}(b, k)' if i else 'a'}; }}"
                     " return s; }")
    if number == 0:
        lines += [f"unsigned f{n}_{FUNCTIONS - 1}(unsigned, unsigned);" for n in range(1, FILES)]
        lines.append("int main(void) { unsigned s = 0;" + "".join(
            f" s += f{n}_{FUNCTIONS - 1}(9, {n});" for n in range(FILES)) + ' printf("%u\\n", s); return 0; }')
    return "\n".join(lines) + "\n"


@test("a make -j2 of large C files gives the same objects bit by bit", timeout=300)
def compile_c():
    need("gcc", "make")
    for number in range(FILES):
        write(f"part{number}.c", source(number))
    write("Makefile", MAKEFILE % " ".join(f"part{n}.o" for n in range(FILES)))
    command = ["make", "-j2", "-f", "../Makefile"]
    reference = undisturbed(command)
    program = start(command, "job")
    for count in (1, 3):
        program.wait_lines(count, "log")
        program.round_trip()
    program.finish()
    same_files(program, reference, "program", *[f"part{n}.o" for n in range(FILES)])


if __name__ == "__main__":
    main()
