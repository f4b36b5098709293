#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every state of a process or thread that prctl(2) and arch_prctl(2) set is carried, refused, or known not to be one: an operation that the
installed kernel headers have and this table has not makes the test fail."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import REPOSITORY, Skip, check, main, test

INCLUDE = pathlib.Path("/usr/include")
KINDS = REPOSITORY / "src" / "kinds"

# Operation without PR_GET_, PR_SET_ or PR_: the source that carries or refuses it, which names it.
CARRIED = {
    "PDEATHSIG": "tasks/parent_death.c", "DUMPABLE": "tasks/dumpable.c", "NAME": "tasks/thread.c", "SECCOMP": "tasks/seccomp.c",
    "CAPBSET": "tasks/credentials.c", "TSC": "tasks/thread_modes.c", "SECUREBITS": "tasks/credentials.c", "KEEPCAPS": "tasks/credentials.c",
    "TIMERSLACK": "tasks/scheduling.c", "MCE_KILL": "tasks/thread_modes.c", "MM": "memory/space.c", "CHILD_SUBREAPER": "tasks/attributes.c",
    "NO_NEW_PRIVS": "tasks/credentials.c", "TID_ADDRESS": "tasks/thread_pointers.c", "THP_DISABLE": "tasks/attributes.c",
    "CAP_AMBIENT": "tasks/credentials.c", "SPECULATION_CTRL": "tasks/thread_modes.c", "IO_FLUSHER": "tasks/thread_modes.c",
    "SYSCALL_USER_DISPATCH": "tasks/thread_modes.c", "SCHED_CORE": "tasks/scheduling.c", "MDWE": "memory/modes.c", "VMA": "memory/vma.c",
    "MEMORY_MERGE": "memory/modes.c", "TIMER_CREATE_RESTORE_IDS": "tasks/posix_timers.c", "PTRACER": "tasks/thread_modes.c",
}
# Not a state of a process on x86-64, and why.
NONE = {
    "UNALIGN": "other processors", "FPEMU": "ia64", "FPEXC": "PowerPC", "ENDIAN": "PowerPC", "FP_MODE": "MIPS", "SVE": "arm64", "SME": "arm64",
    "PAC": "arm64", "TAGGED_ADDR_CTRL": "arm64, RISC-V", "AUXV": "only reads", "RISCV": "RISC-V", "PPC": "PowerPC", "SHADOW_STACK_STATUS":
    "arm64, RISC-V; here arch_prctl(2)", "LOCK_SHADOW_STACK_STATUS": "arm64, RISC-V", "TIMING": "the kernel knows only one value",
    "TASK_PERF_EVENTS": "of perf events, which are refused", "MPX": "gone from the kernel (5.6)",
    "FUTEX_HASH": "the size of a table that the kernel keeps for itself, and chooses anew",
}
# arch_prctl(2)
ARCH = {
    "CPUID": "tasks/thread_modes.c", "XCOMP_PERM": "tasks/attributes.c",
    "MAP_VDSO": "memory/space.c", "TAGGED_ADDR": "tasks/thread_modes.c",
}
ARCH_NONE = {
    "GS": "a register", "FS": "a register",
    "XCOMP_SUPP": "only reads", "XCOMP_GUEST_PERM": "of virtual machines, whose devices are refused", "UNTAG_MASK": "only reads", "MAX_TAG_BITS": "only reads",
    "SHSTK": "shadow stacks are mappings, which memory/vma.c refuses", "FORCE_TAGGED_SVA": "of devices, which are refused",
}


def operations(path, prefix):
    """Names that stand for a number that is an operation's own: values of arguments have the name of their operation in front."""
    found = re.findall(rf"^#\s?define\s+{prefix}_(\w+)\s", path.read_text(), re.MULTILINE)
    return [name for name in found if not re.search(rf"^#\s+define\s+{prefix}_{name}\s", path.read_text(), re.MULTILINE)]


def known(name, tables):
    """A name is known by its longest beginning in one of the tables: arguments and further operations of a state begin as it does."""
    word = re.sub(r"^(GET|SET|REQ|MAP|LOCK)_(?!VDSO|SHADOW)", "", name)
    for table in tables:
        for entry in table:
            if word == entry or word.startswith(entry + "_") or entry.startswith(word + "_"):
                return True
    return False


def compare(path, prefix, *tables):
    if not path.exists():
        raise Skip(f"{path} is not installed")
    names = operations(path, prefix)
    check(len(names) > 8, f"{path}: only {names}")
    forgotten = [name for name in names if not known(name, tables)]
    check(not forgotten, f"neither carried nor refused, nor known not to be a state: {forgotten}")


@test("every operation of prctl(2) in the kernel's headers is carried, refused or no state", quick=True)
def prctl():
    compare(INCLUDE / "linux" / "prctl.h", "PR", CARRIED, NONE)


@test("every operation of arch_prctl(2) in the kernel's headers is carried, refused or no state", quick=True)
def arch_prctl():
    path = next(iter(sorted(INCLUDE.glob("*/asm/prctl.h"))), INCLUDE / "asm" / "prctl.h")
    compare(path, "ARCH", ARCH, ARCH_NONE)


@test("a state that is said to be carried is named by the source that does it", quick=True)
def named():
    for name, source in {**CARRIED, **ARCH}.items():
        text = (KINDS / source).read_text()
        check(name in text or name.removeprefix("SET_").lower() in text.lower(), f"{source} does not name {name}")


if __name__ == "__main__":
    main()
