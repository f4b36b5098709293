#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""fio by libaio, which keeps dozens of requests at a disk and verifies what it has written."""
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import BUILD, LONG, check, children_of, main, need, need_cairn, start, test, until

ROUNDS = 8 if LONG else 4


def rings(pid):
    """Mappings of rings in the tree."""
    maps = [pathlib.Path(f"/proc/{one}/maps").read_text() for one in [pid, *children_of(pid)]]
    return sum(text.count("/[aio]") for text in maps)


def fio(*options):
    need("fio")
    need_cairn()
    with tempfile.TemporaryDirectory(dir=BUILD) as disk:
        program = start(["fio", "--name=job", "--ioengine=libaio", "--iodepth=48", "--bs=16k", "--size=32M", "--rw=randwrite", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=300",
                         "--loops=25", f"--directory={disk}", "--output-format=json", "--output=result", "--eta=never", *options])
        until(lambda: rings(program.pid), "its ring")
        for number in range(ROUNDS):
            program.wait_cpu(0.2)
            program.checkpoint("--timeout", "100", kill=number % 2 == 0, timeout=120)
            if number % 2 == 0:
                program.restore("--file-changed", "ignore")
        program.succeed(timeout=200)
        result = json.loads(program.path("result").read_text())["jobs"]
        check(all(job["error"] == 0 and job["read"]["total_ios"] and job["write"]["total_ios"] for job in result), "what fio found", program.path("result").read_text()[:2000])


@test("fio by libaio with direct I/O, saved in the middle of it, finds all that it has written", timeout=300)
def direct():
    fio("--direct=1")


@test("fio by libaio that reads its ring without the kernel, in two processes", timeout=300)
def reaping():
    fio("--direct=1", "--userspace_reap=1", "--numjobs=2")


if __name__ == "__main__":
    main()
