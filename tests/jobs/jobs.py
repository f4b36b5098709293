#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cairn run: jobs of an ordinary user, and what he can do with them."""
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, OK, PATIENCE, PERMISSION, PYTHON, USAGE, VANISHED, Program, Skip, Terminal, alive,
                        become_ordinary_user, become_subreaper, cairn, check, equal, fault_line, job_of, jobs, main, need, need_cairn, reap, run, sh, start, state,
                        test, tree_of, until, write)

INSTANT = BUILD / "tests" / "badluck" / "instant"
WORKER = BUILD / "tests" / "badluck" / "worker"

# A chain that takes a while, a line a round.
CHAIN = r"""
import hashlib, sys
value = b"start"
for round in range(int(sys.argv[1])):
    for _ in range(4000):
        value = hashlib.sha256(value).digest()
    with open("log", "a") as log:
        log.write(f"{round}\n")
print(value.hex())
"""


@test("a job sees its user's ids, no capabilities, a PID of its own, and its exit status is cairn's", user=True)
def identity():
    need_cairn()
    done = cairn("run", "--", "sh", "-c", "echo $$; id -u; id -g; grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status; exit 7", status=7)
    lines = done.out.split()
    equal(lines[:3], ["2", str(os.getuid()), str(os.getgid())], "PID and ids")
    equal([word for word in lines[3:] if word[0] == "0"], ["0" * 16] * 4, "capability sets")
    equal(cairn("run", "--", "sh", "-c", "kill -9 $$").status, 137, "status of a killed job")
    equal(cairn("run", "--", "./nosuch").status, 125, "status without a command")
    check("nosuch" in cairn("run", "--", "./nosuch").err, "the missing command is not named")


@test("a job keeps the blocked and ignored signals, the descriptors and the environment it was given", user=True)
def transparent():
    need_cairn()
    show = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; pwd; echo $WORD"
    plain = start(["bash", "-c", show], "plain", env={"WORD": "kept"})
    plain.succeed()
    job = run("--", "bash", "-c", show, directory="job", env={"WORD": "kept"})
    job.succeed()
    equal(job.text().replace("/job", "/plain"), plain.text(), "what the command sees")


@test("signals sent to cairn run reach the command, which may handle them", user=True)
def signals():
    need_cairn()
    program = run("--name", "handler", "--", "bash", "-c",
                  "trap 'echo term' TERM; trap 'echo usr1; exit 3' USR1; echo ready; while :; do sleep 0.01; done")
    program.wait_text("ready")
    program.signal(signal.SIGTERM)
    program.wait_text("term\n")
    program.signal(signal.SIGUSR1)
    equal(program.wait(), 3, "exit status")
    check("usr1" in program.text(), "the handler did not run")


@test("a job is listed, saved by its name, killed and restored, twice; two copies run side by side", user=True)
def round_trips():
    need_cairn()
    program = run("--name", "demo", "--", WORKER, "4", directory="job")
    program.wait_lines(3)
    job_of("demo")
    cairn("checkpoint", "demo", "-o", "one.cairn", "--kill", status=OK)
    equal(program.wait(), 137, "exit status of the killed job")
    until(lambda: not jobs(), "the end of the killed job")
    cairn("restore", "-d", "one.cairn", status=OK)
    job_of("demo")
    before = program.lines()
    until(lambda: program.lines() > before + 3, "the restored job goes on")
    cairn("checkpoint", "demo", "-o", "two.cairn", status=OK)
    cairn("restore", "-d", "--file-changed", "ignore", "two.cairn", status=OK)
    both = jobs()
    equal(sorted(both), ["demo", "demo-2"], "jobs")
    equal(both["demo-2"]["restored"], 2, "generation of the second")
    equal(both["demo"]["root"], both["demo-2"]["root"], "PID inside")
    program.path("go").touch()
    until(lambda: reap() or not jobs(), "the end of both")
    check("differs" not in program.text(), "the program noticed", program.text()[-500:])


@test("a program that was started without cairn is saved and restored by its user, also from inside its new namespace", user=True)
def attach():
    need_cairn()
    program = start([WORKER, "4"], "job")
    program.wait_lines(3)
    program.round_trip()
    program.wait_progress(3)
    program.round_trip()
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()


@test("orphans that came to the job's init are saved and restored with it, with their sessions", user=True)
def orphans():
    need_cairn()
    need("setsid")
    write("job.sh", """
(setsid sh -c 'trap "" HUP; (while [ ! -e stop ]; do echo orphan >> log; sleep 0.02; done; echo "$(ps -o sid= -p $$)" > sid) & exec sleep 0.05' &)
while [ ! -e go ]; do sleep 0.02; done
""")
    program = run("--name", "family", "--", "sh", "job.sh")
    program.wait_lines(3, "log")
    job_of("family")
    for number in (1, 2):
        cairn("checkpoint", "family", "-o", f"{number}.cairn", "--kill", status=OK)
        until(lambda: not jobs(), "the end of the job")
        before = program.lines("log")
        cairn("restore", "-d", f"{number}.cairn", status=OK)
        until(lambda: program.lines("log") > before + 2, "the orphan goes on")
    pathlib.Path("stop").touch()
    pathlib.Path("go").touch()
    until(lambda: reap() or not jobs(), "the end")


WIDOW = """
import os, time
PAUSE = 0.01
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(PAUSE)
leader = os.fork()
if not leader:
    os.setsid()
    if os.fork():
        os._exit(7)
    wait_for("go")
    with open("orphan", "w") as out:
        out.write(f"{os.getsid(0)} {os.getpgid(0)} {os.getppid()}")
    os.rename("orphan", "said")
    os._exit(0)
os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
print("ready", leader, flush=True)
wait_for("said")
print("status", os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]), flush=True)
"""


@test("an orphan stays in the session and group of a leader that has ended and is not waited for yet", user=True)
def widowed():
    need_cairn()
    write("widow.py", WIDOW)
    program = run("--name", "widowed", "--", PYTHON, "widow.py")
    program.wait_text("ready")
    leader = program.text().split()[1]
    job_of("widowed")
    for number in (1, 2):
        cairn("checkpoint", "widowed", "-o", f"{number}.cairn", "--kill", status=OK)
        until(lambda: not jobs(), "the end of the job")
        cairn("restore", "-d", f"{number}.cairn", status=OK)
    pathlib.Path("go").touch()
    until(lambda: "status" in program.text(), "the leader's status")
    equal(program.text().split()[-1], "7", "the leader's status")
    equal(pathlib.Path("said").read_text(), f"{leader} {leader} 1", "session, group and parent of the orphan")
    until(lambda: reap() or not jobs(), "the end")


@test("cairn kill ends a job and all its processes; names are checked", user=True)
def kill():
    need_cairn()
    program = run("--name", "victim", "--", "sh", "-c", "sleep 1000 & sleep 1000")
    job_of("victim")
    fault_line(cairn("run", "--name", "victim", "--", "true"), 125, "victim")
    fault_line(cairn("run", "--name", "1234", "--", "true"), 125, "1234")
    fault_line(cairn("run", "--name", "a/b", "--", "true"), 125, "a/b")
    cairn("kill", "victim", status=OK)
    equal(program.wait(), 137, "exit status")
    fault_line(cairn("kill", "victim"), VANISHED, "victim")
    fault_line(cairn("checkpoint", "victim", "-o", "x"), VANISHED, "victim")


@test("a job dies with the cairn that runs it, and leaves nothing", user=True)
def killed():
    need_cairn()
    program = run("--name", "orphaned", "--", "sleep", "1000")
    pid = job_of("orphaned")["pid"]
    program.signal(signal.SIGKILL)
    until(lambda: reap() or not alive(pid), "the end of the command")
    program.wait()
    until(lambda: not jobs(), "the end of the job")


@test("the same command line completes a computation over any number of kills, bit by bit", user=True, timeout=240)
def completes():
    need_cairn()
    write("chain.py", CHAIN)
    write("reference/finish", "")
    reference = start([PYTHON, "../chain.py", "900"], "reference")
    reference.succeed()
    dice = random.Random(7)
    image = pathlib.Path("job/job.image")
    words = ["--image", "job.image", "--every", "0.3", "--keep", "3", "--resume", "--on-signal", "TERM", "--exit-after-checkpoint",
             "--", PYTHON, "../chain.py", "900"]
    kills = lost = 0
    while True:
        rounds = program.text("log").splitlines() if kills else []
        program = run(*words, directory="job")
        if kills:
            until(lambda: reap() or not alive(program.pid) or program.lines("log") > len(rounds), "the first round of a resumed run")
            repeated = len(rounds) and int(rounds[-1]) + 1 - int(program.text("log").splitlines()[len(rounds)])
            check(repeated >= 0 and (not graceful or repeated == 0), f"{repeated} rounds were lost after a "
                  f"{'SIGTERM' if graceful else 'SIGKILL'}")
        wanted = dice.randrange(40, 260)
        begin = program.lines("log")
        until(lambda: reap() or not alive(program.pid) or program.lines("log") >= begin + wanted, "progress")
        if not alive(program.pid):
            equal(program.wait(), 0, "exit status of the last run")
            break
        graceful = dice.random() < 0.5
        age = time.time() - image.stat().st_mtime if image.exists() else 0
        # One period, and what a save and this busy machine may take.
        check(age < 0.3 + 2 * PATIENCE, f"the last image is {age:.2f} s old: more than a period's work would be lost")
        program.signal(signal.SIGTERM if graceful else signal.SIGKILL)
        status = program.wait()
        check(status in ((85, 0) if graceful else (-9,)), f"exit status {status} after a {'SIGTERM' if graceful else 'SIGKILL'}",
              program.text("err"))
        if status == 0:
            break
        kills += 1
        lost += not graceful
        until(lambda: not jobs(), "the end of the job")
    check(kills >= 2, f"only {kills} kills")
    equal(program.text().splitlines()[-1], reference.text().strip(), "the result")


@test("a periodic save that fails leaves the job running and the last image whole, and is said", user=True)
def disk_full():
    need_cairn()
    program = run("--name", "stubborn", "--image", "images/job.image", "--every", "0.1", "--", WORKER, "4", directory="job")
    program.wait_text("stubborn failed", "err")
    program.path("images").mkdir()
    until(lambda: program.path("images/job.image").exists(), "the first image")
    program.path("images").rename(program.path("elsewhere"))
    seen = program.text("err").count("failed")
    until(lambda: program.text("err").count("failed") > seen, "another failure")
    program.wait_progress(3)
    cairn("verify", program.path("elsewhere/job.image"), status=OK)
    program.path("go").touch()
    program.succeed()


@test("a periodic save onto a disk that is full is said, leaves the last image whole and nothing beside it, and the job runs on")
def no_space():
    need_cairn()
    if os.getuid() != 0:
        raise Skip("needs root to mount a small file system")
    pathlib.Path("small").mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "small")
    program = run("--name", "full", "--image", os.path.abspath("small/job.image"), "--every", "0.1", "--", WORKER, "4", directory="job")
    until(lambda: os.path.exists("small/job.image") or "fail" in program.text("err"), "the first image")
    check("fail" not in program.text("err"), program.text("err"))
    try:
        with open("small/filler", "wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
    except OSError:
        pass
    program.wait_text("No space left", "err")
    cairn("verify", "small/job.image", status=OK)
    equal(sorted(os.listdir("small")), ["filler", "job.image"], "what is there")
    program.wait_progress(3)
    os.unlink("small/filler")
    saves = jobs()["full"]["saves"]
    until(lambda: jobs()["full"]["saves"] > saves, "the next image")
    program.path("go").touch()
    program.succeed()
    sh("umount", "small")


@test("an older generation is restored when the youngest image is damaged", user=True)
def damaged():
    need_cairn()
    words = ["--name", "older", "--image", "job.image", "--every", "0.1", "--keep", "2", "--resume", "--", WORKER, "4"]
    program = run(*words, directory="job")
    until(lambda: program.path("job.image.1").exists(), "two generations")
    program.signal(signal.SIGKILL)
    program.wait()
    until(lambda: not jobs(), "the end of the job")
    with open(program.path("job.image"), "r+b") as image:
        image.truncate(5000)
    program = run(*words, directory="job")
    program.wait_text("older generation", "err")
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()


@test("periodic saves of a large job hold only what was written, are a chain of bounded length, and each brings it back", user=True, timeout=240)
def periodic():
    need_cairn()
    words = ["--name", "chain", "--image", "job.image", "--every", "0.1", "--keep", "2", "--resume", "--", INSTANT, "sparse"]
    program = run(*words, directory="job")
    names = lambda: sorted((name for name in os.listdir("job") if name.startswith("job.image") and name != "job.image.next"))
    for kills in range(3):
        begin = jobs()["chain"]["saves"] if kills else 0
        until(lambda: "chain" in jobs() and jobs()["chain"]["saves"] >= begin + (11 if kills == 0 else 3), "saves", 120)
        program.signal(signal.SIGKILL)
        program.wait()
        until(lambda: not jobs(), "the end of the job")
        sizes = {name: program.path(name).stat().st_size for name in names()}
        check(2 <= len(sizes) <= 12, f"generations: {sizes}")
        check(min(sizes.values()) * 2 < max(sizes.values()), f"no image is small: {sizes}")
        for name in ("job.image", "job.image.1"):
            cairn("verify", program.path(name), status=OK)
        check("differs" not in program.text() and not program.text("err"), "something is wrong", program.text() + program.text("err"))
        seen = program.lines()
        program = run(*words, directory="job")
        until(lambda: program.lines() > seen + 3 or "differs" in program.text(), "progress", 60)
    program.path("go").touch()
    program.succeed()
    check("differs" not in program.text(), "what came back differs", program.text())


@test("checkpoints of a job that are asked for at once, beside its periodic ones, are made one after the other; those after its end are told", user=True)
def in_line():
    need_cairn()
    program = run("--name", "busy", "--image", "job.image", "--every", "0.05", "--", INSTANT, "sparse", directory="job")
    until(lambda: "busy" in jobs() and jobs()["busy"]["saves"] >= 1, "a save")

    def ask(name, *options):
        return subprocess.Popen([CAIRN, "checkpoint", "busy", "-o", f"{name}.cairn", "-q", *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for asked in [ask(f"all{number}") for number in range(5)]:
        words = asked.communicate()[1]
        equal((asked.returncode, words), (OK, b""), "status")
    gone = ask("gone")
    gone.kill()
    gone.communicate()
    last = [ask("first"), ask("killed", "--kill"), ask("late1"), ask("late2")]
    for asked in last:
        words = asked.communicate()[1]
        check(asked.returncode == OK or asked is not last[1] and (b"ended" in words or b"no job" in words), "status", asked.returncode, words)
    program.wait()
    until(lambda: not jobs(), "the end of the job")
    for name in ("all0", "all4", "killed"):
        cairn("verify", f"{name}.cairn", status=OK)
    seen = program.text().count("round")
    cairn("restore", "killed.cairn", "-d", status=OK)
    until(lambda: program.text().count("round") > seen + 2, "progress")
    check("differs" not in program.text(), "what came back differs", program.text())
    cairn("kill", "busy", status=OK)


@test("a file that is no image keeps its name and its contents beside a job's images", user=True)
def foreign():
    need_cairn()
    write("job/job.image.1", "somebody else's\n")
    program = run("--name", "beside", "--image", "job.image", "--every", "0.1", "--", INSTANT, "sparse", directory="job")
    until(lambda: "beside" in jobs() and jobs()["beside"]["saves"] >= 4, "saves", 60)
    program.path("go").touch()
    program.succeed()
    equal(program.path("job.image.1").read_text(), "somebody else's\n", "the file")
    cairn("verify", program.path("job.image"), status=OK)
    equal(sorted(name for name in os.listdir("job") if name.startswith("job.image")), ["job.image", "job.image.1"], "files")


@test("a job in the foreground of a terminal is stopped by ^Z, goes on with fg and is interrupted by ^C", user=True)
def terminal():
    need_cairn()
    shell = Terminal()
    shell.type(f"{CAIRN} run --name tty -- bash -c 'trap \"echo got; exit 5\" INT; echo up; while :; do sleep 0.01; done'")
    shell.expect("up")
    os.write(shell.master, b"\x1a")
    shell.expect("Stopped")
    shell.type("fg")
    pid = job_of("tty")["pid"]
    until(lambda: state(pid) in ("S", "R"), "the job goes on")
    os.write(shell.master, b"\x03")
    shell.expect("got")
    shell.expect("ready> ")
    shell.type("echo status=$?")
    shell.expect("status=5")
    shell.close()


@test("with the one file capability an ordinary user restores at the old PIDs of the host, and gets nothing over others")
def file_capability():
    need_cairn()
    need("setcap")
    if os.getuid() != 0:
        raise Skip("needs root to set a file capability")
    other = start([WORKER, "4"], "other")
    other.wait_lines(1)
    # Not in the working directory: /dev/shm is mounted nosuid, where file capabilities do not count.
    with tempfile.TemporaryDirectory(prefix="cairn-test-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        own = pathlib.Path(directory) / "cairn"
        shutil.copy(CAIRN, own)
        sh("setcap", "cap_checkpoint_restore+ep", own)
        as_the_user(own, other)


def as_the_user(own, other):
    child = os.fork()
    if child == 0:
        # Another user's part, in a process of its own: afterwards this one has to end what root has started.
        try:
            Program.running.clear()
            become_ordinary_user()
            become_subreaper()
            with_the_capability(own, other)
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        finally:
            sys.stdout.flush()
            os._exit(1)
    equal(os.waitpid(child, 0)[1], 0, "status of the ordinary user's part")


def with_the_capability(own, other):
    def capable(*words):
        return subprocess.run([own, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
    program = start([WORKER, "4"], "job")
    program.wait_lines(3)
    pid = program.pid
    for _ in range(2):
        tree = tree_of(pid)
        done = capable("checkpoint", pid, "-o", "own.cairn", "--kill")
        equal(done.returncode, OK, f"status of the checkpoint ({done.stderr})")
        program.reap_tree(tree)
        done = capable("restore", "-d", "own.cairn")
        equal((done.returncode, done.stdout.strip()), (OK, str(pid)), f"status of the restore ({done.stderr}), and the PID")
        equal(os.readlink(f"/proc/{pid}/ns/pid"), os.readlink("/proc/self/ns/pid"), "PID namespace")
        program.wait_progress(3)
        capabilities = re.findall(r"Cap(?:Prm|Eff|Inh|Amb):\s(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        equal(capabilities, ["0" * 16] * 4, "capabilities of the restored program")
    for words in (["checkpoint", other.pid, "-o", "other.cairn"], ["checkpoint", other.pid, "--kill", "-o", "other.cairn"]):
        done = capable(*words)
        equal(done.returncode, PERMISSION, f"status of {words} ({done.stderr})")
    check(alive(other.pid) and not pathlib.Path("other.cairn").exists(), "another user's process was touched")
    program.path("go").touch()
    program.succeed()


@test("bad words on the command line of run are refused", user=True)
def usage():
    need_cairn()
    for words in (["--every", "10"], ["--on-signal", "USR1"], ["--resume"], ["--exit-after-checkpoint"],
                  ["--image", "x", "--on-signal", "KILL"], ["--image", "x", "--on-signal", "NONE"]):
        fault_line(cairn("run", *words, "--", "true"), 125)
    equal(cairn("init", "3").status, USAGE, "status of init by hand")


if __name__ == "__main__":
    main()
