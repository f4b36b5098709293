#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The examples for batch systems, each driven until its computation is complete, and compared with an undisturbed run."""
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (BUILD, CAIRN, DRY, REPOSITORY, USER, Skip, alive, check, equal, jobs, main, need, need_cairn, need_root, reap, start, test,
                        tree_of, undisturbed, until, write)

CHAIN = BUILD / "tests" / "jobs" / "chain"
EXAMPLES = REPOSITORY / "examples"
ROUNDS = "600"


def wanted(rounds=ROUNDS):
    return undisturbed([CHAIN, rounds], "reference").text()


def same(got, reference, what):
    if got != reference:
        lines = got.splitlines()
        raise AssertionError(f"{what}: {len(lines)} lines, wanted {reference.count(chr(10))}; last: {lines[-3:]}")


def wait_for_lines(path, count, program=None):
    def there():
        text = path.read_text() if path.exists() else ""
        reap()
        return text.count("\n") >= count or (program and not alive(program.pid))
    until(there, f"{count} lines in {path}", 120)
    return path.read_text().count("\n") if path.exists() else 0


@test("HTCondor's contract: a starter that transfers checkpoint files, evicts and moves completes the job", user=True, timeout=300)
def htcondor():
    need_cairn()
    reference = wanted()
    submit = dict(line.split("=", 1) for line in (EXAMPLES / "htcondor/job.sub").read_text().splitlines() if "=" in line and line[0] != "#")
    submit = {key.strip(): value.strip() for key, value in submit.items()}
    again = int(submit["checkpoint_exit_code"])
    files = [name.strip() for name in submit["transfer_checkpoint_files"].split(",")]
    spool = pathlib.Path("spool")
    spool.mkdir()
    dice = random.Random(3)
    exits = {again: 0, -9: 0}
    for number in range(60):
        # As the starter does: a new directory with the input files and what the last checkpoint left.
        scratch = pathlib.Path(f"execute/dir_{number}")
        scratch.mkdir(parents=True)
        shutil.copy(CHAIN, scratch / "my-program")
        shutil.copy(EXAMPLES / "htcondor/job.sh", scratch)
        for name in os.listdir(spool):
            shutil.copy(spool / name, scratch)
        program = start(["./job.sh", "./my-program", ROUNDS], scratch, env={"CAIRN": CAIRN, "EVERY": "0.8"})
        begin = (scratch / "out.txt").read_text().count("\n") if (scratch / "out.txt").exists() else 0
        fate = dice.choice(["stay", "evict", "vanish"])
        if fate != "stay":
            wait_for_lines(scratch / "out.txt", begin + dice.randrange(10, 80), program)
            try:
                program.signal(signal.SIGTERM if fate == "evict" else signal.SIGKILL)
            except ProcessLookupError:
                pass
        status = program.wait()
        exits[status] = exits.get(status, 0) + 1
        check(status in (0, again, -9), f"exit status {status}", program.text("err"), program.text("err.txt"))
        if status == 0:
            break
        until(lambda: reap() or not jobs(), "the end of the job")
        if status == again:
            for name in files:
                shutil.copy(scratch / name, spool)
        shutil.rmtree(scratch)
    check(exits[again] >= 2, "too few checkpoints", exits)
    same((scratch / "out.txt").read_text(), reference, "out.txt")


@test("make completes a result over runs that are killed", user=True, timeout=240)
def makefile():
    need_cairn()
    need("make")
    reference = wanted()
    shutil.copy(EXAMPLES / "make/Makefile", ".")
    dice = random.Random(5)
    for number in range(60):
        program = start(["make", f"result-{ROUNDS}", f"COMMAND={CHAIN}", f"CAIRN={CAIRN}", "EVERY=0.3"], ".")
        part = pathlib.Path(f"result-{ROUNDS}.part")
        begin = part.read_text().count("\n") if part.exists() else 0
        wait_for_lines(part, begin + dice.randrange(60, 200), program)
        if not alive(program.pid):
            break
        for pid in tree_of(program.pid):
            if dice.random() < 0.3:
                with contextlib.suppress(ProcessLookupError):  # with a job's init the whole job ends
                    os.kill(pid, signal.SIGKILL)
        program.signal(signal.SIGTERM)
        program.wait()
        until(lambda: reap() or not jobs(), "the end of the job")
    equal(program.wait(), 0, "exit status of the last make")
    check(number >= 2, "it was killed too seldom")
    same(pathlib.Path(f"result-{ROUNDS}").read_text(), reference, "the result")
    check(not pathlib.Path(f"result-{ROUNDS}.cairn").exists(), "the image is still there")


# ---- daemons, as root in the test's own namespaces ----

mounted = []


def unmount():
    while mounted:
        subprocess.run(["umount", "--lazy", mounted.pop()], check=True)


def ordinary_user():
    """One whom the daemons know, with a home of his own: in this mount namespace only."""
    home = pathlib.Path("home").resolve()
    home.mkdir(exist_ok=True)
    home.parent.chmod(0o711)
    os.chown(home, USER, USER)
    passwd = write("passwd", pathlib.Path("/etc/passwd").read_text() + f"batcher:x:{USER}:{USER}::{home}:/bin/bash\n")
    group = write("group", pathlib.Path("/etc/group").read_text() + f"batcher:x:{USER}:\n")
    for path, place in ((passwd, "/etc/passwd"), (group, "/etc/group")):
        subprocess.run(["mount", "--bind", path, place], check=True)
        mounted.append(place)
    for parent in [home, *home.parents]:
        if not os.stat(parent).st_mode & 1:
            raise Skip(f"{parent} is closed to an ordinary user")
    return home


def as_user(*words, directory, **environment):
    return subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *map(str, words)], cwd=directory, text=True,
                          env={**os.environ, "HOME": str(directory), **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)


SLURM = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={here}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPort={port}
SlurmdPort={port_d}
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
SlurmdSpoolDir={here}/spool
StateSaveLocation={here}/state
SlurmctldLogFile={here}/slurmctld.log
SlurmdLogFile={here}/slurmd.log
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=5
MinJobAge=300
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=localhost CPUs=1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    import socket
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def start_slurm(here):
    port, port_d = free_ports(2)
    for name in ("spool", "state"):
        (here / name).mkdir()
    write(here / "munge.key", "0123456789abcdef" * 8, 0o400)
    write(here / "slurm.conf", SLURM.format(here=here, port=port, port_d=port_d))
    write(here / "cgroup.conf", "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    os.environ["SLURM_CONF"] = str(here / "slurm.conf")
    daemons = [start(["munged", "-F", "--force", f"--socket={here}/munge.socket", f"--key-file={here}/munge.key", f"--pid-file={here}/munged.pid",
                      f"--log-file={here}/munged.log", f"--seed-file={here}/munged.seed"], "munged")]
    until(lambda: (here / "munge.socket").exists(), "munged", 20)
    daemons.append(start(["slurmctld", "-D", "-i"], "slurmctld"))
    daemons.append(start(["slurmd", "-D", "-N", "localhost"], "slurmd"))
    def idle():
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip() == "idle"
    try:
        until(idle, "an idle node", 60)
    except Exception:
        raise Skip(f"slurm does not start here: {(here / 'slurmctld.log').read_text()[-300:]} {(here / 'slurmd.log').read_text()[-300:]}") from None
    return daemons


@test("Slurm: a job that is signalled, saved and requeued, and one that loses its node, complete", timeout=400)
def slurm():
    need_cairn()
    need_root()
    need("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
    try:
        under_slurm()
    finally:
        unmount()


def under_slurm():
    here = pathlib.Path("slurm").resolve()
    here.mkdir()
    home = ordinary_user()
    reference = wanted()
    daemons = start_slurm(here)
    shutil.copy(EXAMPLES / "slurm/job.sbatch", home)
    done = as_user("sbatch", "--output=out", "--time=10", "job.sbatch", CHAIN, ROUNDS, directory=home, CAIRN=CAIRN, EVERY="0.5")
    number = re.search(r"Submitted batch job (\d+)", done.stdout)
    check(number, "sbatch did not take it", done.stdout)
    number = number.group(1)

    def show(what):
        done = subprocess.run(["scontrol", "-o", "show", "job", number], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        found = re.search(rf"\b{what}=(\S+)", done.stdout)
        return found.group(1) if found else ""
    results = home / "out"
    lines = wait_for_lines(results, 60)
    # What Slurm does 60 s before the time limit.
    subprocess.run(["scancel", "--signal=USR1", "--batch", number], check=True)
    until(lambda: show("Restarts") == "1", "the first requeue", 90)
    lines = wait_for_lines(results, lines + 40)
    # A preemption: requeued from outside, with SIGTERM and SIGKILL.
    subprocess.run(["scontrol", "requeue", number], check=True)
    until(lambda: show("Restarts") == "2", "the second requeue", 90)
    until(lambda: show("JobState") in ("COMPLETED", "FAILED"), "the end", 200)
    text = results.read_text()
    equal((show("JobState"), show("ExitCode")), ("COMPLETED", "0:0"), "how it ended: " + text[-500:])
    same("".join(line + "\n" for line in text.splitlines() if re.match(r"^\d+ [0-9a-f]{16}$", line)), reference, "out")
    for one in reversed(daemons):
        one.kill()


@test("a systemd user service goes on where it was after stops, kills and a restart of the manager", timeout=240)
def systemd():
    need_cairn()
    need_root()
    need("/lib/systemd/systemd", "systemctl", "setpriv")
    try:
        under_systemd()
    finally:
        unmount()


def under_systemd():
    home = ordinary_user()
    rounds = "2500"  # more than the commands of systemctl take time for
    reference = wanted(rounds)
    group = private_systemd()
    units, work = home / ".config/systemd/user", home / "jobs/chain"
    for path in (units, work):
        path.mkdir(parents=True)
    unit = (EXAMPLES / "systemd/cairn-job@.service").read_text()
    unit = unit.replace("ExecStart=cairn", f"ExecStart={CAIRN}").replace("--every 10m", "--every 0.5").replace("RestartSec=5", "RestartSec=0")
    write(units / "cairn-job@.service", unit)
    write(work / "command", f"exec {CHAIN} {rounds}\n")
    for path in [home, *home.rglob("*")]:
        os.chown(path, USER, USER)

    def control(*words):
        return as_user("systemctl", "--user", *words, directory=home, XDG_RUNTIME_DIR=f"/run/user/{USER}").stdout.strip()

    def manager():
        started = start(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "/lib/systemd/systemd", "--user", "--log-target=console"],
                        "manager", env={"HOME": str(home), "XDG_RUNTIME_DIR": f"/run/user/{USER}"})
        until(lambda: control("is-system-running") in ("running", "degraded") or not alive(started.pid), "the manager", 30)
        return started
    try:
        running = manager()
        if not alive(running.pid):
            raise Skip("systemd --user does not start here: " + running.tail()[-300:])
        service = "cairn-job@chain.service"
        control("start", service)
        lines = wait_for_lines(work / "out", 40)
        control("stop", service)
        equal(control("is-active", service), "inactive", "state after a stop: " + control("status", service))
        check((work / "job.cairn").exists(), "it was not saved at the stop", control("status", service), (work / "err").read_text())
        control("start", service)
        lines = wait_for_lines(work / "out", lines + 40)
        os.kill(int(control("show", "--value", "-p", "MainPID", service)), signal.SIGKILL)
        lines = wait_for_lines(work / "out", lines + 60)
        running.signal(signal.SIGTERM)  # a shutdown
        running.wait()
        running = manager()
        control("start", service)
        until(lambda: (work / "done").exists(), "the end", 120)
        until(lambda: control("is-active", service) == "inactive", "the end of the service")
        check(not (work / "job.cairn").exists(), "the image is still there")
        same((work / "out").read_text(), reference, "out")
        running.signal(signal.SIGTERM)
        running.wait()
    finally:
        (group.parent / "cgroup.procs").write_text("0")
        (group / "cgroup.kill").write_text("1")
        until(lambda: reap() or remove_group(group), "the end of all in the control group", 10)


def private_systemd():
    """What systemd --user wants to see: a booted system, a runtime directory, a control group of its own."""
    for words in (["-t", "tmpfs", "tmpfs", "/run"], ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]):
        if subprocess.run(["mount", *words], stderr=subprocess.DEVNULL).returncode:
            raise Skip("no control groups, version 2, here")
        mounted.append(words[3])
    runtime = pathlib.Path(f"/run/user/{USER}")
    for path in (runtime, pathlib.Path("/run/systemd/system")):
        path.mkdir(parents=True)
    runtime.chmod(0o700)
    os.chown(runtime, USER, USER)
    group = pathlib.Path(f"/sys/fs/cgroup/cairn-test-{os.path.basename(os.getcwd())}")
    group.mkdir()
    (group / "cgroup.procs").write_text("0")
    for path in [group, *group.iterdir()]:
        os.chown(path, USER, USER)
    return group


def remove_group(group):
    for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        try:
            path.rmdir()
        except OSError:
            pass
    try:
        group.rmdir()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
