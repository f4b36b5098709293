#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Encrypted images: --encrypt-key and --decrypt-key, wherever an image is written or read."""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, IMAGE, OK, PERMISSION, PYTHON, USAGE, cairn, check, equal, fault_line,
                        job_of, jobs, main, need_cairn, need_root, run, start, test, until, write)

INSTANT = BUILD / "tests" / "badluck" / "instant"
WORKER = BUILD / "tests" / "badluck" / "worker"
RESTORER = BUILD / "tests" / "jobs" / "restorer"
FAILURE = 125

# 32 MiB with words that must not be in an encrypted image: memory, environment, a path.
SECRETS = ("memory-full-of-secrets", "an-environment-of-secrets", "a-file-of-secrets")
PROGRAM = r"""
import os, select
words = [(f"memory-full-of-secrets {i} " * 40).encode() for i in range(32 << 10)]
held = open("a-file-of-secrets", "w")
step = 0
while not os.path.exists("go"):
    step += 1
    print("step", step, flush=True)
    select.select([], [], [], 0.02)
for i, word in enumerate(words):
    assert word == (f"memory-full-of-secrets {i} " * 40).encode(), "differs"
print("whole", flush=True)
"""


def key(name, text=None):
    """A key file of an ordinary kind."""
    path = pathlib.Path(name).resolve()
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
        out.write(os.urandom(32) if text is None else text)
    return path


def begin(directory="job"):
    need_cairn()
    write(f"{directory}/program.py", PROGRAM)
    program = start([PYTHON, "program.py"], directory, env={"SECRET": "an-environment-of-secrets"})
    program.wait_progress(2)
    return program


def finish(program):
    write(program.path("go"), "")
    program.succeed()
    program.wait_text("whole")


def contents(path):
    return pathlib.Path(path).read_bytes()


def secret(path):
    """Nothing of the program is to be seen in it; nor does anything repeat."""
    data = contents(path)
    for word in SECRETS:
        check(word.encode() not in data, f"{path} shows '{word}'")
    check(b"python" not in data and b"program.py" not in data, f"{path} shows the program's name")
    # But for the heads of blocks, which are at pages.
    blocks = [data[at:at + 16] for at in range(4096, len(data) - 4096, 16) if at % 4096]
    check(len(set(blocks)) == len(blocks), f"{path} repeats itself")


def round_trip():
    program = begin()
    own = key("key")
    for way in ("none", "lz4", "zstd"):
        program.checkpoint("--encrypt-key", own, "--compress", way)
        secret(program.image)
        for word in ("verify", "inspect", "check"):
            cairn(word, "--decrypt-key", own, program.image, status=OK)
        check(json.loads(cairn("inspect", "--json", "--decrypt-key", own, program.image).out)["encrypted"], "inspect does not say that it is encrypted")
        program.restore("--decrypt-key", own)
        program.wait_progress(2)
    program.checkpoint("--encrypt-key", own, kill=False)
    program.wait_progress(2)
    finish(program)


@test("an encrypted image shows nothing of the program, is looked at with its key, and brings it back, with every codec")
def as_root():
    need_root()
    round_trip()


@test("an ordinary user's encrypted image brings the program back, with every codec", user=True)
def as_user():
    round_trip()


@test("without the key, with another one, or with one for an image that is not encrypted, nothing is made, and it says what helps")
def wrong_keys():
    program = begin()
    own, other = key("key"), key("other")
    program.checkpoint("--encrypt-key", own, kill=False, image=pathlib.Path("a.cairn").resolve())
    program.checkpoint(image=pathlib.Path("plain.cairn").resolve())
    for word in ("verify", "inspect", "check", "restore"):
        detach = ["-d"] if word == "restore" else []
        fault_line(cairn(word, *detach, "a.cairn"), PERMISSION, "a.cairn", "is encrypted", "--decrypt-key")
        fault_line(cairn(word, *detach, "--decrypt-key", other, "a.cairn"), PERMISSION, "a.cairn", "another key", "try")
        fault_line(cairn(word, *detach, "--decrypt-key", own, "plain.cairn"), IMAGE, "plain.cairn", "not encrypted", "try")
    fault_line(cairn("merge", "a.cairn", "-o", "b.cairn"), PERMISSION, "is encrypted", "--decrypt-key")
    fault_line(cairn("restore", "a.cairn"), FAILURE, "is encrypted")
    fault_line(cairn("run", "--image", "a.cairn", "--resume", "--encrypt-key", other, "--", "true"), FAILURE, "another key")
    check(not os.path.exists("b.cairn"), "a refused merge left something")
    program.restore("--file-changed", "ignore", "--decrypt-key", own, image="a.cairn")
    finish(program)


@test("a key file that others may read, of a wrong size, not random, or missing, is refused before anything is touched", quick=True)
def bad_files():
    need_cairn()
    program = start([WORKER, "1"], "job")
    program.wait_progress(1)
    open_to_all = key("open")
    os.chmod(open_to_all, 0o640)
    cases = ((open_to_all, PERMISSION, "chmod 600"), (key("short", b"short"), USAGE, "32 random bytes"), (key("long", os.urandom(33)), USAGE, "no key"),
             (key("zeros", bytes(32)), USAGE, "again and again"), (key("typed", b"correct horse battery staple 123"), USAGE, "text"),
             (key("digits", b"g" * 64), USAGE, "no key"), (pathlib.Path("missing"), 1, "No such file"), (pathlib.Path("job"), USAGE, "directory"))
    for path, status, words in cases:
        fault_line(cairn("checkpoint", program.pid, "-o", "a.cairn", "--encrypt-key", path), status, path, words, "try")
        check(not os.path.exists("a.cairn"), "there is an image")
        fault_line(cairn("run", "--encrypt-key", path, "--", "true"), FAILURE, path, words)
    hexadecimal = os.urandom(32)
    text = key("hexadecimal", hexadecimal.hex().encode() + b"\n")
    program.checkpoint("--encrypt-key", text, kill=False, image=pathlib.Path("b.cairn").resolve())
    cairn("verify", "--decrypt-key", key("binary", hexadecimal), "b.cairn", status=OK)
    # A key from a program, as with <(pass show ...).
    inherited, ours = os.pipe()
    os.write(ours, hexadecimal)
    os.close(ours)
    cairn("verify", "--decrypt-key", f"/dev/fd/{inherited}", "b.cairn", status=OK, pass_fds=[inherited])
    write(program.path("go"), "")
    program.succeed()


@test("a changed byte anywhere in an encrypted image is found, and a block of another image with the same key too", timeout=300)
def changed():
    program = begin()
    own = key("key")
    images = [pathlib.Path(f"{i}.cairn").resolve() for i in range(2)]
    for image in images:
        program.checkpoint("--encrypt-key", own, "--compress", "none", "--no-live", kill=False, image=image)
    good, other = bytearray(contents(images[0])), contents(images[1])
    source = random.Random(5)
    places = [0, 16, 40, 72, 110, 140, 200, 4090, 4096, 4100, 4112, 4130, 4200, len(good) - 1, len(good) - 10, len(good) - 20, len(good) - 4096, len(good) - 4000]
    places += [source.randrange(len(good)) for _ in range(30)]
    for place in places:
        good[place] ^= 1 << source.randrange(8)
        pathlib.Path("changed.cairn").write_bytes(good)
        good = bytearray(contents(images[0]))
        for word in ("verify", "restore"):
            result = cairn(word, *(["-d", "--file-changed", "ignore"] if word == "restore" else []), "--decrypt-key", own, "changed.cairn")
            check(result.status in (IMAGE, PERMISSION), f"byte {place} of {len(good)}: status {result.status}", result)
    # The same place of two images holds blocks of one length.
    at, length = 4096, int.from_bytes(good[4104:4112], "little")
    equal(other[4104:4112], bytes(good[4104:4112]), "length of the first block")
    check(good[at + 64:at + length] != other[at + 64:at + length], "the same memory is the same bytes in two images")
    good[at:at + length] = other[at:at + length]
    pathlib.Path("changed.cairn").write_bytes(good)
    fault_line(cairn("verify", "--decrypt-key", own, "changed.cairn"), IMAGE, "changed.cairn", "0x1000", "key")
    for cut in (4096, 8192, len(good) // 2 // 4096 * 4096, len(good) - 4096, len(good) - 1):
        pathlib.Path("cut.cairn").write_bytes(contents(images[0])[:cut])
        fault_line(cairn("verify", "--decrypt-key", own, "cut.cairn"), IMAGE, "cut.cairn")
    finish(program)


@test("a chain of encrypted images is restored and folded, stays encrypted, and is not mixed with others")
def chain():
    program = begin()
    own, other = key("key"), key("other")
    images = [pathlib.Path(f"{i}.cairn").resolve() for i in range(3)]
    program.checkpoint("--encrypt-key", own, "--track", kill=False, image=images[0])
    program.wait_progress(2)
    program.checkpoint("--encrypt-key", own, "--track", "--incremental", images[0], kill=False, image=images[1])
    program.wait_progress(2)
    refused = ("checkpoint", program.pid, "-o", "never.cairn", "--incremental")
    fault_line(cairn(*refused, images[1]), PERMISSION, images[1], "is encrypted", "--encrypt-key")
    fault_line(cairn(*refused, images[1], "--encrypt-key", other), PERMISSION, images[1], "another key")
    program.checkpoint(kill=False, image=pathlib.Path("plain.cairn").resolve())
    fault_line(cairn(*refused, "plain.cairn", "--encrypt-key", own), USAGE, "plain.cairn", "not encrypted")
    program.checkpoint("--encrypt-key", own, "--incremental", images[1], image=images[2])
    check(images[2].stat().st_size < images[0].stat().st_size / 3, "the last image holds what has not changed")
    for image in images:
        secret(image)
    program.restore("--decrypt-key", own, image=images[2])
    program.wait_progress(2)
    program.kill()
    cairn("merge", images[2], "--decrypt-key", own, "-o", "whole.cairn", status=OK)
    cairn("merge", images[2], "--decrypt-key", own, "--encrypt-key", other, "-o", "moved.cairn", status=OK)
    cairn("merge", "plain.cairn", "--encrypt-key", own, "-o", "closed.cairn", status=OK)
    for image, its in (("whole.cairn", own), ("moved.cairn", other), ("closed.cairn", own)):
        secret(image)
        cairn("verify", "--decrypt-key", its, image, status=OK)
    for image in images[:2]:
        image.unlink()
    program.restore("--file-changed", "ignore", "--decrypt-key", other, image="moved.cairn")
    program.wait_progress(2)
    finish(program)


@test("an encrypted image is loaded behind the running program, and its key file may be gone meanwhile")
def lazy():
    need_root()
    need_cairn()
    program = start([INSTANT, "chaos"], "chaos")
    program.wait_progress(2)
    for _ in range(3):
        own = key("key")
        program.checkpoint("--timeout", "60", "--encrypt-key", own)
        program.restore("--lazy", "--decrypt-key", own)
        own.unlink()
        program.wait_progress(2)
        check("differs" not in program.text(), "it is not what was saved", program.text()[-800:])
    write(program.path("go"), "")
    program.succeed()


@test("an encrypted image is not mapped but loaded, and a warning says so", quick=True)
def mapped():
    program = begin()
    own = key("key")
    program.checkpoint("--encrypt-key", own, "--compress", "none")
    check("without a key" in program.restore("--lazy=mapped", "--decrypt-key", own).err, "nothing warns")
    program.wait_progress(2)
    finish(program)


@test("an encrypted image goes through pipes")
def pipes():
    program = begin()
    own = key("key")
    with open("piped.cairn", "wb") as out:
        saved = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-o", "-", "--encrypt-key", own, "--kill"], stdout=subprocess.PIPE)
        shutil.copyfileobj(saved.stdout, out)
        equal(saved.wait(), OK, "status of the save")
    program.reap_tree([program.pid])
    secret("piped.cairn")
    with open("piped.cairn", "rb") as image:
        restored = subprocess.run(["sh", "-c", f"cat | {CAIRN} restore -d --pidfile pid --decrypt-key {own} -"], stdin=image, stdout=subprocess.DEVNULL)
    equal(restored.returncode, OK, "status of the restore")
    program.pid = int(pathlib.Path("pid").read_text())
    program.wait_progress(2)
    finish(program)


@test("contents of files that go along are encrypted too", quick=True)
def files():
    need_cairn()
    own = key("key")
    program = start(["sh", "-c", "exec 3>>log; echo a-file-of-secrets >&3; echo ready; while [ ! -e go ]; do sleep 0.02; done; echo end >&3"], "job")
    program.wait_text("ready")
    program.checkpoint("--save-files", "all", "--encrypt-key", own)
    secret(program.image)
    program.path("log").write_text("")
    program.restore("--file-changed", "rollback", "--decrypt-key", own)
    write(program.path("go"), "")
    program.succeed()
    equal(program.path("log").read_text(), "a-file-of-secrets\nend\n", "the log")


@test("a filtered program, which a deputy saves, has an encrypted image", quick=True)
def deputy():
    need_root()
    need_cairn()
    write("job/filtered.py", PROGRAM.replace("import os, select", "import os, select, ctypes, struct\n"
          "code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\n"
          "class P(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('c', ctypes.c_void_p)]\n"
          "libc = ctypes.CDLL(None)\nassert libc.prctl(38, 1, 0, 0, 0) == 0\n"
          "assert libc.prctl(22, 2, ctypes.byref(P(1, ctypes.addressof(code))), 0, 0) == 0"))
    own = key("key")
    program = start([PYTHON, "filtered.py"], "job", env={"SECRET": "an-environment-of-secrets"})
    program.wait_progress(2)
    program.checkpoint("--encrypt-key", own)
    secret(program.image)
    program.restore("--decrypt-key", own)
    program.wait_progress(2)
    finish(program)


@test("a job's checkpoints, periodic and asked for, are encrypted, and it is resumed from them, with the key", user=True)
def job():
    need_cairn()
    own, other = key("key"), key("other")
    image = pathlib.Path("job.image").resolve()
    write("job/program.py", PROGRAM)
    words = ("--name", "hidden", "--image", image, "--every", "0.3", "--keep", "2", "--resume", "--encrypt-key", own, "--", PYTHON, "program.py")
    environment = {"SECRET": "an-environment-of-secrets"}
    program = run(*words, directory="job", env=environment)
    program.wait_progress(3)
    until(lambda: os.path.exists(f"{image}.2"), "chain of encrypted images")
    cairn("checkpoint", "hidden", "-o", "asked.cairn", status=OK)
    cairn("checkpoint", "hidden", "-o", "others.cairn", "--encrypt-key", other, status=OK)
    with open("piped.cairn", "wb") as out:
        subprocess.run([CAIRN, "checkpoint", "hidden", "-o", "-", "--encrypt-key", other], stdout=out, check=True)
    check(own.name not in pathlib.Path(f"/proc/{job_of('hidden')['pid']}/cmdline").read_text(), "the key's name is in the init's argv")
    cairn("kill", "hidden", status=OK)
    program.wait()
    for path, its in ((image, own), (f"{image}.1", own), ("asked.cairn", own), ("others.cairn", other), ("piped.cairn", other)):
        secret(path)
        cairn("verify", "--decrypt-key", its, path, status=OK)
    fault_line(cairn("run", "--name", "hidden", "--image", image, "--resume", "--", "true"), FAILURE, "is encrypted")
    steps = program.lines()
    program = run(*words, directory="job", env=environment)
    program.wait_lines(steps + 3)
    until(lambda: jobs().get("hidden", {}).get("saves"), "a checkpoint of the resumed job")
    write(program.path("go"), "")
    program.succeed()
    program.wait_text("whole")


@test("the library reads a key file and restores an encrypted image; another key is refused", user=True, quick=True)
def library():
    need_cairn()
    program = start([WORKER, "2"], "job")
    program.wait_progress(2)
    own, other = key("key"), key("other")
    program.checkpoint("--encrypt-key", own)
    for words in ((other,), ("missing",), ()):
        refused = start([RESTORER, program.image, *words], f"refused-{len(words)}")
        check(refused.wait() in (1, PERMISSION), "a wrong key is none", refused.text())
    check("No such file" in refused.text() or "is encrypted" in refused.text(), "it does not say why", refused.text())
    restorer = start([RESTORER, program.image, own], "restorer")
    restorer.wait_text("restored 1")
    before = program.lines()
    until(lambda: program.lines() > before + 2, "it goes on")
    write(program.path("go"), "")
    restorer.succeed()


@test("a job that was restored from an encrypted image stays encrypted", user=True, quick=True)
def restored_job():
    program = begin()
    own = key("key")
    program.checkpoint("--encrypt-key", own)
    program.restore("--decrypt-key", own, "--pids", "private")
    name = next(iter(jobs()))
    cairn("checkpoint", name, "-o", "again.cairn", status=OK)
    secret("again.cairn")
    cairn("verify", "--decrypt-key", own, "again.cairn", status=OK)
    finish(program)


if __name__ == "__main__":
    main()
