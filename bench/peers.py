# SPDX-License-Identifier: Apache-2.0
"""Others that save and restore programs, timed beside Cairn where the environment names one that works: CRIU=/path/to/criu, DMTCP=/path/to/bin.

A peer has a name and cycle(program, size): the seconds of one save that ends a program with @size MiB of random memory, and of bringing it back."""
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

from cairn_test import tree_of, until, wait_gone


def answer_of(*argv):
    """None: it works. Otherwise the last thing that it said."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stdout.decode(errors="replace").splitlines() or ["nothing said"])[-1]


class Criu:
    name = "CRIU"

    def __init__(self, bench, path):
        self.bench, self.path = bench, path

    def refusal(self):
        return answer_of(self.path, "check")

    def rounds(self, size, count):
        """The seconds of each save and restore."""
        program = self.bench.begin(self.bench.limit_program, "target", size)
        images = self.bench.directory / "criu"
        words = ("-D", images, "--shell-job", "-v0")
        for _ in range(count):
            images.mkdir()
            tree = tree_of(program.pid)
            save = self.bench.timed(self.path, "dump", "-t", program.pid, *words)
            wait_gone(tree)
            restore = self.bench.timed(self.path, "restore", "-d", *words)
            shutil.rmtree(images)
            yield save, restore
        program.kill()


class Dmtcp:
    """Saves only what was launched under it, and a restart stays in the foreground: it is over when the program is seen to write again."""
    name = "DMTCP"

    def __init__(self, bench, path):
        self.bench, self.bin = bench, pathlib.Path(path)
        self.directory = bench.directory / "dmtcp"

    def refusal(self):
        return answer_of(self.bin / "dmtcp_launch", "--version")

    def spawn(self, command, *argv):
        port = self.directory / "port"
        port.unlink(missing_ok=True)
        process = subprocess.Popen([self.bin / command, "-q", "--new-coordinator", "--coord-port", "0", "--port-file", port,
                                    "--ckptdir", self.directory, *map(str, argv)],
                                   cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(port.exists, "a coordinator", 20)
        return process, port.read_text().strip()

    def written(self):
        data = (self.directory / "worst").read_bytes()[8:16]
        return struct.unpack("<Q", data)[0] if len(data) == 8 else 0

    def wait_written(self):
        before = self.written()
        until(lambda: self.written() != before, "a write of the program", 60)

    def rounds(self, size, count):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        (self.directory / "worst").write_bytes(bytes(4096))
        process, port = self.spawn("dmtcp_launch", "--no-gzip", self.bench.writer_program, size, 10, self.directory / "worst")
        self.wait_written()
        for _ in range(count):
            save = self.bench.timed(self.bin / "dmtcp_command", "--coord-port", port, "--kcheckpoint")
            process.wait()
            begin = time.perf_counter()
            process, port = self.spawn("dmtcp_restart", *self.directory.glob("ckpt_*.dmtcp"))
            self.wait_written()
            yield save, time.perf_counter() - begin
        process.send_signal(signal.SIGKILL)
        subprocess.run([self.bin / "dmtcp_command", "--coord-port", port, "--quit"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def find(bench):
    """Those that are named and work; of the others it is said why not."""
    found = []
    for variable, peer in (("CRIU", Criu), ("DMTCP", Dmtcp)):
        path = os.environ.get(variable)
        why = path and peer(bench, path).refusal()
        if why:
            print(f"{path} does not work here: {why}")
        elif path:
            found.append(peer(bench, path))
    return found
