#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Images that others could have written, or put in place: root does not restore them without --trust-image. And that of its own images
others see nothing."""
import pathlib
import stat
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import os
import shutil
import subprocess

from cairn_test import (BUILD, CAIRN, OK, PERMISSION, cairn, check, children_of, equal, fault_line, main, need, need_cairn, need_root,
                        start, test, until)

WORKER = BUILD / "tests" / "badluck" / "worker"
SOMEBODY = 54321
RESTORE = f"{CAIRN} restore -d --file-changed ignore"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "SUDO_UID"}


def saved(path="image.cairn"):
    """The image's path; the program waits in it to be restored."""
    need_cairn()
    need_root()
    program = start([WORKER, "1"], "job")
    program.wait_text("ready")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    program.checkpoint(image=path)
    return program


def refused(program, image, *named, sudo_uid=None):
    environment = {**ENVIRONMENT, **({"SUDO_UID": str(sudo_uid)} if sudo_uid else {})}
    result = cairn("restore", "-d", image, env=environment)
    line = fault_line(result, PERMISSION, image, *named)
    check("--trust-image" in line, "the remedy is not named", line)
    check(not children_of(os.getpid()), "a process remains", result)


def accepted(program, image, *options, sudo_uid=None):
    environment = {**ENVIRONMENT, **({"SUDO_UID": str(sudo_uid)} if sudo_uid else {})}
    result = cairn("restore", "-d", "--file-changed", "ignore", *options, image, env=environment, status=OK)
    program.pid = int(result.out)
    program.wait_progress(1)
    program.kill()


@test("as root, an image that belongs to somebody else or that others may write is refused without --trust-image", quick=True)
def files():
    program = saved()
    for owner, mode in ((SOMEBODY, 0o600), (0, 0o620), (0, 0o602)):
        os.chown("image.cairn", owner, 0)
        os.chmod("image.cairn", mode)
        refused(program, "image.cairn")
    accepted(program, "image.cairn", "--trust-image")
    os.chmod("image.cairn", 0o644)
    accepted(program, "image.cairn")


@test("as root, an image in a directory that others may change is refused, wherever above it that is", quick=True)
def directories():
    program = saved("above/beside/image.cairn")
    here = os.getcwd()
    for directory in ("above/beside", "above"):
        for owner, mode, named in ((0, 0o777, "written to by others"), (0, 0o770, "written to by others"),
                                   (SOMEBODY, 0o700, f"user {SOMEBODY}"), (SOMEBODY, 0o1777, f"user {SOMEBODY}")):
            os.chown(directory, owner, 0)
            os.chmod(directory, mode)
            refused(program, "above/beside/image.cairn", f"{here}/{directory} ", named)
            refused(program, f"{here}/above/./beside/../beside/image.cairn", f"{here}/{directory} ", named)
        os.chown(directory, 0, 0)
        os.chmod(directory, 0o755)
    accepted(program, "above/beside/image.cairn")
    os.chmod("above/beside", 0o777)
    accepted(program, "above/beside/image.cairn", "--trust-image")


@test("as root, an image of root's in a sticky directory such as /tmp is restored, unless the way there is somebody's", quick=True)
def sticky():
    program = saved("tmp/mine/image.cairn")
    shutil.copy2("tmp/mine/image.cairn", "tmp/image.cairn")
    os.chmod("tmp", 0o1777)
    accepted(program, "tmp/image.cairn")
    accepted(program, "tmp/mine/image.cairn")
    os.chown("tmp/mine", SOMEBODY, 0)
    refused(program, "tmp/mine/image.cairn", "tmp/mine")


@test("as root, a symbolic link to an image is followed, unless somebody else could have made it", quick=True)
def links():
    program = saved("safe/image.cairn")
    os.mkdir("tmp")
    os.chmod("tmp", 0o1777)
    os.symlink("safe/image.cairn", "relative.cairn")
    os.symlink(os.path.abspath("safe"), "absolute")
    os.symlink("../safe/image.cairn", "tmp/mine.cairn")
    os.symlink("../safe/image.cairn", "tmp/theirs.cairn")
    os.symlink("../safe", "tmp/theirs")
    for link in ("tmp/theirs.cairn", "tmp/theirs"):
        os.chown(link, SOMEBODY, SOMEBODY, follow_symlinks=False)
    for path in ("relative.cairn", "absolute/image.cairn", "tmp/mine.cairn"):
        accepted(program, path)
    # Where fs.protected_symlinks is set, the kernel refuses these itself.
    for path in ("tmp/theirs.cairn", "tmp/theirs/image.cairn"):
        result = cairn("restore", "-d", path, env=ENVIRONMENT)
        fault_line(result, PERMISSION, path)
    os.symlink("loop", "loop")
    check(cairn("restore", "-d", "loop").status != OK, "a loop of links")


@test("who became root by sudo may keep images in his own directories; another user may not", quick=True)
def sudo():
    program = saved("home/image.cairn")
    os.chown("home", SOMEBODY, SOMEBODY)
    os.chmod("home", 0o775)
    refused(program, "home/image.cairn")
    refused(program, "home/image.cairn", sudo_uid=SOMEBODY + 1)
    accepted(program, "home/image.cairn", sudo_uid=SOMEBODY)
    os.chown("home", SOMEBODY, SOMEBODY + 1)
    refused(program, "home/image.cairn", "by others", sudo_uid=SOMEBODY)
    os.chown("home/image.cairn", SOMEBODY, SOMEBODY)
    os.chmod("home", 0o755)
    refused(program, "home/image.cairn", "belong to root", sudo_uid=SOMEBODY)


@test("as root, an image from standard input, a FIFO or a shell's <(command) is restored", quick=True)
def streams():
    program = saved("image.cairn")
    os.chmod("image.cairn", 0o600)
    for script in (f"{RESTORE} - <image.cairn", f"cat image.cairn | {RESTORE} -",
                   f"{RESTORE} <(cat image.cairn)", f"{RESTORE} /dev/stdin <image.cairn",
                   f"mkfifo -m 600 fifo; cat image.cairn >fifo & {RESTORE} fifo"):
        done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=ENVIRONMENT)
        check(done.returncode == 0, script, done.stderr.decode())
        program.pid = int(done.stdout)
        program.wait_progress(1)
        program.kill()


@test("images are for their owner alone, whatever the umask is and whatever was there before", quick=True)
def modes():
    need_cairn()
    program = start([WORKER, "1"], "job")
    program.wait_text("ready")
    for umask in (0, 0o022, 0o077, 0o777):
        for before in (None, 0o666):
            if before is not None:
                os.chmod("image.cairn", before)
            elif os.path.exists("image.cairn"):
                os.unlink("image.cairn")
            cairn("checkpoint", program.pid, "-o", "image.cairn", status=OK, umask=umask)
            equal(oct(stat.S_IMODE(os.stat("image.cairn").st_mode)), oct(0o600), f"mode under umask {umask:#o}")
    program.path("go").touch()
    program.succeed()


OWN_FILES = """import os, socket, sys, threading
os.setgid(54321)
os.setuid(54321)
os.umask(0)
if sys.argv[1] == "fifo":
    os.mkfifo("name", 0o666)
    held = os.open("name", os.O_RDWR)
else:
    held = socket.socket(socket.AF_UNIX)
    held.bind("name")
    held.listen()
    os.chmod("name", 0o666)
print("ready", flush=True)
threading.Event().wait()
"""


@test("as root, who replaces a FIFO or a socket in his own directory, when a restore has just made it, gets no other file by that", quick=True)
def replaced():
    need_cairn()
    need_root()
    need("strace")
    for what in ("fifo", "socket"):
        os.makedirs(what)
        os.chown(what, SOMEBODY, SOMEBODY)
        victim = pathlib.Path(f"{what}-victim").resolve()
        victim.write_text("root's")
        victim.chmod(0o600)
        program = start([sys.executable, "-c", OWN_FILES, what], what)
        program.wait_text("ready")
        program.checkpoint(image=f"{what}.cairn")
        name = program.path("name")
        name.unlink()
        # Time enough between what is made and its mode.
        slow = "lchown,chown,fchownat,chmod,fchmodat"
        restoring = subprocess.Popen(["strace", "-f", "-qq", "-o", f"{what}.trace", "-e", f"trace={slow}", "-e", f"inject={slow}:delay_exit=300000:delay_enter=300000", CAIRN,
                                      "restore", "-d", f"{what}.cairn"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: os.path.lexists(name), "what the restore makes")
        name.rename(f"{name}-away")
        name.symlink_to(victim)
        restoring.wait(60)
        equal((victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)), (0, 0o600), f"owner and mode of root's file, in place of a {what}")
        subprocess.run(["kill", "-9", str(program.pid)], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
