#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Live saves of programs whose writes cannot be tracked: their memory is read from a copy-on-write child, which nobody sees and which leaves nothing."""
import json
import os
import pathlib
import re
import resource
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, LONG, Failure, Skip, alive, cairn, check, children_of, main, need, need_cairn, need_root, proc_status, reap, run, start, state, test, unharmed,
                        until, write)

WATCHFUL = BUILD / "tests" / "badluck" / "watchful"
WORKER = BUILD / "tests" / "badluck" / "worker"
SIZE_MIB = 24
# Left out by a fork, and empty after one.
APART_BYTES = 2 * 300 * 4096
# Each leaves a stub behind in the program's text, where there is room for some only (tracee/foothold.h).
MOST_DEATHS = 10
# src/stub/stub.h, src/tracee/twin.c
BEARS, NOT_BORN, GETPID = 1 << 33, 0x7fffffff, 39


def copied(result):
    """How many bytes were copied in which way."""
    return next(one["copied"] for one in map(json.loads, result.out.splitlines()) if one["event"] == "checkpoint")


def twins_of(pid):
    """Those that Cairn made of a program below this test, which adopts them."""
    return [child for child in children_of(os.getpid()) if child != pid and state(child) not in (None, "Z", "X")
            and (proc_status(child) or {}).get("Name") in ("watchful", "worker")]


def no_twins(pid):
    def gone():
        reap()
        return not twins_of(pid)
    until(gone, "the end of what Cairn made")


def check_program(program, what):
    program.wait_progress(20)
    check("differs" not in program.text(), what, program.text()[-800:])


def goes_on(program, image):
    """What the image brings back goes on as well, and so does the next of it."""
    program.checkpoint(kill=True, image=program.path("last.cairn"))
    write(program.path("restored"), "")
    program.restore("--file-changed", "ignore", image=image)
    check_program(program, f"{image} is not one instant")


def end(program):
    write(program.path("go"), "")
    program.succeed()


def watched(program, rounds):
    check_program(program, "before")
    for number in range(rounds):
        image = program.path(f"{number}.cairn")
        ways = copied(program.checkpoint("--json", kill=False, image=image))
        check(ways["forked"] >= SIZE_MIB << 20 and not ways["tracked"], "the memory was not read from a child", ways)
        check(ways["frozen"] >= APART_BYTES, "what a fork does not copy was not copied in the freeze", ways)
        check_program(program, "the program noticed")
        no_twins(program.pid)
    cairn("verify", image, status=0)
    goes_on(program, image)


@test("a program that looks for children, signals, and others who have its files sees nothing of the one that its memory is read from", quick=True)
def unseen():
    need_cairn()
    program = start([WATCHFUL, SIZE_MIB])
    watched(program, 10 if LONG else 3)
    end(program)


@test("the memory of an ordinary user's own program is read from a copy-on-write child", user=True)
def unseen_user():
    need_cairn()
    program = start([WATCHFUL, SIZE_MIB])
    watched(program, 2)
    end(program)


@test("the memory of a job is read from a copy-on-write child, which its init adopts and which is in no image")
def job():
    need_cairn()
    job_ = run("--name", "watched", "--image", "job.cairn", "--", WATCHFUL, SIZE_MIB)
    check_program(job_, "before")
    for _ in range(3):
        result = cairn("checkpoint", "watched", "--json", status=0)
        check(copied(result)["forked"] >= SIZE_MIB << 20, "the memory was not read from a child", result)
        check_program(job_, "the program noticed")
    listed = json.loads(cairn("inspect", "--json", "job.cairn", status=0).out)
    check(len(listed["processes"]) == 1, "processes of the image", listed["processes"])
    write("go", "")
    job_.succeed()


def copied_in_the_freeze(why, *options, words=(), prepare=None):
    need_cairn()
    program = start([WATCHFUL, SIZE_MIB, *words])
    check_program(program, "before")
    if prepare:
        prepare(program)
    result = program.checkpoint("--json", "-v", *options, kill=False)
    ways = copied(result)
    check(why in result.err and "no copy-on-write child" in result.err, f"'{why}' is not said", result)
    check(not ways["forked"] and ways["frozen"] >= SIZE_MIB << 20, "it was copied in another way", ways)
    check_program(program, "the program noticed")
    no_twins(program.pid)
    goes_on(program, program.image)
    end(program)


@test("a program that may not have more processes is copied while it stands still, and -v says why", user=True)
def no_more_processes():
    copied_in_the_freeze("Resource temporarily unavailable", prepare=lambda program: resource.prlimit(program.pid, resource.RLIMIT_NPROC, (1, 1)))


@test("a copy that --max-extra-memory does not allow is not made, and -v says so")
def bounded():
    copied_in_the_freeze("--max-extra-memory is less", "--max-extra-memory", "8M")


@test("a copy for which the memory cgroup has no room is not made, and -v says so", host=True)
def small_cgroup():
    need_root()
    groups = dict(line.split(":", 2)[1:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines())
    parent = pathlib.Path("/sys/fs/cgroup/memory" + groups.get("memory", "/none").rstrip("/"))
    limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
    if "memory" not in groups:
        parent, limit, used = pathlib.Path("/sys/fs/cgroup" + groups.get("", "/none").rstrip("/")), "memory.max", "memory.current"
    box = parent / f"twins-{os.getpid()}"
    try:
        box.mkdir()
    except OSError as error:
        raise Skip(f"{box}: {error.strerror}") from None

    def close_in(program):
        if not (box / limit).exists():
            raise Skip(f"{box}: no {limit}")
        (box / "cgroup.procs").write_text(str(program.pid))
        (box / limit).write_text(str(int((box / used).read_text()) + (SIZE_MIB // 2 << 20)))
    try:
        copied_in_the_freeze("its memory cgroup has", prepare=close_in)
    finally:
        until(lambda: not (box / "cgroup.procs").read_text(), "the end of those in the cgroup")
        box.rmdir()


@test("a program that adopts orphans would see the child: it is copied while it stands still, and -v says so")
def reaper():
    copied_in_the_freeze("adopts orphans", words=["reaper"])


@test("a program whose children would be born into another PID namespace bears none for Cairn, and -v says so")
def born_elsewhere():
    need_root()
    copied_in_the_freeze("another PID namespace", words=["newpid"])


@test("a child that is killed while it is read, as by a kernel that wants memory, costs another freeze and nothing else")
def killed():
    need_cairn()
    program = start([WATCHFUL, 4 * SIZE_MIB])
    check_program(program, "before")
    image = program.path("image.cairn")
    process = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-v", "--json", "--threads", "1", "--compress", "zstd:19", "-o", image],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # In its place, before its end, and the program runs on.
    twin = until(lambda: [one for one in twins_of(program.pid) if state(one) == "t"], "the child")[0]
    program.wait_progress(1)
    os.kill(twin, signal.SIGKILL)
    out, err = process.communicate(timeout=100)
    check(process.returncode == 0 and "was killed" in err, "another freeze", out, err)
    check("no copy-on-write child" not in err and json.loads(out.splitlines()[-1])["copied"]["forked"] == 0, "how it was copied", out, err)
    unharmed(program.pid)
    check_program(program, "the program noticed")
    no_twins(program.pid)
    goes_on(program, image)
    end(program)


def traced(pid, *options):
    done = subprocess.run(["strace", "-qq", "-o", "trace", *options, CAIRN, "checkpoint", str(pid), "-o", "image.cairn"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=100)
    return done.returncode


@test("SIGKILL of cairn at each of the system calls by which it makes a copy-on-write child leaves the program unharmed, and no child", timeout=600)
def killed_at_each_call():
    need_cairn()
    need("strace")
    program = start([WATCHFUL, SIZE_MIB])
    check_program(program, "before")
    check(traced(program.pid, "-e", "trace=ptrace,wait4,process_vm_readv") == 0, "the save that nothing happens to")
    calls = re.findall(r"^(\w+)\(", pathlib.Path("trace").read_text(), re.M)
    # The other threads run as soon as Cairn is dead, and who looks with __WALL may find the helper that has not ended yet.
    deaths = MOST_DEATHS - 1
    for call in ("ptrace", "wait4", "process_vm_readv"):
        # Their numbers vary a little, as some only look; a save that comes to its end is no harm.
        for number in range(1, calls.count(call) + 1, 1 if LONG else 5):
            deaths += 1
            if deaths % MOST_DEATHS == 0:
                end(program)
                program.path("go").unlink()
                program = start([WATCHFUL, SIZE_MIB, "usual"])
                check_program(program, "before")
            status = traced(program.pid, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")
            try:
                unharmed(program.pid)
                no_twins(program.pid)
                program.wait_progress(3)
                check("differs" not in program.text(), "the program noticed", program.text()[-800:])
            except Failure as failure:
                raise Failure(f"killed at {call} number {number} (status {status}): {failure}") from None
    end(program)


def births(pid):
    """The numbers of Cairn's calls, of each kind from 1 on: where a process is set off to bear its helper, and those from the birth of that until its end was seen."""
    check(traced(pid, "-e", "trace=ptrace,wait4,process_vm_readv") == 0, "the save that nothing happens to")
    calls = [line for line in pathlib.Path("trace").read_text().splitlines() if re.match(r"\w+\(", line)]
    tie = next(i for i, line in enumerate(calls) if "PTRACE_SETOPTIONS" in line)
    rest = next(i for i in range(tie, len(calls)) if "PTRACE_INTERRUPT" in calls[i])
    numbers = []
    seen = {}
    for i, line in enumerate(calls):
        name = line.split("(")[0]
        seen[name] = seen.get(name, 0) + 1
        numbers.append((name, seen[name]))
    set_off = max(i for i in range(tie) if "PTRACE_CONT" in calls[i])
    return numbers[set_off], numbers[tie:rest + 1]


def delayed(pid, number, milliseconds):
    """A save that sleeps before its call of that number."""
    return subprocess.Popen(["strace", "-qq", "-o", "trace", "-e", f"trace={number[0]}", "-e", f"inject={number[0]}:delay_enter={milliseconds}000:when={number[1]}", CAIRN,
                             "checkpoint", str(pid), "--json", "-o", "image.cairn"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@test("a program that gets SIGCONT or SIGSTOP in the moment in which it is to bear a child is not held up by that")
def signalled():
    need_cairn()
    need("strace")
    program = start([WATCHFUL, SIZE_MIB])
    check_program(program, "before")
    set_off, _ = births(program.pid)
    for number in (signal.SIGCONT, signal.SIGSTOP):
        begin = time.monotonic()
        saving = delayed(program.pid, set_off, 300)

        frozen = []

        def over(number=number, frozen=frozen):
            # Before the freeze it would be an ordinary signal. SIGSTOP once, in the delay; SIGCONT at any moment.
            if state(program.pid) == "t":
                frozen.append(time.monotonic())
            if frozen and (number == signal.SIGCONT or frozen[-1] - frozen[0] > 0.2):
                os.kill(program.pid, number)
                frozen[:] = []
            return saving.poll() is not None
        until(over, "the save", timeout=100)
        out, err = saving.communicate()
        took = time.monotonic() - begin
        check(saving.returncode == 0 and took < 5, f"{number!r}: the save took {took} s", out, err)
        os.kill(program.pid, signal.SIGCONT)
        unharmed(program.pid)
        no_twins(program.pid)
        check_program(program, "the program noticed")
    end(program)


@test("a Cairn that gets no processor for a while, with the helper born or gone, finds the child all the same", timeout=300)
def late_for_the_helper():
    need_cairn()
    need("strace")
    program = start([WORKER, SIZE_MIB, "plain", "direct"])
    program.wait_progress(3)
    _, calls = births(program.pid)
    for number in calls:
        saving = delayed(program.pid, number, 700)
        out, err = saving.communicate(timeout=60)
        check(saving.returncode == 0, f"late at {number}: exit status {saving.returncode}", out, err)
        unharmed(program.pid)
        program.wait_progress(3)
        check("differs" not in program.text(), f"late at {number}: the program noticed", program.text()[-800:])
        no_twins(program.pid)
    end(program)


@test("a number that somebody writes to the program's memory is no reason to kill whose it is")
def forged():
    need_root()
    need_cairn()
    need("strace")
    program = start([WATCHFUL, SIZE_MIB])
    check_program(program, "before")
    set_off, _ = births(program.pid)
    victim = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    before = pathlib.Path(f"/proc/{program.pid}/maps").read_text().splitlines()
    for number in (victim.pid, -victim.pid):
        def forge(number=number):
            # The area, with the calls in it (src/stub/stub.h): the first, and the number that the second waits for.
            for line in set(pathlib.Path(f"/proc/{program.pid}/maps").read_text().splitlines()) - set(before):
                if " rw-p " not in line:
                    continue
                begin = int(line.split("-")[0], 16)  # it may be one with what was there above it
                try:
                    with open(f"/proc/{program.pid}/mem", "r+b", buffering=0) as memory:
                        memory.seek(begin)
                        call, at = struct.unpack("=Q64xi", memory.read(76))
                        if call & BEARS and at == NOT_BORN:
                            memory.seek(begin)
                            memory.write(struct.pack("=Q", GETPID))
                            memory.seek(begin + 72)
                            memory.write(struct.pack("=i", number))
                            return True
                except OSError:  # gone meanwhile
                    continue
            return False
        # The calls' numbers vary a little.
        for _ in range(50):
            saving = delayed(program.pid, set_off, 200)
            forged_it = until(lambda saving=saving, forge=forge: forge() or (saving.poll() is not None and 2), "the calls")
            out, err = saving.communicate(timeout=60)
            check(victim.poll() is None, f"{number}: whose number it was has ended", out, err)
            check(saving.returncode == 0, f"{number}: the save", out, err)
            unharmed(program.pid)
            no_twins(program.pid)
            if forged_it is True:
                break
        check(forged_it is True, "the calls were never seen")
    victim.kill()
    victim.wait()
    # Who is not found by its number stands until Cairn ends, and that the program may have seen.
    check(alive(program.pid), "the program has ended", program.text()[-500:])
    program.kill()


@test("a program that has all huge pages of the pool, and has reserved none, does not need another because of the child", serial=True, host=True)
def huge_pages():
    need_root()
    need_cairn()
    pool = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    before = pool.joinpath("nr_hugepages").read_text()
    try:
        pool.joinpath("nr_hugepages").write_text("4")
        if pool.joinpath("free_hugepages").read_text().strip() != "4":
            raise Skip("no four huge pages, or others than these")
        program = start([WATCHFUL, SIZE_MIB, "pool"])
        check_program(program, "before")
        check(pool.joinpath("free_hugepages").read_text().strip() == "0", "the program does not have all of them")
        for _ in range(3):
            image = program.path("pool.cairn")
            ways = copied(program.checkpoint("--json", "--compress", "zstd:19", "--threads", "1", kill=False, image=image))
            check(ways["forked"] >= SIZE_MIB << 20, "the memory was not read from a child", ways)
            check_program(program, "the program noticed")
            no_twins(program.pid)
        goes_on(program, image)
        end(program)
    finally:
        pool.joinpath("nr_hugepages").write_text(before)


@test("a Cairn that sleeps for longer than a thread rests, at any call by which it makes a copy-on-write child, saves the program all the same", timeout=900)
def late():
    need_cairn()
    need("strace")
    # One that goes on while Cairn sleeps may see what Cairn has of it at that moment; it must not be harmed.
    program = start([WORKER, SIZE_MIB, "plain", "direct"])
    program.wait_progress(3)
    check(traced(program.pid, "-e", "trace=ptrace") == 0, "the save that nothing happens to")
    calls = pathlib.Path("trace").read_text().count("ptrace(")
    for number in range(1, calls + 1, 1 if LONG else 16):
        status = traced(program.pid, "-e", "trace=ptrace", "-e", f"inject=ptrace:delay_enter=700000:when={number}")
        check(status == 0, f"late at ptrace call {number}: exit status {status}")
        unharmed(program.pid)
        program.wait_progress(3)
        check("differs" not in program.text(), f"late at ptrace call {number}: the program noticed", program.text()[-800:])
        no_twins(program.pid)
    end(program)


if __name__ == "__main__":
    main()
