#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Drives the probes: each is saved, killed and restored twice, then asked what differs."""
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, DRY, LONG, OK, PERMISSION, UNSUPPORTED, Failure, Skip, check, equal, fault_line, main, registered,
                        shorten, start, test, unharmed, until)

HERE = pathlib.Path(__file__).resolve().parent
PROBES = BUILD / "tests" / "kinds"


def begin(name, *words):
    program = start([PROBES / name, *words], "probe")

    def ready():
        try:
            program._dead("ready")
        except Failure:
            pass
        return "ready\n" in program.text() or not pathlib.Path(f"/proc/{program.pid}").exists()
    until(ready, f"'ready' of the probe {name}\n{program.tail()}")
    if "ready\n" not in program.text():
        status = program.wait()
        if status == 77:
            raise Skip(program.text().strip().removeprefix("skipped: "))
        raise Failure(f"the probe ended with {status} before it was ready\n{program.tail()}")
    return program


def finish(program):
    program.path("go").touch()
    status = program.wait(60)
    check(status == 0, f"the probe ended with {status}", program.text(), program.text("err"))
    for note in re.findall("^note: (.*)", program.text(), re.MULTILINE):
        print(note)


def twice(name, words, refusable, permission, options=()):
    """The usual way: two rounds, then the probe checks itself."""
    program = begin(name, *words)
    for _ in range(2):
        result = program.checkpoint(*options, status=None)
        if result.status == UNSUPPORTED and refusable:
            fault_line(result, UNSUPPORTED, refusable, several=True)
            unharmed(program.pid)
            break
        if result.status == PERMISSION and os.getuid() != 0 and permission:
            # What the kernel does not permit an ordinary user is refused by the permission's name.
            fault_line(result, PERMISSION, permission.split()[0], several=True)
            unharmed(program.pid)
            break
        check(result.status == OK, f"checkpoint: exit status {result.status}", result)
        pid = program.saved_pid
        program.restore()
        equal(program.inner_pid(), pid, "PID after the restore")
    finish(program)


def blocked(name, words, *_):
    """The probe sleeps in one call for 1.5 s by its own clock. The save falls into the middle; afterwards it sleeps
    what was left, and the call returns what it would have returned."""
    program = begin(name, *words)
    total = 1.5
    import time
    since = time.monotonic()
    dead = 0.0
    for part in (0.4, 0.8):
        until(lambda at=part: time.monotonic() - since - dead >= at, "the middle of the call")
        gone = time.monotonic()
        program.checkpoint()
        program.restore()
        back = time.monotonic()
        dead += back - gone
    status = program.wait(30)
    text = program.text()
    check(status == 0, f"the probe ended with {status}", text, program.text("err"))
    slept = float(re.search(r"slept ([0-9.]+)", text).group(1))
    # To an absolute time: until then, or until it was back if that was later. One that began anew would take 0.4 s too many.
    latest = max(total, back - since) if "absolute" in text else total + dead
    check(total - 0.005 <= slept <= latest + 0.3,
          f"the call took {slept:.3f} s of {total} s, {dead:.3f} s of which it was away", text)


def notice(name, words, *_):
    """The probe runs through one call in a loop, is saved again and again and runs on, and must notice nothing."""
    program = begin(name, *words)
    saves = 1000 if LONG else 100
    for _ in range(3 if DRY else saves):
        program.checkpoint(kill=False, image=program.path("image.cairn"))
    finish(program)


DRIVERS = {"twice": twice, "blocked": blocked, "notice": notice}


def declare(name, variant, sentence, driver, refusable, permission, serial, options):
    words = [variant] if variant else []

    def run():
        DRIVERS[driver](name, words, refusable, permission, options)
    run.__name__ = f"{name}.{variant}" if variant else name
    test(sentence, serial=serial, timeout=1200 if driver == "notice" and LONG else 120, quick=driver == "twice")(run)


for source in sorted(HERE.glob("*.c")):
    head = source.read_text().partition("#include")[0]

    def field(word, text=head):
        found = re.search(rf"\b{word}: (.*)", text)
        return found.group(1).replace("*/", "").strip() if found else None

    driver = field("driver") or "twice"
    variants = re.findall(r"variant (\S+): (.*)", head)
    for variant, sentence in variants or [(None, field("probe") or f"{source.stem}: a probe without a sentence")]:
        declare(source.stem, variant, sentence.replace("*/", "").strip(), driver, field("refusable"),
                field("permission"), driver == "blocked" or field("alone"), (field("options") or "").split())


if __name__ == "__main__":
    main()
