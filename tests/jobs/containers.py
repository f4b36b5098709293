#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""In containers: what each combination of capabilities and seccomp rules allows, under filters that answer as Docker's default profile
does, and what is said where something is missing. Kubernetes' RuntimeDefault is the same profile."""
import ctypes
import os
import pathlib
import platform
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, PERMISSION, PYTHON, UNSUPPORTED, Skip, become_ordinary_user, become_subreaper, cairn, check, fault_line, main, need_cairn, need_root,
                        run, start, test, unharmed)

# It bears other PIDs, and notices if its libraries do not.
PROGRAM = BUILD / "tests" / "jobs" / "renumbered"
_libc = ctypes.CDLL(None, use_errno=True)

# x86-64 numbers. Refused in the default profile, by the capability that opens them; None: by none.
CALLS = {
    "SYS_ADMIN": {"bpf": 321, "fanotify_init": 300, "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "lookup_dcookie": 212, "mount": 165,
                  "mount_setattr": 442, "move_mount": 429, "name_to_handle_at": 303, "open_tree": 428, "perf_event_open": 298, "quotactl": 179,
                  "quotactl_fd": 443, "setdomainname": 171, "sethostname": 170, "setns": 308, "syslog": 103, "umount2": 166, "unshare": 272},
    "SYS_PTRACE": {"kcmp": 312, "pidfd_getfd": 438, "process_madvise": 440},
    "SYS_NICE": {"get_mempolicy": 239, "mbind": 237, "set_mempolicy": 238, "set_mempolicy_home_node": 450},
    "SYS_TIME": {"settimeofday": 164, "clock_settime": 227},
    "SYS_MODULE": {"delete_module": 176, "init_module": 175, "finit_module": 313},
    None: {"userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "add_key": 248, "request_key": 249, "keyctl": 250,
           "kexec_load": 246, "pivot_root": 155, "swapon": 167, "swapoff": 168, "move_pages": 279, "ustat": 136, "sysfs": 139, "uselib": 134,
           "_sysctl": 156, "vhangup": 153},
}
CLONE, CLONE3 = 56, 435
NAMESPACES = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
DEFAULT = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10,
           "NET_RAW": 13, "SYS_CHROOT": 18, "MKNOD": 27, "AUDIT_WRITE": 29, "SETFCAP": 31}
ADDED = {"SYS_PTRACE": 19, "SYS_ADMIN": 21, "CHECKPOINT_RESTORE": 40}
EPERM, ENOSYS = 1, 38


def profile(added):
    """The filter as BPF: one jump a call."""
    refused = [number for capability, calls in CALLS.items() if capability not in added for number in calls.values()]
    load, jump_equal, jump_set, back = 0x20, 0x15, 0x45, 0x06
    allow, fail = 0x7FFF0000, 0x00050000
    code = [(load, 0, 0, 4), (jump_equal, 1, 0, 0xC000003E), (back, 0, 0, fail | EPERM), (load, 0, 0, 0)]
    if "SYS_ADMIN" not in added:
        code += [(jump_equal, 0, 1, CLONE3), (back, 0, 0, fail | ENOSYS)]
        code += [(jump_equal, 0, 4, CLONE), (load, 0, 0, 16), (jump_set, 0, 1, NAMESPACES), (back, 0, 0, fail | EPERM), (back, 0, 0, allow)]
    for number in refused:
        code += [(jump_equal, 0, 1, number), (back, 0, 0, fail | EPERM)]
    code += [(back, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *one) for one in code), len(code)


def enter(*added, filtered=True, masked=True, user=False):
    """From here on this test lives in a container: masked files of /proc, Docker's capabilities and those added, its seccomp profile."""
    if platform.machine() != "x86_64":
        raise Skip("the numbers are x86-64's")
    need_root()
    if masked:
        for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list"):
            if os.path.exists(path):
                subprocess.run(["mount", "--bind", "/dev/null", path], check=True)
        for path in ("/proc/sys", "/proc/fs", "/proc/irq"):
            subprocess.run(["mount", "--bind", path, path], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    code, count = profile(added)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", count, ctypes.addressof(buffer))
    if filtered and _libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise Skip(f"no seccomp filter here: errno {ctypes.get_errno()}")
    kept = {**DEFAULT, **{name: ADDED[name] for name in added}}
    for number in range(64):
        if number not in kept.values():
            _libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
    mask = sum(1 << number for number in kept.values())
    data = struct.pack("6I", *(mask & 0xFFFFFFFF, mask & 0xFFFFFFFF, 0, mask >> 32, mask >> 32, 0))
    if _libc.capset(ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0)), ctypes.create_string_buffer(data)) != 0:
        raise Skip("capset")
    if user:
        become_ordinary_user()


def named(done, *words):
    for word in words:
        check(word in done.out, f"cairn check does not say '{word}'", done)


def working(name="job"):
    program = start([PROGRAM], name)
    program.wait_text("ready")
    return program


def ends(program):
    program.path("go").touch()
    program.succeed()
    check("end" in program.text() and "differs" not in program.text(), "the program noticed", program.text())


@test("Docker's default: a save is refused with the capability that is missing, and check names each thing and its remedy", serial=True)
def default():
    need_cairn()
    enter()
    program = working()
    line = fault_line(cairn("checkpoint", program.pid, "-o", "x.cairn"), PERMISSION, several=True)
    check("SYS_PTRACE" in line, "the line does not name the capability", line)
    unharmed(program.pid)
    named(cairn("check"), "kcmp", "--cap-add SYS_PTRACE", "hides clone3", "--cap-add CHECKPOINT_RESTORE", "seccomp=unconfined", "no   user namespace")
    ends(program)


@test("Docker with SYS_PTRACE: programs are saved, and come back with --pids any; the other ways name what they need", serial=True)
def ptrace():
    need_cairn()
    enter("SYS_PTRACE")
    program = working()
    program.checkpoint(kill=False)
    ends(program)
    program = working("again")
    for _ in range(2):
        program.checkpoint()
        for words, word in ((["--pids", "same"], "--pids any"), (["--pids", "private"], "--pids any")):
            line = fault_line(cairn("restore", "-d", *words, program.image), PERMISSION)
            check(word in line, "the way that is left is not named", line)
        program.restore("--pids", "any")
    named(cairn("check"), "other PIDs (--pids any): open", "same PIDs (root, or CAP_CHECKPOINT_RESTORE): closed")
    ends(program)


@test("Docker with SYS_PTRACE as an ordinary user in the container: the same", serial=True)
def ptrace_user():
    need_cairn()
    enter("SYS_PTRACE", user=True)
    program = working()
    program.checkpoint()
    program.restore("--pids", "any")
    ends(program)


@test("Docker with SYS_PTRACE and CHECKPOINT_RESTORE, seccomp unconfined: the old PIDs", serial=True)
def checkpoint_restore():
    need_cairn()
    enter("SYS_PTRACE", "CHECKPOINT_RESTORE", filtered=False)
    program = working()
    for _ in range(2):
        program.round_trip()
        check(not program.init, "it is in a namespace of its own")
    ends(program)


@test("Docker with SYS_PTRACE and CHECKPOINT_RESTORE under the default profile: what hides clone3 is named", serial=True)
def hidden_clone3():
    need_cairn()
    enter("SYS_PTRACE", "CHECKPOINT_RESTORE")
    program = working()
    program.checkpoint()
    line = fault_line(cairn("restore", "-d", "--pids", "same", program.image), PERMISSION, "clone3")
    check("seccomp=unconfined" in line, "the remedy", line)
    program.restore("--pids", "any")
    ends(program)


@test("seccomp unconfined and an ordinary user: masked parts of /proc forbid jobs, and that is said with its remedy", serial=True)
def masked():
    need_cairn()
    enter(filtered=False, user=True)
    done = run("--", "true")
    check(done.wait() == 125 and "/proc are hidden" in done.text("err") and "unmask" in done.text("err"), "the reason", done.text("err"))
    named(cairn("check"), "masked", "systempaths=unconfined")
    program = working()
    program.checkpoint()
    program.restore("--pids", "any")
    ends(program)


@test("in a container, a program with one more seccomp filter is refused by name, and an image from a container needs one", serial=True)
def own_filter():
    need_cairn()
    need_root()
    code, count = profile(("SYS_PTRACE",))
    sandbox = f"""
import ctypes, os, struct
from time import sleep as pause
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer({code!r})
libc.prctl(38, 1, 0, 0, 0)
print("filter", libc.prctl(22, 2, ctypes.create_string_buffer(struct.pack("HxxxxxxQ", {count}, ctypes.addressof(code))), 0, 0), flush=True)
while not os.path.exists("finish"): pause(.01)
"""
    # Saved in a container; here there is none.
    child = os.fork()
    if child == 0:
        become_subreaper()
        enter("SYS_PTRACE", masked=False)
        program = working()
        program.checkpoint()
        program = start([PYTHON, "-c", sandbox], "sandbox")
        program.wait_text("filter 0")
        fault_line(cairn("checkpoint", program.pid, "-o", "x.cairn"), UNSUPPORTED, "2 seccomp filters, and this Cairn under 1")
        unharmed(program.pid)
        program.finish()
        os._exit(0)
    check(os.waitpid(child, 0)[1] == 0, "the part in the container")
    fault_line(cairn("restore", "-d", "job/image-1.cairn"), UNSUPPORTED, "container", several=True)


if __name__ == "__main__":
    main()
