#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Descriptors that cannot be carried: refused by name before the program is touched."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (PYTHON, Skip, UNSUPPORTED, cairn, check, fault_line, main, need_cairn, need_root, start, test, unharmed, write)

HEAD = r'''
import ctypes, os, socket, sys, time
PAUSE = 0.002
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    fd = libc.syscall(*words)
    if fd < 0:
        print("skip", os.strerror(ctypes.get_errno()), flush=True); sys.exit(0)
    return fd
'''
TAIL = r'''
print("fd", fd, flush=True)
n = 0
while not os.path.exists("go"):
    time.sleep(PAUSE)
    n += 1
    print("round", n, flush=True)
'''


def refused(make, *names, several=False):
    need_cairn()
    write("holder.py", HEAD + make + TAIL)
    program = start([PYTHON, "holder.py"])
    program.wait_text("\n")
    first = program.text().splitlines()[0]
    if first.startswith("skip"):
        from cairn_test import Skip
        raise Skip(first)
    program.wait_text("round")
    fd = first.split()[1]
    result = cairn("checkpoint", program.pid, "-o", "image.cairn")
    line = fault_line(result, UNSUPPORTED, str(program.pid), *([] if several else [f"fd {fd}"]), several=several)
    check(any(name in line.lower() for name in names), f"the line names none of {names}", line)
    check("; " in line, "the line has no remedy", line)
    unharmed(program.pid)
    # cairn check says the same, without touching.
    dry = cairn("check", program.pid)
    check(dry.status == UNSUPPORTED and f"fd {fd}" in dry.err + dry.out, "cairn check does not say the same", dry)
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()


@test("a userfaultfd is refused by name", quick=True)
def userfaultfd():
    refused("fd = call(323, os.O_CLOEXEC | 1)\n", "userfaultfd")


SOCKET = "try:\n    {}\nexcept OSError as e:\n    print('skip', e, flush=True); sys.exit(0)\nfd = s.fileno()\n"


@test("a vsock socket is refused by name", quick=True)
def vsock():
    refused(SOCKET.format("s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"), "vsock")


@test("an XDP socket is refused by name", quick=True)
def xdp():
    refused(SOCKET.format("s = socket.socket(44, socket.SOCK_RAW)"), "xdp")


@test("an SCTP socket is refused by name", quick=True)
def sctp():
    refused(SOCKET.format("s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)"), "sctp")


@test("a packet socket with a ring is refused by name", quick=True)
def ring():
    refused(SOCKET.format("s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0); "
                          "s.setsockopt(263, 5, b''.join(n.to_bytes(4, 'little') for n in (4096, 2, 2048, 4)))"), "ring")


@test("a socket of the kernel's cryptography is refused by name", quick=True)
def cryptography():
    refused(SOCKET.format("s = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)"), "cryptography")


@test("a connection with kTLS is refused by name", quick=True)
def ktls():
    refused("""
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
""" + SOCKET.format("s = client; s.setsockopt(socket.IPPROTO_TCP, 31, b'tls')"), "tls")


@test("a socket with an eBPF program as its filter is refused by name", quick=True)
def program_filter():
    refused("""
code = ctypes.create_string_buffer(bytes.fromhex("b700000003000000" "9500000000000000"))
license = ctypes.create_string_buffer(b"GPL")
words = (ctypes.c_uint64 * 16)(1 | 2 << 32, ctypes.addressof(code), ctypes.addressof(license))
program = call(321, 5, words, 128)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 50, program)
os.close(program)
fd = s.fileno()
""", "ebpf")


@test("TCP sockets with keys (TCP_MD5SIG) are refused by name", quick=True)
def keys():
    refused("import struct\n" + SOCKET.format("s = socket.create_server(('127.0.0.1', 0)); "
            "s.setsockopt(6, 14, struct.pack('=HHI120xBBHI80s', 2, 0, 0x0100007f, 0, 0, 3, 0, b'key'))"), "md5")


@test("a connected MPTCP socket is refused by name", quick=True)
def mptcp():
    refused("""
try:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError as e:
    print("skip", e, flush=True); sys.exit(0)
server.bind(("127.0.0.1", 0)); server.listen(1)
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
client.connect(server.getsockname())
peer, _ = server.accept()
fd = client.fileno()
""", "mptcp", several=True)


@test("a perf event is refused by name", quick=True)
def perf():
    refused("""
attr = (ctypes.c_uint32 * 32)(1, 128, 1)
fd = call(298, attr, 0, -1, -1, 0)
""", "perf")


@test("a bpf map per processor and a bpf program are refused by name", quick=True)
def bpf():
    refused("""
attr = (ctypes.c_uint32 * 32)(6, 4, 8, 1)
fd = call(321, 0, attr, 128)
""", "bpf map")
    for left in ("go", "out", "err"):
        pathlib.Path(left).unlink(missing_ok=True)
    refused("""
code = (ctypes.c_uint64 * 2)(0xb7, 0x95)
license = ctypes.create_string_buffer(b"GPL")
attr = (ctypes.c_uint32 * 32)(1, 2, *[part for at in (ctypes.addressof(code), ctypes.addressof(license)) for part in (at & 0xffffffff, at >> 32)])
fd = call(321, 5, attr, 128)
""", "bpf program")


@test("secret memory that is open and not mapped is refused by name", quick=True)
def secret():
    refused("fd = call(447, 0)\nos.ftruncate(fd, 4096)\n", "secret memory")


@test("descriptors of namespaces, of file systems being set up and of Landlock rule sets are refused by name", quick=True)
def others():
    for make, name in (("fd = os.open('/proc/self/ns/net', os.O_RDONLY)", "a network namespace"),
                       ("fd = call(430, b'tmpfs', 0)", "a file system that is being set up"),
                       ("fd = call(444, (ctypes.c_uint64 * 1)(1), 8, 0)", "a landlock rule set")):
        try:
            refused(make + "\n", name)
        except Skip:
            pass
        for left in ("go", "out", "err"):
            pathlib.Path(left).unlink(missing_ok=True)


@test("a device is refused by name, and --device-reopen opens it again by its path", quick=True)
def device():
    need_cairn()
    need_root()
    code = ("import os, time\nPAUSE = 0.002\nfd = os.open('/dev/kmsg', os.O_WRONLY)\nos.dup2(fd, 44)\nos.write(1, b'ready\\n')\n"
            "while not os.path.exists('go'): time.sleep(PAUSE)\nprint(os.readlink('/proc/self/fd/44'))\n")
    if not os.access("/dev/kmsg", os.W_OK):
        raise Skip("no /dev/kmsg")
    program = start([PYTHON, "-c", code], "job")
    program.wait_text("ready")
    result = cairn("checkpoint", program.pid, "-o", "image.cairn")
    fault_line(result, UNSUPPORTED, "/dev/kmsg", "--device-reopen /dev/kmsg", several=True)
    unharmed(program.pid)
    program.checkpoint("--device-reopen", "/dev/kmsg")
    program.restore()
    program.path("go").touch()
    program.succeed()
    check("/dev/kmsg" in program.text(), "the device is not open", program.text())


@test("two descriptors that cannot be carried are named together, one line each", quick=True)
def two():
    need_cairn()
    write("holder.py", HEAD + "fd = call(323, os.O_CLOEXEC | 1)\nother = call(323, os.O_CLOEXEC | 1)\n" + TAIL)
    program = start([PYTHON, "holder.py"])
    program.wait_text("\n")
    if program.text().startswith("skip"):
        from cairn_test import Skip
        raise Skip(program.text())
    result = cairn("checkpoint", program.pid, "-o", "image.cairn", status=UNSUPPORTED)
    lines = result.err.splitlines()
    check(len(lines) == 2 and all(line.startswith("cairn: ") for line in lines), "not one line for each", result)
    unharmed(program.pid)
    program.path("go").touch()
    program.succeed()


if __name__ == "__main__":
    main()
