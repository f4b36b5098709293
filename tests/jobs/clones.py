#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cairn restore --clones N: several of one image, which share its memory copy-on-write."""
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, LONG, PYTHON, alive, cairn, check, children_of, equal, free_port, jobs, main, need_cairn, need_root, proc_status,
                        reap, start, test, tree_of, until, wait_gone, write)

INSTANT = BUILD / "tests" / "badluck" / "instant"
CLONER = BUILD / "tests" / "jobs" / "cloner"
MIB = 1 << 20

# A tree: two processes that are no relatives in memory (one is executed), a pipe, a socket pair and shared memory between them. Counts, and says so;
# what it writes to its memory is its own.
TREE = """
import mmap, os, socket, subprocess, sys, time
PAUSE = 0.003
data = bytearray(os.urandom(16 << 20))
shared = mmap.mmap(-1, 4096)
here, there = socket.socketpair()
child = subprocess.Popen([sys.executable, "-c", '''
import os, socket, sys
data = bytearray(os.urandom(8 << 20))
kept = bytes(data[::4096])
link = socket.socket(fileno=int(sys.argv[1]))
while True:
    word = link.recv(8)
    if not word:
        break
    assert bytes(data[::4096]) == kept
    os.write(1, word)
''', str(there.fileno())], pass_fds=[there.fileno()], stdout=subprocess.PIPE)
there.close()
kept = bytes(data[::4096])
count = 0
while not os.path.exists("go"):
    here.send(b"%08d" % count)
    assert child.stdout.read(8) == b"%08d" % count
    assert int.from_bytes(shared[:8], "little") == count
    count += 1
    shared[:8] = count.to_bytes(8, "little")
    data[count % 4096 * 4096 + 1] ^= 255
    if count % 10 == 0:
        assert bytes(data[::4096]) == kept
        print("round", count, flush=True)
    time.sleep(PAUSE)
here.close()
sys.exit(child.wait())
"""


def holder(mebibytes, directory="job"):
    code = (f"import os, sys, time\nPAUSE = 0.01\ndata = bytearray(os.urandom({mebibytes} << 20))\nprint('begin', flush=True)\n"
            "while not os.path.exists('go'): time.sleep(PAUSE)\nsys.exit(0 if len(data) else 1)\n")
    program = start([PYTHON, "-c", code], directory)
    program.wait_text("begin")
    return program


def clone(program, count, *options, status=0):
    result = cairn("restore", "-d", "--json", "--clones", str(count), *options, program.image, status=status)
    found = [json.loads(line) for line in result.out.splitlines()]
    if status == 0:
        equal([one["clone"] for one in found], list(range(1, count + 1)), "numbers")
    return found


def kilobytes(pid, what):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(what))


def end_all(found):
    """By the init of each, all of a clone at once: who outlived its root for a moment would complain of a broken pipe, into the file that all share."""
    inits = [int(proc_status(one["pid"])["PPid"]) for one in found if alive(one["pid"])]
    for init in inits:
        os.kill(init, signal.SIGKILL)
    wait_gone(inits)


def left_over():
    reap()
    return [pid for pid in tree_of(os.getpid())[1:] if (proc_status(pid) or {}).get("Name", "").startswith("cairn")]


def sharing(*options):
    need_cairn()
    program = holder(200)
    program.checkpoint()
    begin = time.monotonic()
    single = []
    for _ in range(10):
        single += [json.loads(cairn("restore", "-d", "--json", "--pids", "private", *options, program.image, status=0).out)]
    one_by_one = time.monotonic() - begin
    end_all(single)
    begin = time.monotonic()
    found = clone(program, 10, *options)
    together = time.monotonic() - begin
    print(f"10 restores of 200 MiB: {one_by_one:.2f} s one by one, {together:.2f} s as clones")
    for one in found:
        pid = one["pid"]
        check(kilobytes(pid, "Rss:") > 200 * 1024, "it has not its memory", kilobytes(pid, "Rss:"))
        check(kilobytes(pid, "Pss:") < 40 * 1024, "its memory is not shared", kilobytes(pid, "Pss:"))
        check(kilobytes(pid, "Private") < 10 * 1024, "it has much of its own", kilobytes(pid, "Private"))
    check(together < one_by_one, "clones take longer than single restores", together, one_by_one)
    first, *others = found
    # The last one has it alone.
    end_all(others)
    until(lambda: kilobytes(first["pid"], "Pss:") > 190 * 1024, "memory of the last one")
    end_all([first])


@test("ten clones of a program have its 200 MB once, and are there sooner than ten restores", serial=True)
def memory():
    need_root()
    sharing("--trust-image")


@test("the same as an ordinary user", serial=True, user=True)
def memory_of_user():
    sharing()


def apart(what, *options):
    """Each goes its own way; one that is killed harms no other, and each can be saved and brought back."""
    need_cairn()
    program = start([INSTANT, what], what)
    program.wait_progress(2)
    program.checkpoint()
    found = clone(program, 4, "--fd", f"1={program.directory}/out-%n", "--file-changed", "ignore", *options)
    def text(number):
        return program.text(f"out-{number}")
    for number in range(1, 5):
        until(lambda: text(number).count("round") >= 2, f"clone {number}")
    os.kill(found[0]["pid"], signal.SIGKILL)
    image = program.path("second.cairn")
    cairn("checkpoint", found[1]["name"], "-o", str(image), "--kill", status=0)
    again = json.loads(cairn("restore", "-d", "--json", *options, "--pids", "private", str(image), status=0).out)
    rounds = {number: text(number).count("round") for number in range(1, 5)}
    for number in (2, 3, 4):
        until(lambda: text(number).count("round") >= rounds[number] + 2, f"clone {number}")
    until(lambda: not alive(found[0]["pid"]) and not alive(found[1]["pid"]), "end of two")
    for number in range(1, 5):
        check("differs" not in text(number), "its memory is not what it was", text(number)[-600:])
    write(program.path("go"), "")
    wait_gone([pid for pid in left_over()])
    check(again["pid"] not in (one["pid"] for one in found), "it is another one")


@test("clones that map, move, protect and give back their memory, and fork, are not in each other's way; each is saved and restored by itself")
def chaos():
    need_root()
    apart("fork", "--trust-image")


@test("the same as an ordinary user", user=True)
def chaos_of_user():
    apart("fork")


@test("processes that share one memory are cloned with it", user=True)
def one_memory():
    apart("shared")


@test("an encrypted image is cloned by who has its key, and by nobody else", user=True)
def encrypted():
    need_cairn()
    with open(os.open("key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as key:
        key.write(os.urandom(32))
    program = start([INSTANT, "chaos"], "encrypted")
    program.wait_progress(2)
    program.checkpoint("--encrypt-key", "key")
    refused(program, 2, status=4, words="--decrypt-key")
    found = clone(program, 3, "--decrypt-key", "key", "--fd", f"1={program.directory}/out-%n", "--file-changed", "ignore")
    for number in (1, 2, 3):
        until(lambda: program.text(f"out-{number}").count("round") >= 2, f"clone {number}")
        check("differs" not in program.text(f"out-{number}"), "its memory is not what it was")
    end_all(found)


@test("in each clone of a tree its pipes, sockets, shared memory and processes are its own", user=True)
def tree():
    need_cairn()
    program = start([PYTHON, "-c", TREE], "tree")
    program.wait_progress(5)
    for _ in range(8 if LONG else 2):
        program.checkpoint()
        found = clone(program, 3, "--fd", f"1={program.directory}/out-%n", "--file-changed", "ignore")
        for one in found:
            equal(len(children_of(one["pid"])), 1, "children of a clone")
            until(lambda: program.text(f"out-{one['clone']}").count("round") >= 3, f"clone {one['clone']}")
        equal(program.text("err"), "", "standard error")
        # One of them is the next one to be cloned.
        program.pid, program.init = found[1]["pid"], int(proc_status(found[1]["pid"])["PPid"])
        end_all([found[0], found[2]])
        for number in (1, 3):
            os.unlink(program.path(f"out-{number}"))
    write(program.path("go"), "")
    program.succeed()


@test("in the foreground signals come to all clones, each one's end is told, and the status is that of the first that failed", user=True)
def foreground():
    need_cairn()
    code = ("import os, signal, sys, time\nPAUSE = 0.01\nends = []\nsignal.signal(signal.SIGTERM, lambda *_: ends.append(1))\nprint('begin', flush=True)\n"
            "while not ends: time.sleep(PAUSE)\nsys.exit(7 if os.path.exists('fails') else 0)\n")
    program = start([PYTHON, "-c", code], "foreground")
    program.wait_text("begin")
    program.checkpoint()
    for wanted in (0, 7):
        if wanted:
            write(program.path("fails"), "")
        with subprocess.Popen([CAIRN, "restore", "--clones", "3", "--json", program.image], stdout=subprocess.PIPE, text=True) as process:
            events = [json.loads(process.stdout.readline()) for _ in range(3)]
            equal([one["event"] for one in events], ["restore"] * 3, "events")
            process.send_signal(signal.SIGTERM)
            ends = [json.loads(line) for line in process.stdout]
            equal(process.wait(), wanted, "exit status")
        equal(sorted(one["clone"] for one in ends if one["event"] == "ended"), [1, 2, 3], "ends")
        equal([one["status"] for one in ends], [wanted] * 3, "statuses")
    # It is killed, and all of them with it.
    with subprocess.Popen([CAIRN, "restore", "--clones", "2", "--json", program.image], stdout=subprocess.PIPE, text=True) as process:
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.kill()
    until(lambda: not [one for one in events if alive(one["pid"])], "end of the clones")


@test("clones are jobs with names of their own, and their PIDs are printed and written", user=True)
def names():
    need_cairn()
    program = holder(1)
    pid = program.pid
    program.checkpoint()
    result = cairn("restore", "-d", "--clones", "2", "--pidfile", "pids", program.image, status=0)
    equal(result.out, pathlib.Path("pids").read_text(), "what is printed and what is written")
    listed = jobs()
    equal(sorted(listed), [f"python3-{pid}-1", f"python3-{pid}-2"], "names")
    equal(sorted(one["pid"] for one in listed.values()), sorted(map(int, result.out.split())), "PIDs")
    for name in listed:
        cairn("kill", name, status=0)
    until(lambda: not jobs(), "end of all jobs")


def refused(program, count, *options, status, words):
    result = cairn("restore", "-d", "--clones", str(count), *options, program.image)
    equal(result.status, status, "exit status")
    check(words in result.err, f"no '{words}'", result)
    equal(left_over(), [], "processes of Cairn")
    return result


@test("an address that one clone has no other can have: none of them runs", user=True)
def address():
    need_cairn()
    port = free_port()
    code = ("import os, socket, time\nPAUSE = 0.01\nserver = socket.create_server(('127.0.0.1', %d))\nprint('begin', flush=True)\n"
            "while not os.path.exists('go'): time.sleep(PAUSE); print('runs', flush=True)\n") % port
    program = start([PYTHON, "-c", code], "address")
    program.wait_text("runs")
    program.checkpoint()
    before = program.text()
    refused(program, 2, status=1, words=f"{port}")
    equal(program.text(), before, "what it has written")
    end_all(clone(program, 1))


@test("a TCP connection to the outside is refused by name, unless it is closed")
def connection():
    need_cairn()
    need_root()
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = ("import os, socket, time\nPAUSE = 0.01\nlink = socket.create_connection(('127.0.0.1', %d))\nprint('begin', flush=True)\n"
                "while not os.path.exists('go'): time.sleep(PAUSE)\n") % server.getsockname()[1]
        program = start([PYTHON, "-c", code], "connection")
        peer = server.accept()[0]
        program.wait_text("begin")
        program.checkpoint("--tcp", "established")
        refused(program, 2, "--trust-image", status=3, words="connected to the outside can go on in one program only; try --tcp close")
        end_all(clone(program, 2, "--trust-image", "--tcp", "close"))
        cairn("check", "--repair")
        peer.close()


@test("of an image that is cloned with --once there are no more clones", user=True)
def once():
    need_cairn()
    program = holder(1)
    program.checkpoint()
    end_all(clone(program, 2, "--once"))
    refused(program, 2, "--once", status=1, words="restored")
    os.unlink(f"{program.image}.restored")


@test("what does not go together with clones is wrong usage, and a damaged or missing image says what it is", user=True, quick=True)
def usage():
    need_cairn()
    program = holder(4)
    program.checkpoint()
    for words in (["0"], ["20000"], ["x"], ["2", "--lazy"], ["2", "--lazy=mapped"], ["2", "--pids", "same"], ["2", "--pids", "any"], ["2", "--file-changed", "rollback"]):
        result = cairn("restore", "-d", "--clones", *words, program.image, status=2)
        check("--clones" in result.err, "no reason", result)
    cairn("restore", "-d", "--clones", "2", "missing.cairn", status=1)
    size = os.path.getsize(program.image)
    with open(program.image, "r+b") as image:
        image.seek(size // 2)
        image.write(b"damage")
    refused(program, 2, status=6, words="checksum")


@test("cairn that is killed while it makes clones leaves nothing", user=True)
def killed():
    need_cairn()
    program = holder(30)
    program.checkpoint()
    chance = random.Random(1)
    for _ in range(60 if LONG else 15):
        process = subprocess.Popen([CAIRN, "restore", "--clones", "4", program.image], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.random() * 0.2)
        except subprocess.TimeoutExpired:
            pass
        for pid in [process.pid] if chance.random() < 0.6 else left_over()[:1 + chance.randrange(3)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.kill()
        process.wait()
        until(lambda: not left_over(), "end of all that it has made")
    end_all(clone(program, 2))


@test("the library makes clones", user=True)
def library():
    need_cairn()
    program = holder(20)
    program.checkpoint()
    cloner = start([CLONER, program.image, "3"], "cloner")
    cloner.wait_text("runs")
    write(program.path("go"), "")
    cloner.succeed()
    equal(cloner.text().split()[-1], "ended", "its last word")
    equal(start([CLONER, "missing.cairn", "3"], "cloner").wait(), 1, "status for an image that is missing")


if __name__ == "__main__":
    main()
