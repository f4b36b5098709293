#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Files on an overlay, whose numbers are not those of the file systems below."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import PYTHON, Skip, check, main, need_cairn, need_root, start, test, write

SCRIPT = r"""
import ctypes, os, struct, time
PAUSE = 0.002
os.chdir("merged")
lower = open("lower", "r+")                    # read only so far: of the lower file system
lower.seek(3)
changed = open("changed", "a+")                # copied up
changed.write("more\n"); changed.flush()
new = open("new", "w+"); new.write("new one\n"); new.flush()
gone = open("gone", "r+"); os.unlink("gone")   # deleted, with its contents below
there = os.open("directory", os.O_RDONLY)
renamed = open("old-name", "r"); os.rename("old-name", "new-name")
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
for number, name in enumerate((b".", b"changed", b"lower"), 1):
    assert libc.inotify_add_watch(watch, name, 0x102) == number  # IN_MODIFY, IN_CREATE
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(PAUSE)
assert lower.tell() == 3 and lower.read() == "er contents\n", "lower"
lower.seek(0, 2); lower.write("written at last\n"); lower.flush()
assert open("lower").read() == "lower contents\nwritten at last\n", "lower, written"
changed.seek(0)
assert changed.read() == "changed\nmore\n", "changed"
new.write("and more\n"); new.flush()
assert open("new").read() == "new one\nand more\n", "new"
assert gone.read() == "gone\n" and not os.path.exists("gone"), "gone"
assert os.listdir(there) == ["entry"], "directory"
assert renamed.read() == "renamed\n" and os.path.exists("new-name"), "renamed"
for one, name in ((lower, "lower"), (changed, "changed"), (new, "new"), (renamed, "new-name")):
    assert os.fstat(one.fileno()).st_ino == os.stat(name).st_ino, name
assert os.getcwd().endswith("merged")
changed.write("again\n"); changed.flush()
open("made", "w").close()
seen, data = set(), os.read(watch, 65536)
while data:
    number, mask, _, size = struct.unpack_from("iIII", data)
    seen.add((number, mask, data[16:16 + size].rstrip(b"\0")))
    data = data[16 + size:]
for event in ((2, 2, b""), (1, 2, b"changed"), (1, 0x100, b"made"), (3, 2, b""), (1, 2, b"lower")):
    assert event in seen, (event, seen)
print("all", flush=True)
"""


@test("files on an overlay, from below, copied up, new, deleted and renamed, stay what they are, and are watched")
def overlay():
    need_cairn()
    need_root()
    subprocess.run(["mount", "-t", "tmpfs", "none", "."], check=True) # an overlay's upper layer cannot be on another overlay
    os.chdir(os.getcwd())
    for name in ("low/directory", "upper", "work", "merged"):
        os.makedirs(name)
    for name, text in (("lower", "lower contents"), ("changed", "changed"), ("gone", "gone"), ("old-name", "renamed"), ("directory/entry", "")):
        write(f"low/{name}", text + "\n")
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=low,upperdir=upper,workdir=work", "merged"],
                          stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Skip(f"overlayfs: {done.stderr}")
    write("job.py", SCRIPT)
    program = start([PYTHON, "job.py"])
    program.wait_text("ready")
    for _ in range(2):
        program.round_trip()
    program.path("merged/go").touch()
    program.succeed()
    check("all" in program.text(), "wrong output", program.text(), program.text("err"))


if __name__ == "__main__":
    main()
