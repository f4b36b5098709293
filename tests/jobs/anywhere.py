#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where nothing is allowed: no user namespaces, no capability. Programs come back with other PIDs."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import BUILD, PERMISSION, PYTHON, UNSUPPORTED, Skip, cairn, check, deny_namespaces, equal, fault_line, main, need, need_cairn, start, test, write

RENUMBERED = BUILD / "tests" / "jobs" / "renumbered"
MUSL = BUILD / "tests" / "jobs" / "renumbered-musl"
INSIDE = BUILD / "tests" / "jobs" / "inside"
WORKER = BUILD / "tests" / "badluck" / "worker"


def again(program, *options):
    """Saved, killed, restored at another PID."""
    old, executable = program.pid, os.readlink(f"/proc/{program.pid}/exe")
    program.checkpoint()
    program.restore("--pids", "any", *options)
    check(program.pid != old, "it has its old PID")
    check(not program.init, "it is in a namespace of its own")
    equal(os.readlink(f"/proc/{program.pid}/exe"), executable, "its executable")


def renumbered(binary):
    need_cairn()
    if not binary.exists():
        raise Skip(f"{binary.name} was not built")
    deny_namespaces()
    program = start([binary], "job")
    program.wait_text("ready\n")
    for _ in range(2):
        again(program)
    program.path("go").touch()
    program.succeed()
    check("renumbered 1" in program.text() and "differs" not in program.text(), "the program noticed", program.text())


@test("without namespaces and capabilities a glibc program with threads, held mutexes, timers and children comes back with other ids", user=True)
def glibc():
    renumbered(RENUMBERED)


@test("without namespaces and capabilities a static musl program comes back with other ids", user=True)
def musl():
    renumbered(MUSL)


@test("without namespaces the other ways say what is missing, and name the way that is left", user=True)
def told():
    need_cairn()
    deny_namespaces()
    program = start([WORKER, "4"], "job")
    program.wait_lines(3)
    program.checkpoint(kill=False)
    for words in (["--pids", "private"], []):
        line = fault_line(cairn("restore", "-d", *words, program.image), PERMISSION, "namespaces")
        check("--pids any" in line, "the way that is left is not named", line)
    fault_line(cairn("restore", "-d", "--pids", "same", "--file-changed", "ignore", program.image), 1, "taken")
    program.path("go").touch()
    program.succeed()


@test("a program that has a file of its own /proc directory open is refused another PID", user=True)
def own_directory():
    need_cairn()
    deny_namespaces()
    code = "import os\nfrom time import sleep as pause\nos.chdir('/proc/self/task')\nprint('ready', flush=True)\nwhile not os.path.exists(%r): pause(.01)\n"
    program = start([PYTHON, "-c", code % os.path.abspath("job/go")], "job")
    program.wait_text("ready")
    program.checkpoint(kill=False)
    fault_line(cairn("restore", "-d", "--pids", "any", program.image), UNSUPPORTED, "/proc/")
    program.path("go").touch()
    program.succeed()


@test("a Python program with threads and a worker of libcairn's hooks bear other PIDs", user=True)
def programs():
    need_cairn()
    deny_namespaces()
    write("job/threads.py", """
import os, signal, threading
from time import sleep as pause
lock, total = threading.RLock(), 0
def add():
    global total
    while not os.path.exists("go"):
        with lock:
            with lock:
                total += 1
        pause(.001)
threads = [threading.Thread(target=add) for _ in range(4)]
for one in threads:
    one.start()
print("ready", flush=True)
while not os.path.exists("go"):
    print("round", total, flush=True)
    pause(.01)
for one in threads:
    one.join()
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
signal.raise_signal(signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
pause(0)
print("end", len(got) > 0, flush=True)
""")
    program = start([PYTHON, "threads.py"], "job")
    program.wait_lines(5)
    for _ in range(2):
        again(program, "--file-changed", "ignore")
        program.wait_progress(5)
    program.path("go").touch()
    program.succeed()
    check("end True" in program.text(), "the end", program.text()[-300:])
    program = start([INSIDE, "hooks"], "hooks")
    program.wait_text("ready")
    for number in (1, 2):
        again(program, "--file-changed", "ignore")
        program.wait_text(f"restored three {number}")
    program.finish()


SPINNER = """
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

var sink int

func main() {
	for i := 0; i < 2; i++ {
		go func() {
			for x := 0; ; x++ { // only a signal to its thread stops it for the collector
				sink = x
			}
		}()
	}
	for round := 0; ; round++ {
		if _, err := os.Stat("finish"); err == nil {
			fmt.Println("end")
			return
		}
		runtime.GC()
		fmt.Println("round", round)
		time.Sleep(5 * time.Millisecond)
	}
}
"""


@test("a Go program whose threads are stopped by signals comes back with other ids", user=True, timeout=240)
def go():
    need_cairn()
    need("go")
    write("src/main.go", SPINNER)
    built = subprocess.run(["go", "build", "-o", "../spinner", "main.go"], cwd="src", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, env={**os.environ, "GOCACHE": os.path.abspath("cache"), "GO111MODULE": "off"})
    check(built.returncode == 0, "go build", built.stdout)
    deny_namespaces()
    program = start(["../spinner"], "job", env={"GOMAXPROCS": "3"})
    program.wait_lines(5)
    for _ in range(2):
        again(program, "--file-changed", "ignore")
        program.wait_progress(5, timeout=30)
    program.finish()


@test("Java and Node bear other ids", user=True, timeout=240)
def runtimes():
    need_cairn()
    need("node", "java")
    deny_namespaces()
    for name, words, text in (("node", ["node", "main.js"], """
const fs = require('fs'); let n = 0;
const timer = setInterval(() => { console.log('round', n++); fs.readFile('main.js', () => {}); if (fs.existsSync('finish')) { clearInterval(timer); console.log('end'); } }, 5);
"""), ("java", ["java", "-Xmx64m", "main.java"], """
class Main { public static void main(String[] a) throws Exception {
  for (int i = 0; i < 3; i++) { Thread t = new Thread(() -> { byte[][] keep = new byte[64][]; for (int n = 0; ; n++) keep[n % 64] = new byte[10000]; }); t.setDaemon(true); t.start(); }
  for (int n = 0; !new java.io.File("finish").exists(); n++) { System.gc(); System.out.println("round " + n); Thread.sleep(5); }
  System.out.println("end"); System.exit(0); } }
""")):
        write(f"{name}/{words[-1]}", text)
        program = start(words, name)
        program.wait_lines(5, timeout=90)
        for _ in range(2):
            again(program, "--file-changed", "ignore")
            program.wait_progress(5)
        program.finish()
        check(program.text().endswith("end\n"), "the end", program.text()[-200:])


if __name__ == "__main__":
    main()
