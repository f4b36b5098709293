#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images of a kernel whose vdso is another: made of images of this one, by changing the vdso's code that they hold. Where a redirected function
is called, nothing of the old code may run: it is made of traps."""
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_image import FIXED64, Image, Message, xxh3
from cairn_test import PYTHON, UNSUPPORTED, Skip, all_pids, check, equal, fault_line, main, need_cairn, start, test, write

IMAGE_INFO, THREAD = 1, 11
HOST, HASH, CODE = 5, 12, 35
TRAP = b"\xcc"
SHF_EXECINSTR, STT_FUNC = 4, 2

# Finds the functions as a program of its own would, by the dynamic linker, and calls each through the address that it had before the save.
PROGRAM = """
import ctypes, os, time
class Timespec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
vdso = ctypes.CDLL("linux-vdso.so.1")
clock, coarse, cpu = vdso.__vdso_clock_gettime, vdso.__vdso_clock_getres, vdso.__vdso_getcpu
second = vdso.__vdso_time
second.restype = ctypes.c_long
def ask():
    now, res, number, node = Timespec(), Timespec(), ctypes.c_uint(999), ctypes.c_uint(999)
    assert clock(1, ctypes.byref(now)) == 0 and coarse(1, ctypes.byref(res)) == 0 and cpu(ctypes.byref(number), ctypes.byref(node), None) == 0
    assert number.value < 999 and res.ns == 1 and abs(second(None) - time.time()) < 2
    return now.s * 10 ** 9 + now.ns
before = ask()
print("ready", flush=True)
while not os.path.exists("go"):
    ctypes.CDLL(None).usleep(1000)
after = ask()
assert before < after < before + 600 * 10 ** 9, (before, after)
assert after <= ask()
print("done", flush=True)
"""


def sections(code):
    """(type, flags, offset, size, link) of each."""
    at, = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    found = []
    for i in range(count):
        _, kind, flags, _, offset, length, link = struct.unpack_from("<IIQQQQI", code, at + i * size)
        found.append((kind, flags, offset, length, link))
    return found


def trapped(code):
    """All that is code is a trap."""
    code = bytearray(code)
    for kind, flags, offset, length, _ in sections(code):
        if flags & SHF_EXECINSTR:
            code[offset:offset + length] = TRAP * length
    return bytes(code)


def renamed(code, old, new):
    check(code.count(b"\0" + old + b"\0") == 1 and len(old) == len(new), f"{old} is there once")
    return code.replace(b"\0" + old + b"\0", b"\0" + new + b"\0")


def vdso_of(program):
    lines = pathlib.Path(f"/proc/{program.pid}/maps").read_text().splitlines()
    return [line.split()[0] for line in lines if line.endswith("[vdso]")]


def saved():
    need_cairn()
    write("program.py", PROGRAM.lstrip())
    program = start([PYTHON, "program.py"])
    program.wait_text("ready")
    program.vdso = vdso_of(program)
    program.checkpoint()
    return program


def forge(program, change, with_hash=True):
    with Image(program.image) as image:
        record = image.records(IMAGE_INFO)[0]
        info = Message(record.data)
        code = info.get(CODE)
        if not code:
            raise Skip("the image holds no vdso")
        forged = change(code)
        check(forged != code and len(forged) == len(code), "the change changes nothing")
        info.set(CODE, forged)
        if with_hash:
            info.set(HASH, xxh3(forged).to_bytes(8, "little"), FIXED64)
        record.data = info.bytes()


def goes_on(program):
    program.path("go").touch()
    program.succeed()
    check("done" in program.text(), "it did not come to its end", program.text())


def refused(program, word):
    before = set(all_pids())
    result = program.restore(status=UNSUPPORTED)
    fault_line(result, UNSUPPORTED, word)
    equal(set(all_pids()) - before, set(), "processes")


@test("under a kernel with another vdso, functions that a program found before go on, twice in a row", quick=True)
def redirected():
    program = saved()
    before = program.vdso
    forge(program, trapped)
    program.restore()
    check(before and vdso_of(program) not in ([], before), f"the vdso here is not elsewhere: {vdso_of(program)}, was {before}")
    # The next image is of this kernel again; what the program has is code of its own.
    program.checkpoint()
    program.restore()
    goes_on(program)


@test("an old vdso with a function that is nowhere here is refused by its name, exit status 3", quick=True)
def unknown():
    program = saved()
    forge(program, lambda code: renamed(code, b"__vdso_getcpu", b"__vdso_getcpX"))
    refused(program, "__vdso_getcpX")


@test("an image that does not hold the vdso it names is refused, exit status 3", quick=True)
def missing():
    program = saved()
    forge(program, trapped, with_hash=False)
    with Image(program.image) as image:
        record = image.records(IMAGE_INFO)[0]
        info = Message(record.data)
        info.set(HASH, (4711).to_bytes(8, "little"), FIXED64)
        record.data = info.bytes()
    refused(program, "does not hold")


if __name__ == "__main__":
    main()
