#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sockets whose other end is not in the tree, queues that cannot be looked at, and programs that must notice nothing."""
import os
import pathlib
import socket
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (FAILED, OK, PYTHON, TIMEOUT, Skip, UNSUPPORTED, cairn, check, equal, fault_line, main, need_cairn, need_root, start, test,
                        unharmed, write)

HEAD = r'''
import os, socket, sys, time
PAUSE = 0.002
def wait(name):
    while not os.path.exists(name):
        time.sleep(PAUSE)
'''


def client(script):
    need_cairn()
    write("client.py", HEAD + script)
    program = start([PYTHON, "client.py"])
    program.wait_text("ready")
    return program


def listener(name="server", kind=socket.SOCK_STREAM):
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(name)
    if kind != socket.SOCK_DGRAM:
        server.listen(5)
    return server


STREAM = r'''
c = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
c.connect("server")
c.sendall(b"hello")
print("ready", flush=True)
wait("go")
c.settimeout(60)
got = b""
while True:
    data = c.recv(100)
    if not data:
        break
    got += data
    if got.endswith(b"!"):
        break
print("got", got.decode(), flush=True)
'''


@test("a Unix stream to the outside is refused with its peer's PID and command, and harmed by nothing", quick=True)
def outside_refused():
    server = listener()
    program = client(STREAM)
    other, _ = server.accept()
    result = program.checkpoint(status=None, kill=False)
    line = fault_line(result, UNSUPPORTED, str(program.pid), f"process {os.getpid()} (", "--outside close", "--outside reconnect")
    check("server" in line, "the line does not name the socket", line)
    unharmed(program.pid)
    equal(other.recv(100), b"hello", "what the program sent")
    other.sendall(b"still there!")
    program.path("go").touch()
    program.succeed()
    check("got still there!" in program.text(), "wrong output", program.text())


TIDY = r'''
import os, socket, sys, time
PACE = 0.005
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
directory = os.path.dirname(sys.argv[1])
print("listens", flush=True)
while not os.path.exists("go"):
    time.sleep(PACE)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("reached, mode %o" % os.stat(directory).st_mode, flush=True)
os.unlink(sys.argv[1])
os.rmdir(directory)
'''


@test("a socket in a directory in /tmp that its program removes at its end (ssh-agent) has it again after the next restore", quick=True)
def tidy():
    need_cairn()
    directory = pathlib.Path(tempfile.mkdtemp(dir="/tmp", prefix="cairn-test-tidy-"))
    directory.chmod(0o710)
    write("tidy.py", TIDY)
    program = start([PYTHON, "tidy.py", directory / "socket"])
    program.wait_text("listens")
    program.checkpoint()
    for count in (1, 2, 3):
        program.path("go").touch()
        program.restore("--file-changed", "ignore")
        program.succeed()
        equal(program.text().count("reached, mode 40710"), count, "how often it was reached")
        check(not directory.exists(), "its directory is left")


COMING = r'''
import os, socket
count = 0
while not os.path.exists("go"):
    pairs = [socket.socketpair() for _ in range(3)]
    children = []
    for ours, theirs in pairs:
        child = os.fork()
        if child == 0:
            for other, _ in pairs:
                other.close()
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        children.append(child)
    for ours, _ in pairs:
        ours.close()
    for child in children:
        os.waitpid(child, 0)
    count += 1
    print(count, flush=True)
'''


@test("the peers of a running tree's sockets may be children that came since it was looked at: they are not outside")
def coming():
    need_cairn()
    write("coming.py", COMING)
    program = start([PYTHON, "coming.py"])
    program.wait_progress(3)
    for _ in range(25):
        program.checkpoint(kill=False, image=program.path("image.cairn"))
    program.path("go").touch()
    program.succeed()


@test("--outside close: what had arrived is read, then the stream ends", quick=True)
def outside_closed():
    server = listener()
    program = client(STREAM)
    other, _ = server.accept()
    other.sendall(b"arrived")
    program.checkpoint("--outside", "close")
    equal(other.recv(100), b"hello", "what the program sent")
    try:
        equal(other.recv(100), b"", "end of the stream at the peer")
    except ConnectionResetError:
        pass  # the program had not read all
    program.restore()
    program.path("go").touch()
    program.succeed()
    check("got arrived" in program.text(), "wrong output", program.text())


@test("--outside reconnect: a stream is connected to the same name again", quick=True)
def outside_reconnected():
    server = listener()
    program = client(STREAM)
    other, _ = server.accept()
    program.checkpoint("--outside", "reconnect")
    other.close()
    program.restore()
    again, _ = server.accept()
    credentials = again.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    equal(int.from_bytes(credentials[4:8], "little"), os.getuid(), "uid that the server sees")
    again.sendall(b"welcome back!")
    program.path("go").touch()
    program.succeed()
    check("got welcome back!" in program.text(), "wrong output", program.text())


@test("--outside reconnect without anybody there fails before a process exists, and says who is missing", quick=True)
def outside_missing():
    server = listener()
    program = client(STREAM)
    other, _ = server.accept()
    program.checkpoint("--outside", "reconnect")
    other.close()
    server.close()
    os.unlink("server")
    result = program.restore(status=None)
    check(result.status in (FAILED, UNSUPPORTED) and "server" in result.err and "; try" in result.err, "wrong refusal", result)


@test("a datagram client of a logger outside (syslog) is connected to it again", quick=True)
def logger():
    log = listener("log", socket.SOCK_DGRAM)
    program = client(r'''
c = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
c.connect("log")
c.send(b"<13>before")
print("ready", flush=True)
wait("go")
c.send(b"<13>after")
''')
    line = fault_line(program.checkpoint(status=None, kill=False), UNSUPPORTED, f"process {os.getpid()} (", "datagram")
    check("reconnect" in line, "the remedy is not named", line)
    program.checkpoint("--outside", "reconnect")
    program.restore()
    program.path("go").touch()
    program.succeed()
    equal([log.recv(100), log.recv(100)], [b"<13>before", b"<13>after"], "what was logged")


@test("a live socket of another program under the old name is not taken away", quick=True)
def name_taken():
    program = client(r'''
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.bind("mine"); s.listen(1)
print("ready", flush=True)
wait("go")
s.settimeout(60)
s.accept()[0].sendall(b"mine")
''')
    program.checkpoint()
    os.unlink("mine")
    intruder = listener("mine")
    result = program.restore(status=None)
    check(result.status == FAILED and "mine" in result.err and "another program" in result.err, "wrong refusal", result)
    probe = socket.socket(socket.AF_UNIX)
    probe.connect("mine")
    intruder.accept()[0].close()
    intruder.close()
    # Stale now: it goes.
    program.restore()
    probe = socket.socket(socket.AF_UNIX)
    probe.connect("mine")
    program.path("go").touch()
    equal(probe.recv(10), b"mine", "what the restored server sends")
    program.succeed()


def waits(script, words, after):
    """What can only be taken: waited for, then refused by name, or lost if the user says so."""
    program = client(script)
    if "skipped" in program.text():
        program.kill()
        raise Skip(program.text())
    dry = cairn("check", program.pid)
    check(dry.status == OK, "cairn check refuses what passes by itself", dry)
    result = program.checkpoint("--timeout", "0.5", status=None, kill=False)
    line = fault_line(result, TIMEOUT, str(program.pid), words)
    check("--in-flight lose" in line, "the remedy is not named", line)
    unharmed(program.pid)
    program.checkpoint("--in-flight", "lose")
    program.restore()
    program.path("go").touch()
    program.succeed()
    check(after in program.text(), "wrong output", program.text())


@test("a failed restore leaves no socket's file", quick=True)
def nothing_left():
    server = listener("outside")
    program = client(r'''
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.bind("mine"); s.listen(1)
c = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
c.connect("outside")
print("ready", flush=True)
''' + "wait('go')\n")
    other, _ = server.accept()
    program.checkpoint("--outside", "reconnect")
    other.close()
    server.close()
    os.unlink("outside")
    os.unlink("mine")
    result = program.restore(status=None)
    check(result.status != 0, "restored", result)
    check(not os.path.exists("mine"), "the socket's file is there")


@test("a socket whose file was renamed into place after bind(2) is reached there after a restore")
def renamed():
    if os.getuid() != 0:
        raise Skip("only root may ask a socket for its file")
    program = client(r'''
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.bind("new"); s.listen(3)
os.rename("new", "place")
print("ready", flush=True)
wait("go")
c = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
c.connect("place")
s.settimeout(60)
s.accept()[0].sendall(b"hello")
print("got", c.recv(100).decode(), sorted(os.listdir(".")), flush=True)
''')
    for _ in range(2):
        program.round_trip()
    program.path("go").touch()
    program.succeed()
    check("got hello" in program.text() and "'new'" not in program.text() and "'place'" in program.text(), "wrong output", program.text())


@test("data sent before it was accepted: tried again, refused by name, or lost if the user says so", quick=True)
def before_accept():
    waits(r'''
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.bind("both"); s.listen(3)
c = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
c.connect("both")
c.sendall(b"early")
print("ready", flush=True)
wait("go")
s.settimeout(60)
a = s.accept()[0]
c.sendall(b"late")
print("got", a.recv(100).decode(), flush=True)
''', "accepted", "got late")


@test("a TCP connection of the tree that is not accepted yet is no peer outside: it is waited for, refused by name, or lost if the user says so", quick=True)
def tcp_before_accept():
    waits(r'''
s = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(s.getsockname())
c.sendall(b"early")
print("ready", flush=True)
wait("go")
try:
    c.settimeout(60)
    print("first", c.recv(10), flush=True)
except OSError as error:
    print("first", error.errno == 104, flush=True)
s.settimeout(60)
d = socket.create_connection(s.getsockname())
a = s.accept()[0]
d.sendall(b"late")
print("got", a.recv(100).decode(), flush=True)
''', "accepted", "first True\ngot late")


@test("data under UDP_CORK is waited for, then refused by name; --in-flight lose goes on without it, corked", quick=True)
def corked():
    waits(r"""
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.bind(("127.0.0.1", 0))
peer.settimeout(60)
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
c.connect(peer.getsockname())
c.setsockopt(17, 1, 1)
c.send(b"early")
print("ready", flush=True)
wait("go")
print("cork", c.getsockopt(17, 1), flush=True)
c.send(b"late")
c.setsockopt(17, 1, 0)
print("got", peer.recv(100), flush=True)
""", "UDP_CORK", "cork 1\ngot b'late'")


@test("a packet that waits in a raw socket is waited for, then refused by name, or lost if the user says so", quick=True)
def raw_packet():
    need_root()
    waits(r"""
try:
    r = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    r.sendto(b"hello", ("127.0.0.1", 0))
except OSError as error:
    print("ready, skipped:", error, flush=True)
    sys.exit(0)
r.setblocking(False)
print("ready", flush=True)
wait("go")
try:
    print("got", r.recv(100))
except BlockingIOError:
    print("got nothing", flush=True)
""", "a packet waits to be read", "got nothing")


@test("a packet that waits in a packet socket is waited for, then refused by name, or lost if the user says so", quick=True)
def packet():
    need_root()
    waits(r"""
try:
    p = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x88b7))
except OSError as error:
    print("ready, skipped:", error, flush=True)
    sys.exit(0)
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
s.sendto(b"hello", ("lo", 0x88b7, 0, 0, b"\0" * 6))
p.setblocking(False)
print("ready", flush=True)
wait("go")
try:
    print("got", p.recv(100))
except BlockingIOError:
    print("got nothing", flush=True)
""", "packets wait in it", "got nothing")


@test("a message of the kernel's that waits in a netlink socket is waited for, then refused by name, or lost if the user says so", quick=True)
def netlink_message():
    waits(r"""
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
n.bind((0, 0))
ask = (20).to_bytes(4, "little") + (18).to_bytes(2, "little") + (0x301).to_bytes(2, "little") + bytes(8) + bytes(4)
n.send(ask) # RTM_GETLINK, a dump of all links
n.setblocking(False)
print("ready", flush=True)
wait("go")
try:
    print("got", n.recv(10000))
except BlockingIOError:
    n.send(ask)
    n.settimeout(60)
    print("got nothing, then", len(n.recv(10000)) > 20, flush=True)
""", "a message of the kernel's waits", "got nothing, then True")


@test("--tcp close: a connection of MPTCP comes back as reset", quick=True)
def mptcp_closed():
    program = client(r"""
try:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError as error:
    print("ready, skipped:", error, flush=True)
    sys.exit(0)
server.bind(("127.0.0.1", 0))
server.listen(1)
c = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
c.connect(server.getsockname())
peer, _ = server.accept()
print("ready", flush=True)
wait("go")
for s in (c, peer):
    s.settimeout(60)
    try:
        print("got", s.recv(10), flush=True)
    except ConnectionResetError:
        print("got reset", flush=True)
plain = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"served")
plain.settimeout(60)
print("still", plain.recv(10), flush=True)
""")
    if "skipped" in program.text():
        program.kill()
        raise Skip(program.text())
    program.checkpoint("--tcp", "close")
    program.restore()
    program.path("go").touch()
    program.succeed()
    check(program.text().count("got reset") == 2 and "still b'served'" in program.text(), "wrong output", program.text())


@test("a queued datagram names its sender, who was outside and has ended", quick=True)
def dead_sender():
    program = client(r"""
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("mine")
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print("ready", flush=True)
wait("go")
data, control, _, _ = s.recvmsg(100, 100)
print("from", int.from_bytes(control[0][2][:4], "little"), data.decode(), flush=True)
""")
    sender = os.fork()
    if sender == 0:
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"last words", "mine")
        os._exit(0)
    os.waitpid(sender, 0)
    for _ in range(2):
        program.round_trip()
    program.path("go").touch()
    program.succeed()
    check(f"from {sender} last words" in program.text(), f"it was process {sender}", program.text(), program.text("err"))


@test("a pair that talks at full speed is saved fifty times and notices nothing")
def talkers():
    need_cairn()
    write("talkers.py", HEAD + r'''
import hashlib
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    if os.fork() == 0:
        a.close()
        seen, n = hashlib.sha256(), 0
        while True:
            data = b.recv(3000)
            if not data:
                break
            seen.update(data)
            b.sendall(str(len(data)).encode() + b"\n")
        print("reader", kind, seen.hexdigest(), flush=True)
        os._exit(0)
    b.close()
    sent, n, pending = hashlib.sha256(), 0, 0
    while not os.path.exists("go%d" % kind):
        data = os.urandom(1 + n * 37 % 2500)
        a.sendall(data)
        sent.update(data)
        n += 1
        if n % 3 == 0:
            for _ in range(3 if kind == socket.SOCK_SEQPACKET else 1):
                a.recv(4096)
        if n % 100 == 0:
            print("round", n, flush=True)
    a.shutdown(socket.SHUT_WR)
    while a.recv(4096):
        pass
    os.wait()
    print("writer", kind, sent.hexdigest(), flush=True)
''')
    program = start([PYTHON, "talkers.py"])
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        program.wait_progress(2)
        for _ in range(25):
            program.checkpoint(kill=False, image="image.cairn")
            program.wait_progress(1)
        for _ in range(3):
            program.round_trip()
            program.wait_progress(1)
        program.path(f"go{int(kind)}").touch()
        program.wait_text(f"writer {int(kind)}", timeout=60)
    program.succeed()
    words = [line.split() for line in program.text().splitlines() if line.startswith(("reader", "writer"))]
    for kind in ("1", "5"):
        hashes = {word[2] for word in words if word[1] == kind}
        check(len(hashes) == 1, "what was sent is not what was received", program.text()[-2000:])


if __name__ == "__main__":
    main()
