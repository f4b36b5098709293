#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Very many of something in one process."""
import os
import pathlib
import re
import resource
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import BUILD, PATIENCE, PYTHON, Skip, check, main, need_cairn, start, test, write

SCRIPT = r'''
import os, resource, socket, time
PAUSE, EACH = 0.002, 2500
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
server = socket.create_server(("127.0.0.1", 0), backlog=64)
streams, pairs, datagrams, listeners = [], [], [], []
for n in range(EACH // 2):
    a = socket.create_connection(server.getsockname())
    streams.append((a, server.accept()[0]))
    pairs.append(socket.socketpair())
for n in range(EACH):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1 + n % 200)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, n % 6)
    datagrams.append(one)
    listeners.append(socket.create_server(("127.0.0.1", 0)))
names = [one.getsockname() for one in datagrams + listeners]
for n, (a, b) in enumerate(streams + pairs):
    a.sendall(b"%d" % n)
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(PAUSE)
for n, (a, b) in enumerate(streams + pairs):
    b.settimeout(30)
    assert b.recv(100) == b"%d" % n, n
    b.sendall(b"back %d" % n)
    a.settimeout(30)
    assert a.recv(100) == b"back %d" % n, n
assert [one.getsockname() for one in datagrams + listeners] == names
for n, one in enumerate(datagrams):
    assert one.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 1 + n % 200
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == n % 6
print("all", flush=True)
'''


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@test("10,000 sockets of four sorts are saved and restored, each as it was", timeout=240)
def sockets():
    need_cairn()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 16384:
        raise Skip("too few descriptors are permitted")
    write("many.py", SCRIPT)
    program = start([PYTHON, "many.py"])
    program.wait_text("ready", timeout=60)
    before = processor_seconds()
    program.checkpoint(kill=False)
    used = processor_seconds() - before
    # Under 1 s (0.6 s by the clock) on a machine whose system calls take 0.5 us; one request or one look through all for each would be far more.
    check(used < 5 * PATIENCE, f"the save took {used:.1f} s of processor time")
    for _ in range(2):
        program.round_trip()
    program.path("go").touch()
    program.succeed(60)


@test("16 TB of addresses with ten touched pages are saved in milliseconds and kilobytes")
def addresses():
    need_cairn()
    program = start([BUILD / "tests" / "kinds" / "memory_modes", "reserve"], "job")
    program.wait_text("ready")
    result = program.checkpoint(kill=False)
    # 2.5 ms of 6.0 on a quiet machine, 96 KiB with the pages of heap, stack and libraries. A byte for each page of the addresses would be 4 GiB.
    frozen_ms, whole_ms = map(float, re.search(r"frozen ([0-9.]+) ms of ([0-9.]+) ms", result.out).groups())
    size = os.path.getsize(program.image)
    print(f"frozen {frozen_ms} ms of {whole_ms} ms, an image of {size >> 10} KiB")
    check(whole_ms < 200 * PATIENCE, "too slow", result)
    check(size < 512 << 10, f"an image of {size} bytes")
    program.round_trip()
    program.path("go").touch()
    program.succeed()


if __name__ == "__main__":
    main()
