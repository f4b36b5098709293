#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sessions through sshd: the server is saved and restored with what runs in it, the client is outside and stays."""
import os
import pathlib
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import check, free_port, listens, main, need, need_cairn, own_network, start, test, until, write

CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {here}/host
AuthorizedKeysFile {here}/client.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
"""


class Session:
    """ssh to the server, its input and output here."""

    def __init__(self, port, *words):
        self.process = subprocess.Popen(
            ["ssh", "-F", "none", "-p", str(port), "-i", "client", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=known",
             "-o", "ServerAliveInterval=0", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = b""
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return
            self.text += data

    def say(self, line):
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def hear(self, words):
        until(lambda: words in self.text or self.process.poll() is not None, f"{words}, got {self.text[-500:]}")
        check(words in self.text, f"the session ended before it said {words}", self.text[-2000:])


def server():
    need("sshd", "ssh", "ssh-keygen")
    need_cairn()
    own_network()
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True, stdin=subprocess.DEVNULL)
    port = free_port()
    write("config", CONFIG.format(port=port, here=os.getcwd()))
    program = start(["/usr/sbin/sshd", "-D", "-e", "-f", os.path.abspath("config")])
    until(listens(port), "sshd to listen")
    return program, port


def through_saves(program, session, ask, answer):
    for number in range(4):
        session.say(ask % number)
        session.hear(answer % number)
        program.checkpoint("--tcp", "established")
        check(session.process.poll() is None, "the client has ended", session.text[-2000:])
        session.say(ask % (number + 100)) # into the void: it is sent again
        program.restore()
        session.hear(answer % (number + 100))
    session.say(b"exit")
    check(session.process.wait(60) == 7, f"the session ended with {session.process.returncode}", session.text[-2000:])
    program.kill()


@test("an ssh session with a command: the client outside goes on after four saves of the server", timeout=180)
def command():
    program, port = server()
    session = Session(port, "root@127.0.0.1", "while read line; do case $line in exit) exit 7;; esac; echo got-$line; done")
    through_saves(program, session, b"line-%d", b"got-line-%d\n")


@test("an ssh session with a terminal and a shell goes on after four saves of the server", timeout=180)
def terminal():
    program, port = server()
    session = Session(port, "-tt", "root@127.0.0.1", "exec bash --norc")
    session.say(b"stty -echo; PS1=; trap 'exit 7' EXIT; echo first-$((1 + 1))")
    session.hear(b"first-2")
    through_saves(program, session, b"echo value-$((7 * %d))-of-%%d" % 3, b"value-21-of-%d")


if __name__ == "__main__":
    main()
