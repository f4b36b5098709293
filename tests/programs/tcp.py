#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""TCP connections at full speed in both directions, saved at random moments: no byte is lost, doubled or changed."""
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (CAIRN, FAILED, LONG, OK, PERMISSION, PYTHON, UNSUPPORTED, USAGE, all_pids, cairn, check, equal, fault_line, main, need, need_cairn,
                        own_network, proc_status, sh, start, test, unharmed, until, write)

ROUNDS = 30 if LONG else 10

# A stream of which every byte says where it belongs; each side sends its own and checks the other's.
TALKER = r'''
import hashlib, os, select, socket, struct, sys
def block(seed, n):
    return hashlib.shake_128(b"%d %d" % (seed, n)).digest(4096)
class Talker:
    def __init__(self, s, mine, theirs):
        self.s, self.mine, self.theirs = s, mine, theirs
        self.sent = self.got = 0
        self.out = b""; self.inn = b""
        self.ended = self.done = False
        s.setblocking(False)
    def step(self, stop):
        if not self.out and not self.ended:
            if stop and self.sent % 16 == 0:
                self.s.shutdown(socket.SHUT_WR); self.ended = True
            else:
                self.out = block(self.mine, self.sent); self.sent += 1
        r, w, _ = select.select([self.s] if not self.done else [], [self.s] if self.out else [], [], 1)
        if w:
            self.out = self.out[self.s.send(self.out):]
        if r:
            data = self.s.recv(65536)
            if not data:
                self.done = True
                assert not self.inn, "a part of a block at the end"
            self.inn += data
            while len(self.inn) >= 4096:
                assert self.inn[:4096] == block(self.theirs, self.got), "block %d differs" % self.got
                self.inn = self.inn[4096:]; self.got += 1
        return self.ended and self.done
'''
LOOP = r'''
n = 0
while not t.step(os.path.exists("go")):
    n += 1
    if n % 200 == 0:
        print("round", n, t.sent, t.got, flush=True)
print(name, "sent", t.sent, "got", t.got, flush=True)
'''


def tally(text, name):
    words = next(line for line in text.splitlines() if line.startswith(name + " sent")).split()
    return int(words[2]), int(words[4])


def both_inside(server):
    need_cairn()
    write("talk.py", TALKER + f"server = {server}" + r'''
if os.fork() == 0:
    name, t = "client", Talker(socket.create_connection(server.getsockname()[:2]), 1, 2)
    server.close()
else:
    name, t = "server", Talker(server.accept()[0], 2, 1)
''' + LOOP + "if name == 'server': assert os.wait()[1] == 0\n")
    program = start([PYTHON, "talk.py"])
    for number in range(ROUNDS):
        program.wait_progress(random.randrange(1, 6))
        if number % 3 == 0:
            program.checkpoint(kill=False, image="image.cairn", timeout=90)
        else:
            program.round_trip()
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()
    client, server = tally(program.text(), "client"), tally(program.text(), "server")
    equal(client, server[::-1], "blocks sent and received")
    check(client[0] > 50 and client[1] > 50, "hardly anything was sent", client)


@test("a connection with both ends in the tree, at full speed in both directions", timeout=240)
def inside():
    both_inside('socket.create_server(("127.0.0.1", 0))')


@test("over IPv6, a connection with both ends in the tree, at full speed in both directions", timeout=240)
def inside_v6():
    both_inside('socket.create_server(("::1", 0), family=socket.AF_INET6)')


@test("SIGKILL of cairn at any moment of a save leaves a connection at full speed unharmed", timeout=240, serial=True)
def killed():
    need_cairn()
    write("talk.py", TALKER + r'''
server = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    name, t = "client", Talker(socket.create_connection(server.getsockname()), 1, 2)
    server.close()
else:
    name, t = "server", Talker(server.accept()[0], 2, 1)
''' + LOOP + "if name == 'server': assert os.wait()[1] == 0\n")
    program = start([PYTHON, "talk.py"])
    program.wait_progress(2)
    whole = min(cairn("checkpoint", program.pid, "-o", "whole.cairn", status=OK).seconds for _ in range(3))
    for step in range(40):
        process = subprocess.Popen([CAIRN, "checkpoint", str(program.pid), "-o", "image.cairn"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = time.monotonic() + whole * 1.2 * step / 40
        while time.monotonic() < goal and process.poll() is None:
            pass
        process.kill()
        process.wait()
        unharmed(program.pid)
        program.wait_progress(1, timeout=20)
    program.path("go").touch()
    program.succeed()
    equal(tally(program.text(), "client"), tally(program.text(), "server")[::-1], "blocks sent and received")


def is_cairn(pid):
    status = proc_status(pid)
    return status and status["Name"].startswith("cairn") and status["State"][0] not in "ZX"


@test("SIGKILL of cairn at any moment of a save leaves no rule that cuts off a peer outside", timeout=240, serial=True)
def killed_outside():
    need_cairn()
    own_network()
    peer = Peer()
    program = outside("127.0.0.1", peer)
    program.wait_progress(2)
    words = [CAIRN, "checkpoint", str(program.pid), "-o", "image.cairn", "--tcp", "established", "--stop"]
    begin = time.monotonic()
    cairn(*words[1:], status=OK)
    whole = time.monotonic() - begin
    completed = 1
    for step in range(30):
        cairn("check", "--repair", status=OK)
        os.kill(program.pid, signal.SIGCONT)
        program.wait_progress(1, timeout=20)
        pathlib.Path("image.cairn").unlink(missing_ok=True)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = time.monotonic() + whole * 1.2 * step / 30
        while time.monotonic() < goal and process.poll() is None:
            pass
        process.kill()
        process.wait()
        # What it has left to itself puts everything back, in its own time; the rule of a complete image is the one that stays.
        until(lambda: not [pid for pid in all_pids() if is_cairn(pid)], "nobody works on the save any more")
        done = os.path.exists("image.cairn")
        completed += done
        if not done:
            equal([line for line in sh("nft", "list", "tables").splitlines() if "cairn" in line], [], "tables")
            unharmed(program.pid)
    cairn("check", "--repair", status=OK)
    os.kill(program.pid, signal.SIGCONT)
    check(completed < 30, "no kill came in time")
    program.path("go").touch()
    program.succeed()
    check(peer.process.wait(60) == 0, "the peer failed", peer.text())
    equal(tally(program.text(), "client"), tally(peer.text(), "peer")[::-1], "blocks sent and received")


@test("without CAP_NET_ADMIN a connection to the outside is refused with both remedies", quick=True, user=True)
def no_capability():
    need_cairn()
    server = socket.create_server(("127.0.0.1", 0))
    write("client.py", "import socket, sys\nc = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\nprint('ready', flush=True)\nc.recv(1)\n")
    program = start([PYTHON, "client.py", str(server.getsockname()[1])])
    program.wait_text("ready")
    for words in (["check", program.pid], ["checkpoint", program.pid, "-o", "a.cairn"]):
        refused = cairn(*words)
        if os.getuid() != 0:
            check(refused.status in (UNSUPPORTED, PERMISSION) and "cairn run --net" in refused.err and "--tcp close" in refused.err, "the remedies", refused)
        else:
            check(refused.status == UNSUPPORTED and "--tcp close" in refused.err, "the remedies", refused)
    unharmed(program.pid)
    server.accept()[0].close()
    program.succeed()


class Peer:
    """The same talker outside the tree, as a process of the test's."""

    def __init__(self, words=()):
        write("peer.py", TALKER + r'''
name = "peer"
server = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("port", server.getsockname()[1], flush=True)
t = Talker(server.accept()[0], 2, 1)
t.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
''' + LOOP)
        self.words = list(words)

    def start(self, address):
        self.process = subprocess.Popen([*self.words, PYTHON, "peer.py", address], stdout=open("peer.out", "wb"),
                                        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        until(lambda: "\n" in self.text(), "the peer's port")
        return int(self.text().split()[1])

    def text(self):
        return pathlib.Path("peer.out").read_text()


def outside(address, peer, inner=()):
    port = peer.start(address)
    write("talk.py", TALKER + r'''
name, t = "client", Talker(socket.create_connection((sys.argv[1], int(sys.argv[2]))), 1, 2)
''' + LOOP)
    program = start([*inner, PYTHON, "talk.py", address, str(port)])
    return program


def through_rounds(program, peer):
    for number in range(ROUNDS):
        program.wait_progress(random.randrange(1, 6))
        program.checkpoint("--tcp", "established")
        check(peer.process.poll() is None, "the peer has ended", peer.text())
        program.restore()
    program.wait_progress(3)
    program.path("go").touch()
    program.succeed()
    status = peer.process.wait(60)
    check(status == 0, f"the peer ended with {status}", peer.text())
    client, other = tally(program.text(), "client"), tally(peer.text(), "peer")
    equal(client, other[::-1], "blocks sent and received")
    rules = sh("nft", "list", "tables")
    check("cairn" not in str(rules), "a table is left", rules)


@test("a peer outside the tree on the same host never notices more than a pause", timeout=240)
def same_host():
    need_cairn()
    own_network()
    peer = Peer()
    program = outside("127.0.0.1", peer)
    through_rounds(program, peer)


@test("over IPv6, a peer outside the tree", timeout=240)
def same_host_v6():
    need_cairn()
    own_network()
    peer = Peer()
    program = outside("::1", peer)
    through_rounds(program, peer)


def through_veth(here, there, bits):
    need_cairn()
    own_network()
    holder = subprocess.Popen(["unshare", "-n", "sleep", "1000"], stdin=subprocess.DEVNULL)
    try:
        until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "the other namespace")
        subprocess.run(["ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(holder.pid)], check=True)
        inside_words = ["nsenter", "-t", str(holder.pid), "-n"]
        for words, name, address in (([], "here", here), (inside_words, "there", there)):
            # Nobody else is there who could have the address.
            subprocess.run([*words, "ip", "addr", "add", f"{address}/{bits}", "dev", name, *(["nodad"] if ":" in address else [])], check=True)
            subprocess.run([*words, "ip", "link", "set", name, "up"], check=True)
        peer = Peer(inside_words)
        program = outside(there, peer)
        through_rounds(program, peer)
    finally:
        holder.kill()
        holder.wait()


@test("a peer on another host (network namespaces joined by veth) never notices more than a pause", timeout=240)
def other_host():
    through_veth("10.77.0.1", "10.77.0.2", 24)


@test("over IPv6, a peer on another host", timeout=240)
def other_host_v6():
    through_veth("fd00:77::1", "fd00:77::2", 64)


@test("without a word, a connection to the outside is refused with both options named, and harmed by nothing", quick=True)
def refused():
    need_cairn()
    server = socket.create_server(("127.0.0.1", 0))
    write("client.py", "import socket, sys, os, time\nc = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
          "print('ready', flush=True)\nc.sendall(c.recv(100).upper())\nc.recv(1)\n")
    program = start([PYTHON, "client.py", str(server.getsockname()[1])])
    program.wait_text("ready")
    peer, _ = server.accept()
    line = fault_line(program.checkpoint(status=None, kill=False), UNSUPPORTED, str(program.pid), f"process {os.getpid()} (",
                      "--tcp established", "--tcp close")
    check(str(server.getsockname()[1]) in line, "the port is not named", line)
    unharmed(program.pid)
    line = fault_line(program.checkpoint("--tcp", "established", status=None, kill=False), USAGE, "--kill")
    peer.sendall(b"echo")
    equal(peer.recv(100), b"ECHO", "answer of the program")
    peer.close()
    program.succeed()


HALF = r'''
import os, socket, sys, time
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
c.settimeout(60)
if "own" in sys.argv:
    c.shutdown(socket.SHUT_WR)
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(PAUSE)
got = b""
while True:
    data = c.recv(100)
    if not data:
        break
    got += data
if "own" not in sys.argv:
    c.sendall(b"A" * 300000)
print("got", got.decode(), flush=True)
'''.replace("PAUSE", "0.002")


def half_closed(address, own, theirs):
    """Twice saved, with one or both directions closed."""
    need_cairn()
    own_network()
    write("client.py", HALF)
    server = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    program = start([PYTHON, "client.py", address, str(server.getsockname()[1]), *(["own"] if own else [])])
    program.wait_text("ready")
    peer, _ = server.accept()
    peer.settimeout(60)
    peer.sendall(b"before the end")
    if theirs:
        peer.shutdown(socket.SHUT_WR)

    def settled():
        lines = sh("ss", "-tanH", "sport", "=", f":{peer.getpeername()[1]}")
        return ("FIN-WAIT-2" in lines if own and not theirs else "CLOSE-WAIT" in lines if theirs and not own else True)
    until(settled, "the half closed state")
    for _ in range(2):
        program.checkpoint("--tcp", "established")
        program.restore()
        until(settled, "the half closed state after the restore")
    if not theirs:
        peer.sendall(b", after")
        peer.shutdown(socket.SHUT_WR)
    program.path("go").touch()
    program.succeed()
    check(("got before the end" if theirs else "got before the end, after") in program.text(), "wrong output", program.text())
    total = b""
    while True:
        data = peer.recv(65536)
        if not data:
            break
        total += data
    equal(len(total), 0 if own else 300000, "bytes that the peer got")


@test("a connection that its peer outside has half closed", quick=True)
def half_theirs():
    half_closed("127.0.0.1", False, True)


@test("a connection to the outside that the program has half closed", quick=True)
def half_own():
    half_closed("127.0.0.1", True, False)


@test("over IPv6, a connection that its peer outside has half closed", quick=True)
def half_theirs_v6():
    half_closed("::1", False, True)


CONNECTING = r'''
import errno, select, socket, sys
c = socket.socket()
c.setblocking(False)
assert c.connect_ex(("192.0.2.1", int(sys.argv[1]))) == errno.EINPROGRESS
print("ready", flush=True)
while not select.select([], [c], [], 0.01)[1]:
    pass
assert c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
c.setblocking(True)
c.sendall(b"here at last")
print("got", c.recv(100).decode(), flush=True)
'''


@test("a connection that is still being made, to a host that does not answer yet, is made after two restores", timeout=120)
def connecting():
    need_cairn()
    own_network()
    sh("ip", "address", "add", "192.0.2.2/32", "dev", "lo")
    sh("ip", "route", "add", "192.0.2.1/32", "dev", "lo", "src", "192.0.2.2")  # where nobody is at home
    write("client.py", CONNECTING)
    port = 4321
    program = start([PYTHON, "client.py", str(port)])
    program.wait_text("ready")
    for _ in range(2):
        program.checkpoint("--tcp", "established")
        program.restore()
    check("SYN-SENT" in sh("ss", "-Htan"), "the state", sh("ss", "-Htan"))
    sh("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    with socket.create_server(("192.0.2.1", port)) as server:
        server.settimeout(60)
        peer, _ = server.accept()
        equal(peer.recv(100), b"here at last", "what came")
        peer.sendall(b"welcome")
    program.succeed()
    check("got welcome" in program.text(), "wrong output", program.text())


CLOSED = r'''
import errno, os, select, socket, sys, time
c = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
while not os.path.exists("go"):
    select.select([], [], [], 0.002)
got = b""
try:
    while True:
        data = c.recv(100)
        got += data
        if not data:
            break
    end = "end"
except OSError as error:
    end = errno.errorcode[error.errno]
print("got", got.decode(), end, flush=True)
'''


def connected():
    """A program with a connection to this test, in a network namespace of their own, and the test's end."""
    need_cairn()
    own_network()
    server = socket.create_server(("127.0.0.1", 0))
    write("client.py", CLOSED)
    program = start([PYTHON, "client.py", str(server.getsockname()[1])])
    program.wait_text("ready")
    peer, _ = server.accept()
    return program, peer


@test("--tcp close: what had arrived is read, then the connection was reset", quick=True)
def closed():
    need_cairn()
    server = socket.create_server(("127.0.0.1", 0))
    write("client.py", CLOSED)
    program = start([PYTHON, "client.py", str(server.getsockname()[1])])
    program.wait_text("ready")
    peer, _ = server.accept()
    peer.sendall(b"arrived")
    program.checkpoint("--tcp", "close")
    program.restore()
    program.path("go").touch()
    program.succeed()
    check("got arrived ECONNRESET" in program.text(), "wrong output", program.text())


@test("--stop --tcp established: cut off until --repair, as it is told; then SIGCONT lets the program go on with its connection", quick=True)
def stopped():
    program, peer = connected()
    result = cairn("checkpoint", program.pid, "-o", "image.cairn", "--tcp", "established", "--stop", status=OK)
    check("cairn check --repair" in result.err, "the way on is not named", result)
    cairn("check", "--repair", status=OK)
    os.kill(program.pid, signal.SIGCONT)
    peer.sendall(b"after all")
    program.path("go").touch()
    peer.close()
    program.succeed()
    check("got after all end" in program.text(), "wrong output", program.text())


@test("restore --tcp close: connections that were kept come back as reset, and nothing of the lock is left", quick=True)
def closed_later():
    program, peer = connected()
    program.checkpoint("--tcp", "established")
    check("cairn-" in sh("nft", "list", "tables"), "no table keeps the peer quiet")
    peer.sendall(b"into the void")
    program.restore("--tcp", "close")
    check("cairn" not in sh("nft", "list", "tables"), "a table is left")
    program.path("go").touch()
    program.succeed()
    check("got  ECONNRESET" in program.text(), "wrong output", program.text())


@test("--map-address: listening sockets and connections in the tree move to the address that the host has now", quick=True)
def moved():
    need_cairn()
    own_network()
    sh("ip", "addr", "add", "10.66.0.1/32", "dev", "lo")
    write("pair.py", """
import os, socket, time
server = socket.create_server(("10.66.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("10.66.0.1", 0))
client.sendall(b"queued")
print("ready", flush=True)
PAUSE = 0.002
while not os.path.exists("go"):
    time.sleep(PAUSE)
assert peer.recv(100) == b"queued"
peer.sendall(b"answer")
assert client.recv(100) == b"answer"
new = socket.create_connection(server.getsockname())
print(*(s.getsockname()[0] for s in (server, client, peer, udp, new)), client.getpeername()[0], flush=True)
""")
    program = start([PYTHON, "pair.py"])
    program.wait_text("ready")
    program.checkpoint()
    sh("ip", "addr", "del", "10.66.0.1/32", "dev", "lo")
    sh("ip", "addr", "add", "10.66.0.2/32", "dev", "lo")
    result = program.restore(status=None)
    check(result.status != OK and "10.66.0.1" in result.err and "--map-address" in result.err, "no hint", result)
    # Before anything exists, and by a dry run; once, not for each of its sockets.
    fault_line(result, FAILED, "10.66.0.1", "--map-address")
    fault_line(cairn("check", program.image), FAILED, "10.66.0.1", "--map-address")
    fault_line(cairn("check", "--map-address", "10.66.0.1=10.66.0.3", program.image), FAILED, "10.66.0.3", "--map-address")
    cairn("check", "--map-address", "10.66.0.1=10.66.0.2", program.image, status=OK)
    fault_line(cairn("check", "--map-address", "10.66.0.1=10.66.0.2"), USAGE, "--map-address")
    result = program.restore("--map-address", "10.66.0.1=there", status=None)
    fault_line(result, USAGE, "--map-address")
    program.restore("--map-address", "10.66.0.1=10.66.0.2")
    program.path("go").touch()
    program.succeed()
    check("10.66.0.2 " * 5 + "10.66.0.2" in program.text(), "wrong addresses", program.text())


MOVING = """
import os, socket, sys, time
PAUSE = 0.002
def wait(name):
    while not os.path.exists(name):
        time.sleep(PAUSE)
if sys.argv[1] == "server":
    server = socket.create_server(("10.66.0.1", 0))
    print("port", server.getsockname()[1], flush=True)
    s, _ = server.accept()
    print("ready", flush=True)
    wait("go")
else:
    s = socket.create_connection(("10.66.0.1", int(sys.argv[2])), source_address=("10.66.0.2", 0))
    print("ready", flush=True)
    wait("go")
    s.sendall(b"hello")
s.settimeout(60)
try:
    data = s.recv(100)
    if sys.argv[1] == "server":
        s.sendall(data.upper())
    print("got", data.decode(), s.getsockname()[0], s.getpeername()[0], flush=True)
except ConnectionResetError:
    print("got ECONNRESET", flush=True)
"""


def two_trees():
    """A server and its client, each a tree of its own, saved and gone; and so are their addresses."""
    need_cairn()
    own_network()
    for address in ("10.66.0.1/32", "10.66.0.2/32"):
        sh("ip", "addr", "add", address, "dev", "lo")
    write("moving.py", MOVING)
    server = start([PYTHON, "../moving.py", "server"], "server")
    server.wait_text("port")
    client = start([PYTHON, "../moving.py", "client", server.text().split()[1]], "client")
    client.wait_text("ready")
    server.wait_text("ready")
    for program in (server, client):
        program.checkpoint("--tcp", "established")
    for old, new in (("10.66.0.1/32", "10.66.0.3/32"), ("10.66.0.2/32", "10.66.0.4/32")):
        sh("ip", "addr", "del", old, "dev", "lo")
        sh("ip", "addr", "add", new, "dev", "lo")
    return server, client


@test("--map-address: a connection between two trees, which are both restored elsewhere, goes on between the new addresses", quick=True)
def both_moved():
    server, client = two_trees()
    for program in (server, client):
        program.restore("--map-address", "10.66.0.1=10.66.0.3", "--map-address", "10.66.0.2=10.66.0.4")
    for program in (client, server):
        program.path("go").touch()
    for program in (client, server):
        program.succeed()
    check("got HELLO 10.66.0.4 10.66.0.3" in client.text() and "got hello 10.66.0.3 10.66.0.4" in server.text(), "wrong output", client.text(),
          server.text())


@test("a connection to the outside whose address this host has not is refused with both remedies, and reset by --tcp close", quick=True)
def left_behind():
    _, client = two_trees()
    for words in (["check"], ["restore", "-d"]):
        fault_line(cairn(*words, client.image), FAILED, "10.66.0.2", "--map-address", "--tcp close")
    client.restore("--tcp", "close")
    check("cairn-" in sh("nft", "list", "tables"), "the server's table")
    client.path("go").touch()
    status = client.wait()
    check(status == 0 or "ConnectionResetError" in client.text("err"), f"the client ended with {status}", client.tail())
    cairn("check", "--repair", status=OK)


ORPHAN = """
import os, socket, time
PACE = 0.005
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen()
client = socket.create_connection(server.getsockname())
server.accept()[0].close()
print("closed", client.recv(1), flush=True)
while not os.path.exists("go"):
    time.sleep(PACE)
client.close()
again = socket.create_connection(server.getsockname())
other, _ = server.accept()
other.sendall(b"hello")
print("again", again.recv(5), flush=True)
"""


@test("a port without SO_REUSEADDR on which a connection was closed that its peer had not closed yet is had again at once")
def orphan():
    own_network()
    write("orphan.py", ORPHAN)
    program = start([PYTHON, "orphan.py"])
    program.wait_text("closed b''")
    for _ in range(3):
        program.checkpoint()
        program.restore()
    program.path("go").touch()
    program.succeed()
    check("again b'hello'" in program.text(), "wrong output", program.text())


@test("without CAP_NET_ADMIN such a port is waited for, as long as connections that were closed are remembered", long_only=True, user=True, timeout=300)
def remembered():
    need_cairn()
    write("orphan.py", ORPHAN)
    program = start([PYTHON, "orphan.py"])
    program.wait_text("closed b''")
    program.checkpoint()
    late = cairn("restore", "--timeout", "1", "--file-changed", "ignore", program.image, status=125)
    check("timed out" in late.err or "time" in late.err, "what is said", late)
    program.path("go").touch()
    result = cairn("restore", "--file-changed", "ignore", program.image, status=OK, timeout=100)
    check("TIME_WAIT" in result.err and "again b'hello'" in program.text(), "what is said, and written", result, program.text())


@test("cairn check --repair ends what keeps the peers of an image quiet", quick=True)
def repaired():
    program, peer = connected()
    program.checkpoint("--tcp", "established")
    table = sh("nft", "list", "tables").split()[-1]
    result = cairn("check", "--repair", status=OK)
    check(table in result.out, "the table is not listed", result)
    check("cairn" not in sh("nft", "list", "tables"), "the table is left")
    check("nothing" in cairn("check", "--repair", status=OK).out, "still something to repair")
    peer.settimeout(60)
    try:
        peer.sendall(b"are you there?")
        equal(peer.recv(1), b"never", "an answer from nobody")
    except ConnectionResetError:
        pass


if __name__ == "__main__":
    main()
