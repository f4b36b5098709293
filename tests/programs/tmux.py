#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tmux as a whole, its server with panes in which vim, less, top and a shell run, driven by its own client."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import check, equal, main, need, start, test, until, write


def tmux(*words):
    done = subprocess.run(["tmux", "-S", "socket", *words], cwd="job", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=20)
    return done.stdout.decode(errors="replace")


def screen(pane):
    return tmux("capture-pane", "-p", "-t", f"t.{pane}")


def shows(pane, words):
    until(lambda: words in screen(pane), f"'{words}' in pane {pane}; there is:\n{screen(pane)}", 10)


@test("tmux with vim, less, top and a shell goes on in every pane after two restores")
def tmux_():
    need("tmux", "vim.tiny", "less", "top", "bash")
    os.environ.update(TERM="screen", SHELL="/bin/sh")
    os.environ.pop("TMUX", None)
    write("job/text", "".join(f"line {number}\n" for number in range(1, 500)))
    write("job/edited", "first\nlast\n")
    program = start(["tmux", "-D", "-S", "socket", "-f", "/dev/null"], "job")
    until(lambda: pathlib.Path("job/socket").exists(), "tmux's socket")
    tmux("new-session", "-d", "-s", "t", "-x", "120", "-y", "40", "vim.tiny edited")
    tmux("split-window", "-t", "t", "-v", "less text")
    tmux("split-window", "-t", "t", "-h", "top -d 1")
    tmux("split-window", "-t", "t", "-v", "bash --norc")
    shows(0, "last")
    shows(1, "line 3")
    shows(2, "load average")
    tmux("send-keys", "-t", "t.0", "ounsaved words")
    tmux("send-keys", "-t", "t.1", "100g")
    # What is typed before cat reads is readline's, and comes to cat as a whole line.
    tmux("send-keys", "-t", "t.3", "X=43; cat", "Enter")
    until(lambda: tmux("display-message", "-p", "-t", "t.3", "#{pane_current_command}") == "cat\n", "cat", 10)
    tmux("send-keys", "-t", "t.3", "half")
    shows(0, "unsaved words")
    swap = pathlib.Path("job/.edited.swp")
    until(swap.exists, "vim's swap file", 10)
    shows(1, "line 100")
    shows(3, "half")
    panes = tmux("list-panes", "-t", "t", "-F", "#{pane_index} #{pane_pid} #{pane_width}x#{pane_height}")
    before = [screen(pane) for pane in (0, 1, 3)]
    for _ in range(2):
        program.round_trip()
        equal(tmux("list-panes", "-t", "t", "-F", "#{pane_index} #{pane_pid} #{pane_width}x#{pane_height}"), panes, "panes")
        equal([screen(pane) for pane in (0, 1, 3)], before, "what the panes show")
        clock = screen(2).splitlines()[0]
        until(lambda: screen(2).splitlines()[0] != clock, "top goes on", 10)
    tmux("send-keys", "-t", "t.3", " done", "Enter")
    shows(3, "half done\nhalf done")
    tmux("send-keys", "-t", "t.3", "C-c")
    until(lambda: tmux("display-message", "-p", "-t", "t.3", "#{pane_current_command}") == "bash\n", "the shell", 10)
    tmux("send-keys", "-t", "t.3", "echo X is $X", "Enter")
    shows(3, "X is 43")
    tmux("send-keys", "-t", "t.1", "g")
    shows(1, "line 1\n")
    tmux("resize-window", "-t", "t", "-x", "90", "-y", "35")
    until(lambda: "load aver" in screen(2) and "load average" not in screen(2), "top in a narrower pane", 10)
    check(swap.exists(), "vim's swap file is gone")
    tmux("send-keys", "-t", "t.0", " and more", "Escape", ":wq", "Enter")
    until(lambda: pathlib.Path("job/edited").read_text() == "first\nunsaved words and more\nlast\n", "vim's file", 10)
    until(lambda: not swap.exists(), "vim to remove its swap file", 10)
    tmux("kill-server")
    program.wait()
    check(not program.text("err"), "tmux complained", program.text("err"))


if __name__ == "__main__":
    main()
