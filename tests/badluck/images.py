#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images that are none, or no longer: found out before anything exists, exit status 6."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import ctypes
import os
import random
import shutil

from cairn_image import BYTES, Image, Message
from cairn_test import (BUILD, FAILED, IMAGE, OK, Skip, cairn, check, children_of, fault_line, main, need_cairn, start, test, until)

WORKER = BUILD / "tests" / "badluck" / "worker"
THREAD = 11  # the tag of the record of a thread


def hash_header(image):
    """The checksum of the header page, so that a changed header is no damaged one: FORMAT.md."""
    try:
        library = ctypes.CDLL("libxxhash.so.0")
    except OSError as error:
        raise Skip(str(error))
    library.XXH3_64bits.restype = ctypes.c_uint64
    library.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    image[4088:4096] = library.XXH3_64bits(bytes(image[:4088]), 4088).to_bytes(8, "little")


def saved():
    need_cairn()
    program = start([WORKER, "1"], "job")
    program.wait_progress(3)
    program.checkpoint()
    shutil.copy(program.image, "good.cairn")
    check(cairn("verify", "good.cairn").status == OK, "cairn verify finds the good image bad")
    return "good.cairn"


def refused(path, *named, words=("verify", "restore")):
    for word in words:
        options = ["-d"] if word == "restore" else []
        result = cairn(word, *options, path)
        fault_line(result, IMAGE, path, *named)
        until(lambda: not children_of(os.getpid()) or reaped(), "no process remains", 10)


def reaped():
    from cairn_test import reap
    reap()
    return not children_of(os.getpid())


@test("an empty file is refused, exit status 6", quick=True)
def empty():
    need_cairn()
    open("empty.cairn", "w").close()
    refused("empty.cairn", words=("verify", "restore", "inspect"))


@test("foreign files are refused as no images, exit status 6", quick=True)
def foreign():
    need_cairn()
    shutil.copy("/bin/true", "elf.cairn")
    with open("text.cairn", "w") as out:
        out.write("not an image\n" * 10000)
    with open("zeros.cairn", "wb") as out:
        out.truncate(1 << 20)
    for name in ("elf", "text", "zeros"):
        refused(f"{name}.cairn", words=("verify", "restore", "inspect"))


@test("an image that does not exist is named, exit status 1", quick=True)
def missing():
    need_cairn()
    for word in ("verify", "restore", "inspect"):
        fault_line(cairn(word, *(["-d"] if word == "restore" else []), "missing.cairn"), FAILED, "missing.cairn")
    fault_line(cairn("restore", "missing.cairn"), 125, "missing.cairn")


@test("a truncated image is refused wherever it was cut, exit status 6", quick=True)
def truncated():
    good = open(saved(), "rb").read()
    for length in (1, 100, 4095, 4096, 5000, len(good) // 3, len(good) // 2, len(good) - 4096, len(good) - 1):
        with open("cut.cairn", "wb") as out:
            out.write(good[:length])
        refused("cut.cairn")


@test("an image with something behind its end is refused, exit status 6", quick=True)
def longer():
    shutil.copy(saved(), "long.cairn")
    with open("long.cairn", "ab") as out:
        out.write(b"more")
    refused("long.cairn")


@test("a flipped bit anywhere is found, exit status 6, and nothing remains", timeout=300)
def flipped():
    good = bytearray(open(saved(), "rb").read())
    source = random.Random(3)
    places = [0, 8, 4090, 4096, 4100, 4200, len(good) - 1, len(good) - 4096, len(good) - 4000]
    places += [source.randrange(len(good)) for _ in range(40)]
    for place in places:
        bit = 1 << source.randrange(8)
        good[place] ^= bit
        with open("flipped.cairn", "wb") as out:
            out.write(good)
        good[place] ^= bit
        try:
            refused("flipped.cairn")
        except Exception as failure:
            raise type(failure)(f"byte {place} of {len(good)}, bit {bit:#x}: {failure}") from None


@test("an image with features that this cairn does not know says so, exit status 6", quick=True)
def unknown_features():
    good = bytearray(open(saved(), "rb").read())
    good[23] = 0x40
    hash_header(good)
    with open("features.cairn", "wb") as out:
        out.write(good)
    refused("features.cairn", "features", words=("verify", "restore", "inspect"))


@test("an image of a newer format says so, exit status 6", quick=True)
def newer():
    good = bytearray(open(saved(), "rb").read())
    good[8] = 3
    hash_header(good)
    with open("newer.cairn", "wb") as out:
        out.write(good)
    refused("newer.cairn", "newer", words=("verify", "restore", "inspect"))


@test("fields of a record that this cairn does not know are skipped, however large, as a newer one may write them", quick=True)
def unknown_fields():
    need_cairn()
    program = start([WORKER, "1"], "job")
    program.wait_progress(3)
    program.checkpoint()
    with Image(program.image) as image:
        for record in image.records(THREAD):
            message = Message(record.data)
            message.add(4000, bytes(100000), BYTES)
            record.data = message.bytes()
    check(cairn("verify", program.image).status == OK, "cairn verify finds it bad")
    program.restore()
    program.wait_progress(3)


if __name__ == "__main__":
    main()
