#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every stressor of stress-ng's classes cpu, memory, scheduler, signal, interrupt (clocks, timers) and vm, checking itself by --verify, saved and
restored at three random moments. One that does not run here without Cairn either is skipped, with what it says."""
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, OK, UNSUPPORTED, Skip, alive, become_ordinary_user, cairn, check, fault_line, job_of, jobs, main, need, reap, run, sh,
                        start, test, unharmed, until)

STRESSORS = """af-alg affinity aio aiol alarm atomic bad-altstack bigheap branch brk bsearch clock clone close context cpu cpu-online crypt cyclic daemon
    dev-shm dnotify env eventfd exec exit-group fanotify fault fifo fork forkheavy fp fp-error full funccall funcret futex getrandom goto hash
    heapsort hrtimers hsearch inotify ioport ipsec-mb itimer jpeg judy kill list loadavg lockbus longjmp lsearch madvise malloc matrix matrix-3d
    mcontend membarrier memcpy memfd memrate memthrash mergesort mincore misaligned mlock mlockmany mmap mmapaddr mmapfixed mmapfork mmaphuge
    mmapmany mprotect mq mremap msg msync msyncmany munmap mutex nanosleep netlink-proc netlink-task nice nop null numa oom-pipe opcode pagemove
    pageswap physpage pidfd pipe pipeherd pkey plugin poll prefetch priv-instr pthread qsort race-sched radixsort randlist rdrand regs remap
    resched resources rmap rotate rseq schedpolicy secretmem sem sem-sysv session shellsort shm shm-sysv sigabrt sigchld sigfd sigfpe sigio
    signal signest sigpending sigpipe sigq sigrt sigsegv sigsuspend sigtrap skiplist sleep smi softlockup sparsematrix spawn stack stackmmap str
    stream swap switch syncload tee timer timerfd tlb-shootdown tmpfs tree tsc tsearch uprobe userfaultfd vecfp vecmath vecshuf vecwide vfork
    vforkmany vm vm-addr vm-rw vm-segv vm-splice wait waitcpu watchdog wcs x86cpuid yield zero zlib zombie""".split()

# Quick ones of each sort, also in the ordinary run.
QUICK = "aiol context daemon nanosleep sigq timerfd mutex futex".split()

# Why a stressor is not tried: what it does to the machine, or counts of the kernel that nobody can set.
EXCLUDED = {
    "cpu-online": "takes processors of this machine away",
    "smi": "provokes interrupts of this machine's firmware",
    "swap": "makes swap areas of the whole machine",
    "watchdog": "would reboot the machine",
    "loadavg": "makes as many threads as the machine can bear",
    "oom-pipe": "fills the memory of the whole machine",
    "resources": "takes all of the machine's memory and descriptors",
    "softlockup": "keeps all processors by real-time priority",
    "netlink-task": "compares its own count of context switches with the kernel's, which begins anew and which nobody can set",
}

# Who does not run as root.
OF_USER = "exec spawn".split()
# What it needs in its environment: glibc registers a thread's restartable sequences before the stressor could.
ENVIRONMENT = {"rseq": {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}}
# Whose processes leave the tree, but not a job.
IN_JOB = ["daemon"]

# What may be refused by name at some moments: the word that says so.
REFUSED = {
    "clone": "namespace",
    "fanotify": "fanotify",
    "mlock": "ulimit -Hn",  # pages of shared memory, each an object of its own, until there are no more
    "mq": "notif",
    "munmap": "/proc/",
    "pageswap": "ulimit -Hn",  # the same
    "pidfd": "/proc/",
    "secretmem": "secret",
    "userfaultfd": "userfaultfd",
    "vm-segv": "traced",  # its processes trace each other
    "forkheavy": ":",  # everything that there is, refused kinds among it
}


def words(name, seconds):
    return ["stress-ng", "--verify", "--temp-path", ".", "--vm-bytes", "32M", "--no-rand-seed", "--timestamp", "--timeout", str(seconds),
            f"--{name}", "1"]


def give_place(name):
    """A file system in memory that is the stressor's alone, where it looks for one; returns where the test works."""
    if name == "tmpfs":
        # Over something that the test does not need, in its own mount namespace; the stressor does not look below /dev.
        sh("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", BUILD / "man")
    if name == "dev-shm":
        place = tempfile.TemporaryDirectory(dir=BUILD)
        sh("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm")
        return place
    return tempfile.TemporaryDirectory()


def runs_here(name):
    """What it says if it does not, unsaved."""
    done = subprocess.run(words(name, 1), env={**os.environ, **ENVIRONMENT.get(name, {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    text = done.stdout.decode(errors="replace")
    if done.returncode == 0 and "skipp" not in text and "fail:" not in text:
        return None
    return " / ".join(line for line in text.splitlines() if "info:" not in line or "skipp" in line)[-300:] or f"exit status {done.returncode}"


def round_trip(program, name):
    """True: saved and restored; False: it has ended by itself, or does at the moment what is refused by name."""
    # Some make dozens of processes that run only when nobody else wants to (SCHED_IDLE).
    result = program.checkpoint("--timeout", "100", status=None, timeout=120)
    if result.status == UNSUPPORTED and name in REFUSED:
        fault_line(result, UNSUPPORTED, REFUSED[name], several=True)
        unharmed(program.pid)
        return False
    if not alive(program.pid) and any(said in result.err for said in ("has ended", "ended before", "the process is gone")):
        return False
    check(result.status == OK, f"checkpoint: exit status {result.status}", result)
    program.restore()
    return True


def job_trip(name, image):
    """The same of a job: its tree, and what has left it."""
    cairn("checkpoint", name, "-o", image, "--kill", "--timeout", "100", status=OK, timeout=120)
    until(lambda: reap() or not jobs(), "the end of the killed job")
    cairn("restore", "-d", image, status=OK)
    job_of(name)


def stress_job(name, moments):
    program = run("--name", name, "--", *words(name, 6))
    job_of(name)
    for trip in range(3):
        time.sleep(moments.uniform(.05, .8))
        job_trip(name, f"{trip}.cairn")
    until(lambda: reap() or not jobs(), "the end of the job", 120)
    return program


def stress_tree(name, moments, directory):
    program = start(words(name, 6), directory, ENVIRONMENT.get(name))
    trips = 0
    for _ in range(3):
        time.sleep(moments.uniform(.05, .8))
        trips += alive(program.pid) and round_trip(program, name)
    check(trips or name in REFUSED, "it ended before the first save")
    program.succeed(120)
    return program


def stress(name):
    need("stress-ng")
    if name in EXCLUDED:
        raise Skip(EXCLUDED[name])
    if name in OF_USER:
        become_ordinary_user()
    with give_place(name) as directory:
        why = runs_here(name)
        if why:
            raise Skip(f"does not run here without Cairn: {why}")
        seed = int(os.environ.get("CAIRN_TEST_SEED", random.randrange(1 << 30)))
        print("seed", seed)
        moments = random.Random(seed)
        program = stress_job(name, moments) if name in IN_JOB else stress_tree(name, moments, directory)
        text = program.text() + program.text("err")
        check("fail:" not in text and "error:" not in text, f"seed {seed}: stress-ng found something wrong", text)
        check("successful run completed" in text, f"seed {seed}: stress-ng says nothing of success", text)


def declare(name):
    def run():
        stress(name)
    run.__name__ = name.replace("-", "_")
    test(f"stress-ng --{name} --verify finds nothing wrong after three restores", timeout=300, serial=True, long_only=name not in QUICK)(run)


for stressor in STRESSORS:
    declare(stressor)


@test("every stressor that is excluded or refused is one of those listed", quick=True)
def listed():
    for name in [*EXCLUDED, *REFUSED, *QUICK, *OF_USER, *ENVIRONMENT, *IN_JOB]:
        check(name in STRESSORS, f"{name} is not a stressor of these classes")


if __name__ == "__main__":
    main()
