#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Records of tasks with impossible values: damage, exit status 6, before a process exists."""
import pathlib
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_image import BYTES, FIXED64, Image, Message
from cairn_test import BUILD, IMAGE, all_pids, cairn, check, equal, fault_line, main, need_cairn, need_root, start, test

PROBES = BUILD / "tests" / "kinds"
PROCESS, THREAD, SIGNALS, MODES, SECCOMP, VMA = 10, 11, 12, 27, 28, 31


def saved(probe, variant):
    need_cairn()
    program = start([PROBES / probe, variant], "job")
    program.wait_text("ready")
    program.checkpoint()
    return program.image


def damaged(image, tag, which, change, what):
    """A copy with one record changed is refused, and nothing was made."""
    shutil.copy(image, "changed.cairn")
    with Image("changed.cairn") as changed:
        record = changed.records(tag)[which]
        message = Message(record.data)
        change(message)
        record.data = message.bytes()
    before = set(all_pids())
    result = cairn("restore", "-d", "changed.cairn")
    check(result.status == IMAGE, f"{what}: exit status {result.status}, wanted {IMAGE}", result)
    fault_line(result, IMAGE, "damaged")
    equal(set(all_pids()) - before, set(), f"{what}: processes")


def setter(field, value, wire=None):
    return lambda message: message.set(field, value, wire)


@test("who shares what with whom: an impossible answer is damage, exit status 6", quick=True)
def sharing():
    image = saved("shared_parts", "files")
    with Image(image) as opened:
        first, own = [Message(record.data).get(1) for record in opened.records(PROCESS)]
    damaged(image, PROCESS, 1, setter(16, own), "a table shared with itself")
    damaged(image, PROCESS, 1, setter(16, 999999), "a table shared with nobody")
    damaged(image, PROCESS, 0, setter(16, own), "a table shared with a younger one")
    damaged(image, PROCESS, 1, setter(16, 0), "a table that is nobody's")
    damaged(image, PROCESS, 1, setter(18, first), "handlers without memory")


@test("a first thread that has ended, alone or with registers, is damage, exit status 6", quick=True)
def ended():
    image = saved("seccomp", "everyone")
    damaged(image, THREAD, 0, setter(8, 1), "with registers")

    def alone(message):
        message.set(8, 1)
        for field in (3, 4):
            message.drop(field)
    damaged(image, THREAD, 1, alone, "not the first")


@test("impossible modes of a thread are damage, exit status 6", quick=True)
def modes():
    image = saved("thread_modes", "own")
    damaged(image, MODES, 0, setter(3, 7), "machine-check policy")
    damaged(image, MODES, 0, lambda message: (message.set(8, 1), message.set(9, (0xffff800000000000).to_bytes(8, "little"), FIXED64)), "a selector in the kernel's half")
    damaged(image, MODES, 0, lambda message: message.fields.extend([[6, 0, 1]] * 5), "more kinds of speculation than there are")


@test("signal number 200 is damage, exit status 6", quick=True)
def signals():
    image = saved("blocked", "sigsuspend")

    def action(message):
        first = Message(message.all(2)[0])
        first.set(1, 200)
        message.drop(2)
        message.add(2, first.bytes(), BYTES)

    def pending(message):
        message.set(3, struct.pack("<iii", 200, 0, -6) + bytes(116))
    damaged(image, SIGNALS, 0, action, "an action")
    damaged(image, SIGNALS, 0, pending, "a pending signal")


@test("a thread without its process or first thread is damage, exit status 6", quick=True)
def threads():
    image = saved("thread_modes", "own")
    damaged(image, THREAD, 1, setter(2, 999999), "of a process that is none")
    with Image(image) as opened:
        first, second = [Message(record.data).get(1) for record in opened.records(THREAD)][:2]
    damaged(image, THREAD, 0, setter(1, second), "two with one number")
    damaged(image, THREAD, 0, setter(1, first + 3000), "no first thread")


@test("mappings that overlap or lie in the kernel's half are damage, exit status 6", quick=True)
def mappings():
    image = saved("thread_modes", "own")
    with Image(image) as opened:
        maps = [Message(record.data) for record in opened.records(VMA)]

    def address(field, value):
        return setter(field, value.to_bytes(8, "little"), FIXED64)
    start, end = (int.from_bytes(maps[1].get(field), "little") for field in (2, 3))
    damaged(image, VMA, 0, address(3, start + 4096), "one that reaches into the next")
    damaged(image, VMA, 1, address(3, start), "an empty one")
    damaged(image, VMA, 1, address(3, start - 4096), "one that ends before it begins")
    damaged(image, VMA, 1, address(2, start + 1), "no multiple of a page")
    damaged(image, VMA, len(maps) - 1, address(3, 0xffff800000000000), "one into the kernel's half")
    damaged(image, VMA, len(maps) - 1, address(3, 0x800000001000), "one over the end of the user's half")
    check(end > start, "the mapping that was changed")


@test("a seccomp filter that the kernel would not take is damage, exit status 6", quick=True)
def seccomp():
    need_root()
    image = saved("seccomp", "stacked")

    def program(*instructions, flags=0):
        def change(message):
            code = b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
            one = Message()
            one.set(1, code)
            if flags:
                one.set(2, flags)
            message.drop(4)
            message.add(4, one.bytes(), BYTES)
        return change
    allow = (6, 0, 0, 0x7fff0000)
    damaged(image, SECCOMP, 0, program((0x15, 9, 9, 1), allow), "a jump over its end")
    damaged(image, SECCOMP, 0, program((0x20, 0, 0, 64), allow), "a load from behind the data")
    damaged(image, SECCOMP, 0, program((0x28, 0, 0, 0), allow), "a load of a packet's half word")
    damaged(image, SECCOMP, 0, program((0x20, 0, 0, 0)), "no end")
    damaged(image, SECCOMP, 0, program(allow, flags=8), "a listener")
    damaged(image, SECCOMP, 0, setter(3, 1), "filters in strict mode")
    damaged(image, SECCOMP, 0, lambda message: message.drop(4), "nothing at all")


if __name__ == "__main__":
    main()
