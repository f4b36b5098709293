#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that wake up elsewhere: after a reboot, with other clocks, in a network of their own."""
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (OK, PYTHON, USAGE, Skip, alive, become_ordinary_user, cairn, check, equal, fault_line, jobs, main, need, need_cairn,
                        need_root, proc_status, reap, run, start, test, until, write)

# The monotonic clock, a line each 10 ms.
CLOCK = """
import os, time
from time import sleep as pause
while not os.path.exists("finish"):
    print(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
    pause(.01)
"""


def gap(program, lines, column=0):
    """Seconds by its clock between line number `lines`, its last before the save, and the next."""
    program.wait_lines(lines + 2)
    text = program.text().splitlines()
    return float(text[lines].split()[column]) - float(text[lines - 1].split()[column])


def dead_for(seconds):
    since = time.monotonic()
    until(lambda: time.monotonic() > since + seconds, "some time to pass")


def saved_and_dead():
    program = start([PYTHON, "-c", CLOCK], "job")
    program.wait_lines(3)
    program.checkpoint()
    dead_for(3)
    return program, program.lines()


@test("--clock continue lets the monotonic clock go on where it stood, also at the next save; advance gives the host's", user=True)
def clocks():
    need_cairn()
    program, lines = saved_and_dead()
    program.restore("--pids", "private", "--clock", "continue", "--file-changed", "ignore")
    for column in (0, 1):
        check(0 <= gap(program, lines, column) < 2.5, "the clock did not stand still", gap(program, lines, column))
    # On the same boot its namespace's offset stays, so the three seconds do.
    program.checkpoint()
    lines = program.lines()
    program.restore("--file-changed", "ignore")
    check(gap(program, lines) >= 0, "the clock went back", gap(program, lines))
    program.checkpoint()
    dead_for(3)
    lines = program.lines()
    program.restore("--clock", "advance", "--file-changed", "ignore")
    check(gap(program, lines) >= 3, "the clock stood still", gap(program, lines))
    fault_line(cairn("restore", "-d", "--pids", "same", "--clock", "continue", program.image), USAGE, "--clock")
    program.finish()


def with_other_boot(function):
    """As if this host were another boot of itself."""
    place = "/proc/sys/kernel/random/boot_id"
    write("boot_id", "01234567-89ab-cdef-0123-456789abcdef\n")
    subprocess.run(["mount", "--bind", "boot_id", place], check=True)
    try:
        function()
    finally:
        subprocess.run(["umount", place], check=True)


def on_another_boot(name):
    program = start([PYTHON, "-c", CLOCK], name)
    program.wait_lines(3)
    with_other_boot(program.checkpoint)
    # Other processes have its number meanwhile.
    last = pathlib.Path("/proc/sys/kernel/ns_last_pid")
    last.write_text(str(program.pid - 1))
    squatter = start(["sleep", "1000"], "squatter")
    equal(squatter.pid, program.pid, "PID of the squatter")
    dead_for(3)
    return program, squatter, program.lines()


@test("after a reboot a program finds its old PID, though another has it now, and its clocks where they stood", serial=True)
def reboot():
    need_cairn()
    need_root()
    program, squatter, lines = on_another_boot("root")
    old = program.pid
    program.restore("--file-changed", "ignore")
    equal(program.inner_pid(), old, "PID")
    check(program.init and alive(squatter.pid), "the old PID's new owner")
    check(0 <= gap(program, lines) < 2.5, "the clock did not stand still", gap(program, lines))
    program.finish()
    # The old PIDs here, and with them this boot's clocks: said, and done.
    program, squatter, lines = on_another_boot("same")
    squatter.kill()
    done = program.restore("--pids", "same", "--file-changed", "ignore")
    check("clocks" in done.err, "nothing is said of the clocks", done)
    check(gap(program, lines) >= 3, "the clock stood still", gap(program, lines))
    program.finish()


@test("after a reboot an ordinary user's program comes back too", serial=True)
def reboot_user():
    need_cairn()
    need_root()
    write("boot_id", "01234567-89ab-cdef-0123-456789abcdef\n")
    place = "/proc/sys/kernel/random/boot_id"
    subprocess.run(["mount", "--bind", "boot_id", place], check=True)
    worker = os.fork()
    if worker == 0:
        # The user's part before the reboot; root has to take the mask away, which a fresh /proc would not be allowed beside.
        become_ordinary_user()
        program = start([PYTHON, "-c", CLOCK], "job")
        program.wait_lines(3)
        program.checkpoint()
        os._exit(0)
    status = os.waitpid(worker, 0)[1]
    subprocess.run(["umount", place], check=True)
    equal(status, 0, "the user's part before the reboot")
    dead_for(3)
    become_ordinary_user()
    from cairn_test import Program
    program = Program(0, "job")
    program.image = program.path("image-1.cairn")
    lines = program.lines()
    program.restore("--file-changed", "ignore")
    check(0 <= gap(program, lines) < 2.5, "the clock did not stand still", gap(program, lines))
    program.finish()


# ---- a network of its own ----

def private_tun():
    """/dev/net/tun as most systems have it: open to all."""
    need("mknod")
    if os.getuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"], check=True)
        subprocess.run(["mknod", "-m", "666", "/dev/net/tun", "c", "10", "200"], check=True)


TALK = r"""
import os, socket, threading
from time import sleep as pause
server = socket.create_server(("127.0.0.1", 0))
def serve():
    peer, _ = server.accept()
    while True:
        data = peer.recv(100)
        if not data: return
        peer.sendall(data.upper())
threading.Thread(target=serve, daemon=True).start()
client = socket.create_connection(server.getsockname())
number = 0
while not os.path.exists("finish"):
    client.sendall(b"line %d" % number)
    print(client.recv(100).decode(), flush=True)
    number += 1
    pause(.02)
print(os.readlink("/proc/self/ns/net"), flush=True)
"""


@test("cairn run --net: a network of its own with a loopback; what is missing for the way out is said", user=True)
def network():
    need_cairn()
    program = run("--net", "--", PYTHON, "-c", TALK, env={"PATH": "/nosuch"})
    program.wait_text("LINE 5")
    if os.getuid():
        check("pasta is not installed" in program.text("err") and "passt" in program.text("err"), "nothing is said of pasta", program.text("err"))
    program.finish()
    check(program.text().splitlines()[-1] != os.readlink("/proc/self/ns/net"), "it is in the host's network")


@test("connections within a --net job survive, without privileges, twice", user=True)
def connections():
    need_cairn()
    program = run("--net", "--name", "talk", "--", PYTHON, "-c", TALK, directory="talk", env={"PATH": "/nosuch"})
    program.wait_text("LINE 5")
    for _ in range(2):
        done = cairn("checkpoint", "talk", "--kill", "-o", program.path("talk.cairn"))
        check(done.status == OK, "the checkpoint", done)
        until(lambda: reap() or not jobs(), "the end of the job")
        before = program.lines()
        cairn("restore", "-d", "--file-changed", "ignore", program.path("talk.cairn"), status=OK)
        until(lambda: program.lines() > before + 5, "the conversation goes on: " + program.text("err"))
    program.path("finish").touch()
    until(lambda: reap() or not jobs(), "the end")
    lines = [line for line in program.text().splitlines() if line.startswith("LINE")]
    check(lines == [f"LINE {n}" for n in range(len(lines))], "what was said", lines[-20:])


@test("a --net job has a way out by pasta, ends it with itself, and gets both again at a restore", serial=True)
def way_out():
    need_cairn()
    need_root()
    need("pasta", "ip")
    private_tun()
    become_ordinary_user()
    own = os.readlink("/proc/self/ns/net")
    program = run("--net", "--name", "net", "--image", "net.cairn", "--", "sh", "-c",
                  "readlink /proc/self/ns/net; while [ ! -e finish ]; do cat /proc/net/route > route; sleep .02; done", directory="net")
    program.wait_lines(1)
    check(own not in program.text(), "it is in the host's network")
    if "no way out" in program.text("err"):
        raise Skip("pasta does not work here: " + program.text("err"))
    until(lambda: program.lines("route") >= 2, "a route")
    check(watchers(), "nobody watches over pasta")
    cairn("checkpoint", "net", "--kill", status=OK)
    program.wait()
    until(lambda: reap() or not watchers(), "the end of pasta")
    before = program.path("route").stat().st_mtime_ns
    cairn("restore", "-d", "--file-changed", "ignore", program.path("net.cairn"), status=OK)
    until(lambda: program.path("route").stat().st_mtime_ns > before and program.lines("route") >= 2, "a route after the restore")
    check(watchers(), "nobody watches over the new pasta")
    program.path("finish").touch()
    until(lambda: reap() or not (jobs() or watchers()), "the end of all")


def watchers():
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if (proc_status(pid) or {}).get("Name") in ("cairn-net", "pasta", "pasta.avx2") and (proc_status(pid) or {}).get("State", "Z")[0] != "Z"]


if __name__ == "__main__":
    main()
