#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What else can be asked of jobs and restores: standard output, check by name, jobs in jobs, other files, once."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, FAILED, OK, PYTHON, UNSUPPORTED, USAGE, alive, cairn, check, equal, fault_line, job_of, jobs, main, need, need_cairn, need_root,
                        reap, run, sh, start, test, until, write)

WORKER = BUILD / "tests" / "badluck" / "worker"
RESTORER = BUILD / "tests" / "jobs" / "restorer"


@test("a job is saved to standard output, into a pipe, and restored from standard input", user=True)
def streams():
    need_cairn()
    program = run("--name", "streamed", "--", WORKER, "4", directory="job")
    program.wait_lines(3)
    job_of("streamed")
    image = subprocess.run(f"{CAIRN} checkpoint streamed -o - --kill | cat > piped.cairn; exit ${{PIPESTATUS[0]}}", shell=True,
                           executable="/bin/bash", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    equal(image.returncode, 0, image.stderr)
    program.wait()
    cairn("verify", "piped.cairn", status=OK)
    before = program.lines()
    with open("piped.cairn", "rb") as stream:
        done = subprocess.run([CAIRN, "restore", "-d", "-"], stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    equal(done.returncode, 0, done.stderr)
    until(lambda: program.lines() > before + 3, "it goes on")
    program.path("go").touch()
    until(lambda: reap() or not jobs(), "the end")
    check("differs" not in program.text(), "the program noticed")


CLIENT = """
import os, socket, sys, time
PAUSE = 0.002
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(PAUSE)
try:
    print("got", c.recv(100), flush=True)
except ConnectionResetError:
    print("reset", flush=True)
"""


@test("cairn run --every --tcp close: the checkpoints that it makes take connections to the outside as the user says", user=True)
def policies():
    need_cairn()
    server = socket.create_server(("127.0.0.1", 0))
    os.mkdir("job")
    write("job/client.py", CLIENT)
    command = [PYTHON, "client.py", server.getsockname()[1]]
    done = cairn("run", "--image", "image.cairn", "--every", "1", "--tcp", "established", "--", *command)
    check(done.status == 125 and "--exit-after-checkpoint=any" in done.err, "established without an end", done)
    program = run("--name", "client", "--image", "image.cairn", "--every", "0.3", "--tcp", "close", "--", *command, directory="job")
    program.wait_text("ready")
    peer, _ = server.accept()
    until(lambda: os.path.exists("job/image.cairn"), "a checkpoint")
    peer.sendall(b"still here")
    program.path("go").touch()
    program.succeed()
    check("got b'still here'" in program.text(), "the program noticed", program.text())
    again = run("--name", "client", "--image", "image.cairn", "--resume", "--", *command, directory="job")
    again.succeed()
    check("reset" in again.text(), "wrong output of what was restored", again.text(), again.text("err"))


@test("cairn check NAME looks at a job without touching it, and names what stands against its checkpoint", user=True)
def check_by_name():
    need_cairn()
    need("strace")
    program = run("--name", "fine", "--", WORKER, "4", directory="job")
    program.wait_lines(3)
    job_of("fine")
    done = cairn("check", "fine", status=OK)
    check("nothing stands against a checkpoint" in done.out, "the answer", done)
    equal(json.loads(cairn("check", "--json", "fine", status=OK).out)["ok"], True, "ok")
    cairn("check", jobs()["fine"]["pid"], status=OK)
    equal(jobs()["fine"]["saves"], 0, "saves after a check")
    other = run("--name", "poor", "--", "strace", "-o", "/dev/null", "sh", "-c", "echo up; while [ ! -e finish ]; do sleep .01; done", directory="poor")
    other.wait_lines(1)
    fault_line(cairn("check", "poor"), UNSUPPORTED, "traced", several=True)
    fault_line(cairn("check", "nosuchjob"), FAILED, "nosuchjob")
    other.finish()
    program.path("go").touch()
    program.succeed()


@test("a job with thousands of faults tells as many as an answer holds, and how many more there are", user=True)
def many_faults():
    need_cairn()
    files = 3000
    program = run("--name", "faulty", "--", PYTHON, "-c", f"""
import resource, signal
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
files = [open("/proc/self/ns/uts") for _ in range({files})]
print("ready", flush=True)
signal.pause()
""")
    program.wait_text("ready")
    job_of("faulty")
    result = cairn("checkpoint", "faulty", "-o", "image.cairn")
    fault_line(result, UNSUPPORTED, "a UTS namespace", several=True)
    lines = result.err.splitlines()
    equal(re.fullmatch(r"cairn: and (\d+) faults more.*", lines[-1])[1], str(files - len(lines) + 1), "faults that are not told")
    cairn("kill", "faulty", status=OK)


@test("a System V segment that nobody has attached is a job's, and comes back with it, twice", user=True)
def unattached():
    need_cairn()
    need("ipcrm")
    program = run("--name", "left", "--", BUILD / "tests" / "kinds" / "sysv_shm", "left")
    program.wait_text("ready")
    job_of("left")
    for number in (1, 2):
        cairn("checkpoint", "left", "-o", f"{number}.cairn", "--kill", status=OK)
        until(lambda: not jobs(), "the end of the job")
        sh("ipcrm", "--all")
        cairn("restore", "-d", f"{number}.cairn", status=OK)
    write("go", "")
    until(lambda: reap() or not jobs(), "the end")
    check("all as it was" in program.text(), "the segment is not as it was", program.text())


@test("a job within a job works and is saved by its own name; the outer one says why it cannot be", user=True)
def nested():
    need_cairn()
    outer = run("--name", "outer", "--", CAIRN, "run", "--name", "inner", "--image", "inner.cairn", "--", WORKER, "4", directory="job")
    outer.wait_lines(3)
    job_of("inner")
    fault_line(cairn("checkpoint", "outer", "-o", "outer.cairn"), UNSUPPORTED, "namespace", several=True)
    check(not os.path.exists("outer.cairn"), "there is an image")
    cairn("checkpoint", "inner", status=OK)
    cairn("verify", "job/inner.cairn", status=OK)
    # A restore from within a job, too.
    before = outer.lines()
    inside = run("--name", "restorer", "--", "sh", "-c", f"exec {CAIRN} restore --file-changed ignore job/inner.cairn", directory=".")
    until(lambda: len(jobs()) == 4, "the copy in the other job: " + inside.text("err"))
    until(lambda: outer.lines() > before + 3, "both go on")
    outer.path("go").touch()
    outer.succeed()
    inside.succeed()


@test("libcairn's restore into a namespace works from a build folder, with the cairn beside it", user=True)
def library():
    need_cairn()
    program = start([WORKER, "4"], "job")
    program.wait_lines(3)
    program.checkpoint()
    restorer = start([RESTORER, program.image], "restorer")
    restorer.wait_text("restored 1")
    before = program.lines()
    until(lambda: program.lines() > before + 3, "it goes on")
    program.path("go").touch()
    restorer.succeed()


@test("what libcairn changes of its caller, limits, dumpable flag, memory policy and processors, is put back", quick=True)
def caller():
    need_root()
    program = start([WORKER, "4", "plain", "direct"], "job")
    program.wait_lines(3)
    calling = start([BUILD / "tests" / "jobs" / "caller", program.pid, "image.cairn"], "caller")
    calling.wait_text("restored\n")
    before = program.lines()
    until(lambda: program.lines() > before + 3, "it goes on")
    program.path("go").touch()
    calling.succeed()


LOGGER = r"""
import os, sys
from time import sleep as pause
if os.fork() == 0:
    os.execvp("sh", ["sh", "-c", "while [ ! -e finish ]; do echo child; sleep .02; done"])
number = 0
while not os.path.exists("finish"):
    print("line", number, flush=True)
    number += 1
    pause(.02)
os.wait()
print("input", sys.stdin.readline().strip(), flush=True)
"""


@test("--fd gives a descriptor another file, in the whole tree that shares it, and needs the old one no more", user=True)
def other_files():
    need_cairn()
    write("job/input", "old\n")
    write("input", "new\n")
    program = start([PYTHON, "-c", LOGGER], "job", stdin="input")
    program.wait_lines(6)
    program.checkpoint()
    kept = program.text()
    program.path("out").unlink()
    program.path("input").unlink()
    write("log", "before\n")
    fault_line(cairn("restore", "-d", program.image), FAILED, "missing", several=True)
    fault_line(cairn("restore", "-d", "--fd", "77=log", program.image), USAGE, "77")
    fault_line(cairn("restore", "-d", "--fd", "log", program.image), USAGE, "log")
    for way in (["--pids", "private"], []):
        shutil.copy("log", "log.kept")
        program.restore("--fd", f"1={os.path.abspath('log')}", "--fd", f"0={os.path.abspath('input')}", *way)
        lines = pathlib.Path("log").read_text().count("\n")
        until(lambda: pathlib.Path("log").read_text().count("\n") > lines + 6, "the new log grows")
        check(pathlib.Path("log").read_text().startswith(pathlib.Path("log.kept").read_text()), "the new log's old lines")
        check("child" in pathlib.Path("log").read_text(), "the child does not write there")
        program.checkpoint()
    program.restore()
    program.finish()
    equal(pathlib.Path("log").read_text().splitlines()[-1], "input new", "what it reads")
    check(kept.startswith("line 0") or kept.startswith("child"), "the old log")


@test("--once: an image that was restored is refused, racing restores cannot both have it, failures do not count", user=True)
def once():
    need_cairn()
    program = start([WORKER, "4"], "job")
    program.wait_lines(3)
    program.checkpoint()
    # One that fails leaves no mark.
    program.path("out").rename(program.path("elsewhere"))
    fault_line(cairn("restore", "-d", "--once", program.image), FAILED, "missing")
    check(not os.path.exists(f"{program.image}.restored"), "a failure left a mark")
    program.path("elsewhere").rename(program.path("out"))
    racers = [subprocess.Popen([CAIRN, "restore", "-d", "--once", "--pids", "private", "--file-changed", "ignore", program.image], text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    ends = [one.communicate() + (one.returncode,) for one in racers]
    equal(sorted(end[2] for end in ends), [OK] + [FAILED] * 5, f"statuses of six that race ({ends})")
    equal(len(jobs()), 1, "copies that run")
    line = fault_line(cairn("restore", "-d", "--once", "--file-changed", "ignore", program.image), FAILED, "was restored")
    check("--once" in line, "the remedy", line)
    cairn("restore", "-d", "--file-changed", "ignore", program.image, status=OK)
    fault_line(cairn("restore", "-d", "--once", "-"), USAGE, "--once")
    for name in jobs():
        cairn("kill", name, status=OK)
    until(lambda: reap() or not jobs(), "the end of all")
    # A dead Cairn's empty mark does not count; nor does that of another image.
    again = start([WORKER, "4"], "again")
    again.wait_lines(3)
    again.checkpoint(image=program.image)
    cairn("restore", "-d", "--once", "--file-changed", "ignore", program.image, status=OK)
    again.path("go").touch()
    until(lambda: reap() or not jobs() and not alive(again.pid), "the end")
    pathlib.Path(f"{program.image}.restored").write_text("")
    again.path("go").unlink()
    cairn("restore", "-d", "--once", "--file-changed", "ignore", program.image, status=OK)
    again.path("go").touch()
    until(lambda: reap() or not jobs() and not alive(again.pid), "the end")
    os.unlink(f"{program.image}.restored")


if __name__ == "__main__":
    main()
