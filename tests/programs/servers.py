#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Servers from packages, saved and restored under load: clients inside the tree and outside see no more than a pause."""
import hashlib
import http.client
import os
import pathlib
import socket
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import (NOBODY, PYTHON, Skip, become, check, equal, free_port, listens, main, need, need_cairn, need_root, own_network, start, test, until,
                        write)


class Redis:
    """A client outside the tree that speaks RESP over one connection and never reconnects."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(60)
        self.file = self.socket.makefile("rb")

    def call(self, *words):
        encoded = [str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
        head = self.file.readline()
        if head[:1] == b"$":
            size = int(head[1:])
            return None if size < 0 else self.file.read(size + 2)[:-2]
        return head[1:-2]


@test("redis with an append-only file: a client outside keeps its connection through five saves", timeout=180)
def redis_outside():
    need("redis-server")
    need_cairn()
    own_network()
    port = free_port()
    program = start(["redis-server", "--port", port, "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--daemonize",
                     "no"])
    until(listens(port), "redis to listen")
    client = Redis(port)
    count, failure, stop = [0], [], threading.Event()

    def work():
        try:
            while not stop.is_set():
                equal(client.call("INCR", "counter"), str(count[0] + 1).encode(), "counter")
                equal(client.call("SET", f"key{count[0]}", "v" * (count[0] % 3000)), b"OK", "SET")
                count[0] += 1
        except BaseException as error:  # seen by the test below
            failure.append(error)
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(5):
        seen = count[0]
        until(lambda at=seen: count[0] > at + 20 or failure, "the client to go on")
        check(not failure, "the client failed", failure)
        program.checkpoint("--tcp", "established")
        program.restore()
    seen = count[0]
    until(lambda: count[0] > seen + 20 or failure, "the client to go on")
    stop.set()
    thread.join()
    check(not failure, "the client failed", failure)
    equal(client.call("GET", "counter"), str(count[0]).encode(), "counter at the end")
    equal(client.call("GET", "key17"), b"v" * 17, "a key")
    equal(Redis(port).call("DBSIZE"), str(count[0] + 1).encode(), "number of keys, by a new client")
    program.kill()


@test("redis and redis-benchmark in one tree: the benchmark ends without an error", timeout=180)
def redis_inside():
    need("redis-server", "redis-benchmark")
    need_cairn()
    port = free_port()
    write("both.sh", f"""
redis-server --port {port} --bind 127.0.0.1 --save '' --daemonize no > server.log &
until redis-cli -p {port} ping 2>/dev/null | grep -q PONG; do :; done
echo ready
while [ ! -e finish ]; do
    redis-benchmark -p {port} -q -c 10 -n 20000 -t set,get,lpush,mset || exit 1
    echo "round"
done
kill %1
wait
exit 0
""")
    program = start(["bash", "both.sh"])
    program.wait_text("ready")
    program.wait_progress(1)
    for number in range(4):
        program.wait_cpu(0.3)
        program.checkpoint(kill=number % 2 == 1)
        if number % 2 == 1:
            program.restore()
    program.finish()
    text = program.text() + program.text("err")
    check("rror" not in text, "an error was printed", text)


@test("redis-benchmark outside the tree: no request fails while the server is saved four times", timeout=240)
def redis_benchmark():
    need("redis-server", "redis-benchmark")
    need_cairn()
    own_network()
    port = free_port()
    program = start(["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
    until(listens(port), "redis to listen")
    client = Redis(port)
    # One test of one set of connections: a new one while the server is not there would be told so by the host.
    bench = subprocess.Popen(["redis-benchmark", "-p", str(port), "-c", "10", "-n", "100000000", "-r", "1000", "-t", "incr", "-q"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def commands():
        text = client.call("INFO", "stats").decode()
        return int(text.partition("total_commands_processed:")[2].split()[0])
    try:
        for _ in range(5):
            before = commands()
            until(lambda at=before: commands() > at + 5000, "the benchmark to go on")
            check(bench.poll() is None, "the benchmark has ended")
            equal(client.call("INFO", "clients").decode().partition("connected_clients:")[2].split()[0], "11", "clients")
            program.checkpoint("--tcp", "established")
            program.restore()
        before = commands()
        until(lambda: commands() > before + 5000, "the benchmark to go on")
    finally:
        bench.terminate()
        text, _ = bench.communicate(timeout=60)
    check("rror" not in text and "refused" not in text, "the benchmark met an error", text[-2000:])
    program.kill()


NGINX = """
daemon off; worker_processes 2; pid nginx.pid; error_log error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
  keepalive_requests 1000000; keepalive_timeout 600;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@test("nginx with keep-alive clients under load from outside: no request fails", timeout=180)
def nginx():
    need("nginx")
    need_cairn()
    own_network()
    port = free_port()
    root = pathlib.Path("www").resolve()
    root.mkdir()
    content = os.urandom(150000)
    (root / "file").write_bytes(content)
    os.chmod(pathlib.Path(".").resolve(), 0o755)
    write("nginx.conf", NGINX.format(port=port, root=root) if os.getuid() else "user root;" + NGINX.format(port=port, root=root))
    program = start(["nginx", "-p", str(pathlib.Path(".").resolve()), "-c", "nginx.conf"])
    until(listens(port), "nginx to listen")
    done, failure, stop = [0] * 8, [], threading.Event()

    def work(index):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while not stop.is_set():
                connection.request("GET", "/file")
                answer = connection.getresponse()
                equal((answer.status, answer.read() == content), (200, True), "answer")
                done[index] += 1
        except BaseException as error:  # seen by the test below
            failure.append(error)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(done))]
    for thread in threads:
        thread.start()
    for _ in range(5):
        seen = list(done)
        until(lambda at=seen: failure or all(now > before + 2 for now, before in zip(done, at)), "all clients to go on")
        check(not failure, "a request failed", failure)
        program.checkpoint("--tcp", "established")
        program.restore()
    seen = list(done)
    until(lambda: failure or all(now > before + 2 for now, before in zip(done, seen)), "all clients to go on")
    stop.set()
    for thread in threads:
        thread.join()
    check(not failure, "a request failed", failure)
    program.kill()


@test("wrk against nginx from outside: no request fails, there is only a pause", timeout=240)
def wrk():
    need("nginx", "wrk")
    need_cairn()
    own_network()
    port = free_port()
    root = pathlib.Path("www").resolve()
    root.mkdir()
    (root / "file").write_bytes(os.urandom(20000))
    os.chmod(pathlib.Path(".").resolve(), 0o755)
    write("nginx.conf", "user root;" + NGINX.format(port=port, root=root))
    program = start(["nginx", "-p", str(pathlib.Path(".").resolve()), "-c", "nginx.conf"])
    until(listens(port), "nginx to listen")
    bench = subprocess.Popen(["wrk", "-t", "2", "-c", "16", "-d", "12s", "--timeout", "100s", f"http://127.0.0.1:{port}/file"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    saves = 0
    while bench.poll() is None and saves < 4:
        program.wait_cpu(0.2)
        program.checkpoint("--tcp", "established")
        program.restore()
        saves += 1
    text, _ = bench.communicate(timeout=150)
    check(saves > 0, "wrk was too fast")
    check(bench.returncode == 0 and "requests in" in text, "wrk failed", text)
    check("Socket errors" not in text and "Non-2xx" not in text, "requests failed", text)
    program.kill()


@test("memcached with a client outside", timeout=120)
def memcached():
    need("memcached")
    need_cairn()
    own_network()
    port = free_port()
    program = start(["memcached", "-l", "127.0.0.1", "-p", port, "-U", "0", "-t", "4", *(["-u", "root"] if not os.getuid() else [])])
    until(listens(port), "memcached to listen")
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(60)
    answers = client.makefile("rb")

    def call(line):
        client.sendall(line + b"\r\n")
        return answers.readline()
    for number in range(300):
        equal(call(b"set key%d 0 0 5\r\n%05d" % (number, number)), b"STORED\r\n", "set")
        if number % 100 == 50:
            program.checkpoint("--tcp", "established")
            program.restore()
    equal(call(b"get key7"), b"VALUE key7 0 5\r\n", "get")
    equal(answers.readline() + answers.readline(), b"00007\r\nEND\r\n", "value")
    program.kill()


ASYNCIO = r'''
import asyncio, sys
async def serve(reader, writer):
    while True:
        line = await reader.readline()
        if not line:
            break
        writer.write(b"%d " % len(line) + line.upper())
        await writer.drain()
    writer.close()
async def run():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()
asyncio.run(run())
'''

GO = r'''
package main

import ("fmt"; "net"; "net/http"; "os"; "io")

func main() {
	n := 0
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n++
		fmt.Fprintf(w, "%d %d", n, len(body))
	})
	l, err := net.Listen("tcp", "127.0.0.1:" + os.Args[1])
	if err != nil { panic(err) }
	panic(http.Serve(l, nil))
}
'''


@test("an asyncio server in Python with ten clients outside", timeout=120)
def asyncio_server():
    need_cairn()
    own_network()
    port = free_port()
    write("server.py", ASYNCIO)
    program = start([PYTHON, "server.py", port])
    until(listens(port), "the server to listen")
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    files = [client.makefile("rwb") for client in clients]
    for number in range(40):
        for index, file in enumerate(files):
            file.write(b"line %d of %d\n" % (number, index))
            file.flush()
        if number % 10 == 5: # requests and answers are on their way
            program.checkpoint("--tcp", "established")
            program.restore()
        for index, file in enumerate(files):
            line = b"line %d of %d\n" % (number, index)
            equal(file.readline(), b"%d " % len(line) + line.upper(), "answer")
    program.kill()


@test("a Go server (net/http) with keep-alive clients outside", timeout=240)
def go_server():
    need("go")
    need_cairn()
    own_network()
    write("main.go", GO)
    subprocess.run(["go", "build", "-o", "server", "main.go"], check=True, stdin=subprocess.DEVNULL,
                   env={**os.environ, "GOCACHE": str(pathlib.Path("cache").resolve()), "GO111MODULE": "off"})
    port = free_port()
    program = start(["./server", port])
    until(listens(port), "the server to listen")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in range(60):
        connection.request("POST", "/", b"x" * (number * 1000))
        if number % 20 == 10:
            program.checkpoint("--tcp", "established")
            program.restore()
        answer = connection.getresponse()
        equal((answer.status, answer.read()), (200, b"%d %d" % (number + 1, number * 1000)), "answer")
    program.kill()


quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def cluster():
    """A new database cluster of nobody's: where postgres's programs are, and its directory, with the cluster in data/."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        raise Skip("initdb")
    home = pathlib.Path("pg").resolve()
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    os.chmod(".", 0o711)
    subprocess.run([programs[-1], "-D", "pg/data", "-A", "trust", "-U", "pg"], check=True, preexec_fn=lambda: become(NOBODY), **quiet)
    return programs[-1].parent, home


@test("postgres with pgbench clients outside: no transaction fails, and the books balance", timeout=240)
def postgres():
    need("pgbench", "psql")
    need_cairn()
    own_network()
    programs, home = cluster()
    port = free_port()
    program = start([programs / "postgres", "-D", home / "data", "-p", port, "-k", home, "-h", "127.0.0.1"],
                    prepare=lambda: become(NOBODY))
    client = ["-h", "127.0.0.1", "-p", str(port), "-U", "pg"]
    until(lambda: subprocess.run(["psql", *client, "-c", "select 1", "postgres"], **quiet).returncode == 0, "postgres to answer")
    subprocess.run(["pgbench", *client, "-i", "-q", "postgres"], check=True, **quiet)
    bench = subprocess.Popen(["pgbench", *client, "-c", "4", "-T", "12", "-P", "1", "postgres"], text=True, **quiet)

    def done():
        return int(subprocess.run(["psql", *client, "-At", "-c", "select count(*) from pgbench_history", "postgres"], text=True,
                                  check=True, **quiet).stdout)
    for _ in range(4):
        before = done()
        until(lambda at=before: done() > at + 20, "transactions")
        program.checkpoint("--tcp", "established")
        program.restore()
    text, _ = bench.communicate(timeout=90)
    check(bench.returncode == 0 and "error" not in text.lower() and "failed transactions: 0" in text, "transactions failed", text)
    sums = subprocess.run(["psql", *client, "-At", "-c", "select (select sum(abalance) from pgbench_accounts), "
                           "(select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)", "postgres"],
                          text=True, check=True, **quiet).stdout.strip().split("|")
    check(len(set(sums)) == 1, "the books do not balance", sums)
    program.kill()


POSTGRES = """
cd {home}
{bin}/postgres -D data -k {home} -h '' -c fsync=off > server.log 2>&1 &
until psql -h {home} -U pg -c 'select 1' postgres > /dev/null 2>&1; do sleep .05; done
pgbench -h {home} -U pg -i -q postgres > init.log 2>&1 || exit 1
echo ready
pgbench -h {home} -U pg -c 4 -t 1000 -l --log-prefix=seen postgres 2>&1 || exit 1
while [ ! -e finish ]; do sleep .02; done
psql -h {home} -U pg -At -c "select count(*), sum(delta), (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers) \
from pgbench_history" postgres | sed 's/^/history /'
kill -INT %1
wait %1
echo down
"""


@test("postgres and pgbench in one tree over Unix sockets: no transaction is lost or doubled", timeout=240)
def postgres_unix():
    need("pgbench", "psql")
    need_cairn()
    need_root()
    programs, home = cluster()
    write("job.sh", POSTGRES.format(home=home, bin=programs))
    os.chmod("job.sh", 0o644)
    program = start(["bash", os.path.abspath("job.sh")], prepare=lambda: become(NOBODY))
    program.wait_text("ready")
    for number in range(5):
        program.wait_cpu(0.4)
        program.checkpoint("--timeout", "100", kill=number % 2 == 0, timeout=120)
        if number % 2 == 0:
            program.restore()
    program.wait_text("number of transactions actually processed", timeout=120)
    (home / "finish").touch()
    program.succeed()
    text = program.text()
    check("4000/4000" in text and "number of failed transactions: 0" in text, "transactions failed", text[-2000:])
    seen = sum(path.read_text().count("\n") for path in home.glob("seen.*"))
    count, *sums = next(line for line in text.splitlines() if line.startswith("history")).split()[1].split("|")
    equal((int(count), seen), (4000, 4000), "rows of the history, and transactions that the clients saw")
    check(len(set(sums)) == 1, "the books do not balance", sums)


@test("curl that downloads a large file: the client side is saved, the hash is right", timeout=180)
def curl():
    need("curl")
    need_cairn()
    own_network()
    size, block = 400 << 20, os.urandom(1 << 20)
    server = socket.create_server(("127.0.0.1", 0))
    hashed = hashlib.sha256()

    def serve():
        peer, _ = server.accept()
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            hashed.update(block)
            peer.sendall(block)
        peer.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    program = start(["curl", "-sS", "--limit-rate", "60M", "-o", "file", f"http://127.0.0.1:{server.getsockname()[1]}/"])
    for part in (1, 2, 3):
        goal = size * part // 5
        until(lambda at=goal: pathlib.Path("file").exists() and pathlib.Path("file").stat().st_size > at, "a part of the file")
        program.checkpoint("--tcp", "established")
        program.restore()
    program.succeed()
    thread.join(30)
    equal(hashlib.sha256(pathlib.Path("file").read_bytes()).hexdigest(), hashed.hexdigest(), "hash of the file")


if __name__ == "__main__":
    main()
