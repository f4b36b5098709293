#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""hanging_fs.py MOUNTPOINT: a file system (FUSE, include/uapi/linux/fuse.h) with one file, `file`, as one on a network: while `hang` exists in the working
directory it does not answer. Says `ready` when it is mounted."""
import ctypes
import os
import struct
import sys
import time

INIT, LOOKUP, GETATTR, OPEN, READ, RELEASE, FLUSH, OPENDIR, FORGET, STATFS, ACCESS, RELEASEDIR, INTERRUPT = 26, 1, 3, 14, 15, 18, 25, 27, 2, 17, 34, 29, 36
DATA = b"data of a slow file system\n"
PACE = 0.01


def attributes(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100644, len(DATA))
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(code, node, body):
    """The bytes of an answer; a negative error; None: none is wanted."""
    if code == INIT:
        return struct.pack("<IIIIHHIIHHIIII", 7, 31, 65536, 0, 12, 9, 65536, 1, 16, 0, 0, 0, 0, 0) + bytes(16)
    if code == LOOKUP:
        return struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + attributes(2) if body.rstrip(b"\0") == b"file" else -2
    if code == GETATTR:
        return struct.pack("<QII", 0, 0, 0) + attributes(node)  # valid for no time: asked again every time
    if code in (OPEN, OPENDIR):
        return struct.pack("<QII", 0, 0, 0)
    if code == READ:
        offset, = struct.unpack_from("<Q", body, 8)
        return DATA[offset:]
    if code == STATFS:
        return struct.pack("<QQQQQIIII", 1, 1, 1, 1, 1, 4096, 255, 4096, 0) + bytes(24)
    if code in (FORGET, INTERRUPT):
        return None
    return b"" if code in (RELEASE, RELEASEDIR, FLUSH, ACCESS) else -38


def main():
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if ctypes.CDLL(None, use_errno=True).mount(b"slow", sys.argv[1].encode(), b"fuse.slow", 0, options):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    while True:
        request = os.read(device, 1 << 18)
        while os.path.exists("hang"):
            time.sleep(PACE)
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        said = answer(code, node, request[40:])
        if said is None:
            continue
        error, said = (said, b"") if isinstance(said, int) else (0, said)
        try:
            os.write(device, struct.pack("<IiQ", 16 + len(said), error, unique) + said)
        except FileNotFoundError:
            pass  # whoever asked was killed


main()
