#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""stress-ng with --verify: it checks itself, and says so by its exit status."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import LONG, check, main, need, start, test

OPS = {"cpu": 2500, "vm": 150000, "malloc": 80000, "fork": 12000, "pipe": 1500000, "timer": 200000, "memcpy": 800}


def stress(*stressors, workers=1):
    need("stress-ng")
    words = ["stress-ng", "--verify", "--temp-path", ".", "--vm-bytes", "48M", "--timer-freq", "20000", "--no-rand-seed"]
    for name in stressors:
        words += [f"--{name}", str(workers), f"--{name}-ops", str(OPS[name] * (5 if LONG else 1))]
    program = start(words)
    for _ in range(2):
        program.wait_cpu(0.4)
        program.round_trip()
    program.succeed(300)
    text = program.text() + program.text("err")
    check("fail:" not in text and "error:" not in text, "stress-ng found something wrong", text)
    check("successful run completed" in text, "stress-ng says nothing of success", text)


@test("stress-ng --cpu --verify finds nothing wrong after two restores", timeout=300)
def cpu():
    stress("cpu")


@test("stress-ng --vm --verify finds nothing wrong after two restores", timeout=300)
def vm():
    stress("vm")


@test("stress-ng --malloc --verify finds nothing wrong after two restores", timeout=300, quick=True)
def malloc():
    stress("malloc")


@test("stress-ng --fork --verify finds nothing wrong after two restores", timeout=300)
def fork():
    stress("fork")


@test("stress-ng --pipe --verify finds nothing wrong after two restores", timeout=300, quick=True)
def pipe():
    stress("pipe")


@test("stress-ng --timer --verify finds nothing wrong after two restores", timeout=300)
def timer():
    stress("timer")


@test("stress-ng --memcpy --verify finds nothing wrong after two restores", timeout=300)
def memcpy():
    stress("memcpy")


@test("stress-ng with all its stressors at once finds nothing wrong after two restores", timeout=600, long_only=True)
def together():
    stress(*OPS, workers=2)


if __name__ == "__main__":
    main()
