#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that lock themselves in by seccomp, through libseccomp as most do."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import PERMISSION, PYTHON, Skip, become_ordinary_user, cairn, check, fault_line, main, need_cairn, need_root, sh, start, test, unharmed

SANDBOX = r'''
import errno, os, seccomp, time
needs = """read write close openat newfstatat fstat lseek clock_nanosleep exit_group brk mmap munmap futex rt_sigaction rt_sigreturn access
    ioctl getrandom dup fcntl gettid clone3 rseq set_robust_list mprotect madvise exit rt_sigprocmask poll""".split()
filter = seccomp.SyscallFilter(seccomp.ERRNO(errno.EACCES))
for name in needs:
    filter.add_rule(seccomp.ALLOW, name)
filter.add_rule(seccomp.KILL, "ptrace")
filter.load()
number = 0
while not os.path.exists("finish"):
    number += 1
    try:
        os.mkdir("forbidden")
        print("differs: mkdir is allowed", flush=True)
    except PermissionError:
        print("round", number, flush=True)
    time.sleep(.002)
'''


def sandbox():
    try:
        sh(PYTHON, "-c", "import seccomp")
    except Exception:
        raise Skip("python3-seccomp is not installed")
    program = start([PYTHON, "-c", SANDBOX], "job")
    program.wait_progress(5)
    return program


@test("a program that locked itself in by libseccomp goes on, and stays locked in", quick=True)
def locked():
    need_root()
    program = sandbox()
    for _ in range(2):
        program.checkpoint(kill=False, image=program.path("image.cairn"))
        program.wait_progress(2)
        program.round_trip()
        program.wait_progress(2)
    program.finish()
    check("differs" not in program.text(), "the filter is gone", program.text()[-400:])


@test("an ordinary user's program that locked itself in is refused by name, with the permission that is missing")
def refused():
    need_cairn()
    become_ordinary_user()
    program = sandbox()
    fault_line(cairn("checkpoint", program.pid, "-o", "x.cairn"), PERMISSION, "seccomp", "CAP_SYS_ADMIN")
    unharmed(program.pid)
    program.finish()


if __name__ == "__main__":
    main()
