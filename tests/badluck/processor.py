#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images of processors that are not this one. They are made of images of this one, by changing what these say of it."""
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import subprocess

from cairn_image import BYTES, FIXED32, Image, Message
from cairn_test import (BUILD, CAIRN, IMAGE, OK, UNSUPPORTED, Skip, cairn, check, children_of, equal, fault_line, main, need, need_cairn,
                        need_root, start, test, until)

WORKER = BUILD / "tests" / "badluck" / "worker"
REGISTERS = BUILD / "tests" / "kinds" / "registers"
# Tags of records and fields of ImageInfo, CpuidWord, XstateComponent and Thread (src/image/records).
IMAGE_INFO, THREAD, SCHEDULING = 1, 11, 16
AFFINITY = 9
HOST, XSTATE_FEATURES, HWCAP, HWCAP2, CPUID, COMPONENTS = 5, 14, 15, 16, 17, 18
LEAF, SUBLEAF, OUTPUT, BITS = 1, 2, 3, 4
NUMBER, OFFSET, SIZE = 1, 2, 3
XSTATE = 4
EAX, EBX, ECX, EDX = range(4)
# No processor has all of these: Intel's last Xeon Phi and newest server processors, and old ones of AMD.
RARE = {"avx512pf": (7, 0, EBX, 26), "avx512_4vnniw": (7, 0, EDX, 2), "amx_tile": (7, 0, EDX, 24), "fma4": (0x80000001, 0, ECX, 16),
        "sha512": (7, 1, EAX, 0)}


def flags():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    raise Skip("/proc/cpuinfo names no flags")


def saved(*argv):
    need_cairn()
    program = start([*(argv or (WORKER, "1"))], "job")
    program.wait_text("ready")
    program.checkpoint()
    return program


def number(value):
    return int.from_bytes(value, "little") if isinstance(value, bytes) else value


def change_info(program, change):
    with Image(program.image) as image:
        record = image.records(IMAGE_INFO)[0]
        info = Message(record.data)
        info.drop(HOST)  # makes room
        change(info)
        record.data = info.bytes()


def add_feature(info, leaf, subleaf, output, bit):
    words = [Message(data) for data in info.all(CPUID)]
    info.drop(CPUID)
    found = [word for word in words if (word.get(LEAF), word.get(SUBLEAF), word.get(OUTPUT)) == (leaf, subleaf, output)]
    check(len(found) == 1, f"CPUID {leaf:#x}.{subleaf}.{output} is not in the image")
    found[0].set(BITS, number(found[0].get(BITS)) | 1 << bit, FIXED32)
    for word in words:
        info.add(CPUID, word.bytes(), BYTES)


def refused(program, *named, options=()):
    for words in (["restore", "-d", *options, program.image], ["check", *options, program.image]):
        result = cairn(*words)
        line = fault_line(result, UNSUPPORTED, *named)
        check("; try " in line, "no remedy", line)
        check(not children_of(os.getpid()), "a process remains", result)
        check(options or "--force-cpu" in line, "--force-cpu is not named", line)
    return line


def goes_on(program, *options):
    result = program.restore(*options)
    program.wait_progress(2)
    program.path("go").touch()
    program.succeed()
    return result


@test("features that the processor here lacks are named and refused, and --force-cpu goes on", quick=True)
def lacking():
    rare = {name: place for name, place in RARE.items() if name not in flags()}
    if not rare:
        raise Skip("this processor has everything")
    program = saved()

    def change(info):
        for place in rare.values():
            add_feature(info, *place)
    change_info(program, change)
    line = refused(program, *rare)
    for name in flags():
        check(f" {name}," not in line, f"{name} is here and named", line)
    cairn("check", "--force-cpu", program.image, status=OK)
    result = goes_on(program, "--force-cpu")
    check(all(name in result.err for name in rare) and "without" in result.err, "no warning", result)


@test("bits of AT_HWCAP2 and of registers that the processor here lacks are refused by name", quick=True)
def other_bits():
    program = saved()

    def change(info):
        info.set(HWCAP2, number(info.get(HWCAP2)) | 1)
        info.set(XSTATE_FEATURES, info.get(XSTATE_FEATURES) | 1 << 40)
    if "ring3mwait" in flags():
        raise Skip("this processor has ring3mwait")
    change_info(program, change)
    refused(program, "ring3mwait", "XCR0[40]")
    goes_on(program, "--force-cpu")


@test("an image that says nothing of its processor is restored", quick=True)
def silent():
    program = saved()

    def change(info):
        for field in (HWCAP, HWCAP2, CPUID, COMPONENTS):
            info.drop(field)
    change_info(program, change)
    result = goes_on(program)
    equal(result.err, "", "messages")


@test("values in registers that the processor here lacks are refused even with --force-cpu", quick=True)
def in_use():
    program = saved()
    absent = 40

    with Image(program.image) as image:
        for record in image.records(THREAD):
            thread = Message(record.data)
            xstate = bytearray(thread.get(XSTATE))
            used, = struct.unpack_from("<Q", xstate, 512)
            struct.pack_into("<Q", xstate, 512, used | 1 << absent)
            thread.fields = [[field, wire, bytes(xstate) if field == XSTATE else value]
                             for field, wire, value in thread.fields]
            record.data = thread.bytes()
    for options in ((), ("--force-cpu",)):
        result = cairn("restore", "-d", *options, program.image)
        fault_line(result, UNSUPPORTED, "thread", f"XCR0[{absent}]", several=True)
        check(not children_of(os.getpid()), "a process remains", result)


@test("registers that the image's processor laid out otherwise keep their values", quick=True)
def laid_out_otherwise():
    program = saved(REGISTERS)
    places = {}  # number: (old offset, new offset, size)

    def change(info):
        components = [Message(data) for data in info.all(COMPONENTS)]
        info.drop(COMPONENTS)
        if len(components) < 2:
            raise Skip("this processor has a single component of vector registers")
        at = 576
        for component in reversed(components):
            offset, size = number(component.get(OFFSET)), number(component.get(SIZE))
            places[component.get(NUMBER)] = (offset, at, size)
            component.set(OFFSET, at, FIXED32)
            at += size
        for component in components:
            info.add(COMPONENTS, component.bytes(), BYTES)
    change_info(program, change)
    with Image(program.image) as image:
        for record in image.records(THREAD):
            thread = Message(record.data)
            old = thread.get(XSTATE)
            new = bytearray(old[:576]) + bytes([0xee]) * (len(old) - 576)
            for old_offset, new_offset, size in places.values():
                new[new_offset:new_offset + size] = old[old_offset:old_offset + size]
            thread.fields = [[field, wire, bytes(new) if field == XSTATE else value]
                             for field, wire, value in thread.fields]
            record.data = thread.bytes()
    check(cairn("verify", program.image).status == OK, "the changed image is damaged")
    program.restore()
    program.path("go").touch()
    program.succeed()


@test("an impossible processor is damage, exit status 6", quick=True)
def impossible():
    program = saved()

    def change(info):
        info.add(COMPONENTS, bytes([NUMBER << 3, 64]), BYTES)
    change_info(program, change)
    fault_line(cairn("restore", "-d", program.image), IMAGE, "processor")


@test("processors that are not here are left out of an affinity with a warning, and if none is left all are taken", quick=True)
def affinity():
    program = saved()

    def restored_with(*processors):
        with Image(program.image) as image:
            for record in image.records(SCHEDULING):
                message = Message(record.data)
                message.set(AFFINITY, sum(1 << number for number in processors).to_bytes(64, "little"))
                record.data = message.bytes()
        return program.restore().err
    here = min(os.sched_getaffinity(0))
    warning = "some of its processors do not exist here; continuing without them"
    check(warning in restored_with(here, 400), "no warning")
    equal(os.sched_getaffinity(program.pid), {here}, "affinity")
    program.checkpoint()
    check(warning in restored_with(400, 401), "no warning when none is left")
    equal(os.sched_getaffinity(program.pid), os.sched_getaffinity(0), "affinity when none is left")
    program.checkpoint()
    check(warning not in restored_with(here), "a warning without a reason")


THREADS = """import os, threading
if os.fork() == 0:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for _ in range(3):
    threading.Thread(target=threading.Event().wait).start()
print("ready", flush=True)
"""


@test("the processor that newborns share with Cairn is theirs only until they run: each thread has those that it had", quick=True)
def seat():
    need_cairn()
    if len(os.sched_getaffinity(0)) < 2:
        raise Skip("there is one processor only")
    program = start([sys.executable, "-c", THREADS], "job")
    until(lambda: program.text().count("ready") == 2, "both processes")

    def processors():
        pids = [program.pid, *children_of(program.pid)]
        return [{int(tid): os.sched_getaffinity(int(tid)) for tid in os.listdir(f"/proc/{pid}/task")} for pid in pids]
    before = processors()
    equal(len(before), 2, "processes")
    for pids in ("same", "private"):
        program.checkpoint()
        program.restore("--pids", pids)
        equal([list(one.values()) for one in processors()], [list(one.values()) for one in before], f"processors of the threads, --pids {pids}")


OTHERS = """import os, threading
if os.fork() == 0:
    os.setgid(54321)
    os.setuid(54321)
threading.Thread(target=threading.Event().wait).start()
print("ready", flush=True)
"""


@test("a Cairn without CAP_SYS_NICE, as root in a container has none, restores processes of other users, with their processors", quick=True)
def seat_without_nice():
    need_cairn()
    need_root()
    need("setpriv")
    if len(os.sched_getaffinity(0)) < 2:
        raise Skip("there is one processor only")
    without = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-all"]
    program = start([*without, sys.executable, "-c", OTHERS], "job")
    until(lambda: program.text().count("ready") == 2, "both processes")
    os.sched_setaffinity(children_of(program.pid)[0], {max(os.sched_getaffinity(0))})
    program.checkpoint()
    result = subprocess.run([*without, CAIRN, "restore", "-d", program.image], capture_output=True, text=True, timeout=60)
    equal(result.returncode, 0, result.stderr)
    program.pid = int(result.stdout)
    child = children_of(program.pid)[0]
    for tid in os.listdir(f"/proc/{program.pid}/task"):
        equal(os.sched_getaffinity(int(tid)), os.sched_getaffinity(0), "processors of the first process")
    equal(os.sched_getaffinity(child), {max(os.sched_getaffinity(0))}, "processors of the other user's first thread")
    equal([os.sched_getaffinity(int(tid)) for tid in os.listdir(f"/proc/{child}/task") if int(tid) != child], [os.sched_getaffinity(0)],
          "processors of his other thread")


if __name__ == "__main__":
    main()
