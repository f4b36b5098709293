# SPDX-License-Identifier: Apache-2.0
"""What tests of Cairn have in common: start a program, save it, bring it back, see how it ends.

A test is a function in a file of tests/, decorated with its name, which is a sentence:

    @test("a python program with threads goes on where it was")
    def python():
        program = start(["/usr/bin/python3", "job.py"])
        ...

and the file ends with `main()`. tests/run collects them and gives each a fresh working directory and
a PID and mount namespace of its own. Without a save in between (CAIRN_TEST_DRY=1) a test has to pass too.
"""
import ctypes
import fcntl
import inspect
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback

TESTS = pathlib.Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
BUILD = pathlib.Path(os.environ.get("CAIRN_BUILD", REPOSITORY / "build")).resolve()
CAIRN = os.environ.get("CAIRN", str(BUILD / "cairn"))
DRY = os.environ.get("CAIRN_TEST_DRY") == "1"
# More options for every save and restore of a program, say "--clones 1": all tests by another way. Some do not fit it.
MORE_CHECKPOINT = os.environ.get("CAIRN_TEST_CHECKPOINT", "").split()
MORE_RESTORE = os.environ.get("CAIRN_TEST_RESTORE", "").split()
LONG = os.environ.get("CAIRN_TEST_LONG") == "1"
# Sanitizers and emulators are slower: deadlines are multiplied.
PATIENCE = float(os.environ.get("CAIRN_TEST_PATIENCE", "1"))
PYTHON = "/usr/bin/python3"

OK, FAILED, USAGE, UNSUPPORTED, PERMISSION, VANISHED, IMAGE, TIMEOUT = range(8)


class Skip(Exception):
    """Something that the test needs is not here."""


class Failure(Exception):
    """What was seen is not what has to be."""


def check(condition, text, *details):
    if not condition:
        raise Failure("\n".join([text, *[str(detail) for detail in details]]))


def equal(got, wanted, what):
    check(got == wanted, f"{what}: got {shorten(got)}, wanted {shorten(wanted)}")


def shorten(value, limit=600):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


# ---- the machine ----

class FairScheduler:
    """Linux 6.18 lets a whole session starve for up to a minute while another one computes (seen: cairn 46 s, rcu_preempt
    15 s). Each weight change of a running scheduling group enlarges its claim (place_entity() in kernel/sched/fair.c), and
    autogroups change theirs with every sleep. Where it may, a run of the tests goes without autogroups."""
    SWITCH = pathlib.Path("/proc/sys/kernel/sched_autogroup_enabled")

    def __enter__(self):
        try:
            self.before = self.SWITCH.read_text()
            self.SWITCH.write_text("0\n")
        except OSError:
            self.before = None

    def __exit__(self, *_):
        if self.before:
            self.SWITCH.write_text(self.before)


# ---- waiting: always for an event, never for a time ----

def until(condition, what, timeout=30.0):
    """Polls condition() until it is true, and returns its value."""
    deadline = time.monotonic() + timeout * PATIENCE
    pause = 0.0005
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"waited {timeout * PATIENCE:.0f} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def need(*commands):
    for command in commands:
        if not shutil.which(command):
            raise Skip(f"{command} is not installed")


def need_root():
    if os.getuid() != 0:
        raise Skip("needs root")


def need_cairn():
    """For tests that have no meaning without a save."""
    if DRY:
        raise Skip("dry run: nothing is saved")


# ---- processes ----

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    """Restored programs, whose parent (cairn) has gone, become ours: their exit status is seen."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def proc_status(pid):
    """/proc/PID/status as a dict, or None when there is no such process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def proc_stat(pid):
    """The fields of /proc/PID/stat after the comm: [0] is the state, [1] the parent; None when it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def state(pid):
    fields = proc_stat(pid)
    return fields[0] if fields else None


def alive(pid):
    return state(pid) not in (None, "Z", "X")


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children_of(pid):
    found = []
    for other in all_pids():
        fields = proc_stat(other)
        if fields and int(fields[1]) == pid:
            found.append(other)
    return found


def tree_of(pid):
    """pid and all its descendants, parents first."""
    parents = {}
    for other in all_pids():
        fields = proc_stat(other)
        if fields:
            parents.setdefault(int(fields[1]), []).append(other)
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop(0))
        queue += parents.get(found[-1], [])
    return found


def cpu_seconds(pid):
    """User and system time of a tree, ended children included."""
    ticks = 0
    for one in tree_of(pid):
        fields = proc_stat(one)
        if fields:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def describe(pid):
    status = proc_status(pid)
    if not status:
        return f"process {pid} (gone)"
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        command = ""
    return (f"process {pid} ({status['Name']}) parent {status['PPid']} state {status['State']} tracer "
            f"{status['TracerPid']}: {command}")


def is_unharmed(pid):
    """What a failed or finished cairn may never leave: a tracer, a stop, a death. None, or what is wrong."""
    for one in tree_of(pid):
        status = proc_status(one)
        if status is None or status["State"][0] in "ZX":
            if one == pid:
                reap()
                return f"process {pid} is dead, its exit status {_statuses.get(pid, 'unseen')}"
            continue
        try:
            threads = os.listdir(f"/proc/{one}/task")
        except OSError:
            continue
        for thread in threads:
            seen = proc_status(f"{one}/task/{thread}")
            if not seen:
                continue
            if seen["TracerPid"] != "0":
                return f"thread {thread} of {describe(one)} is still traced by {describe(seen['TracerPid'])}"
            if seen["State"][0] in "tT":
                return f"thread {thread} of {describe(one)} is stopped: {seen['State']}"
    return None


def unharmed(pid):
    """A dead tracer's tracees are detached by the kernel at once, but after its wait status is seen."""
    deadline = time.monotonic() + 2 * PATIENCE
    while True:
        wrong = is_unharmed(pid)
        if not wrong:
            return
        check(time.monotonic() < deadline, f"the program is harmed: {wrong}")
        time.sleep(0.002)


_statuses = {}


def reap():
    """Takes all ended children. Statuses of those that a test asks for are kept."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _statuses[pid] = os.waitstatus_to_exitcode(status)


def wait_gone(pids, timeout=20.0):
    """Waits until none of pids is a process, not even a zombie."""
    def gone():
        reap()
        return not any(state(pid) for pid in pids)
    until(gone, "end of " + ", ".join(describe(pid) for pid in pids if state(pid)), timeout)


# ---- an ordinary user ----

USER = 54321


def become_ordinary_user():
    """For the rest of the test: no capability, no groups, the working directory his own."""
    if os.getuid() != 0:
        return
    for path in [pathlib.Path("."), *pathlib.Path(".").rglob("*")]:
        os.chown(path, USER, USER)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    _libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: his own /proc files are his
    # Jobs of this test only.
    runtime = pathlib.Path("runtime").resolve()
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    os.environ["HOME"] = os.getcwd()
    if not os.access(CAIRN, os.X_OK):
        raise Skip(f"{CAIRN} lies where an ordinary user cannot come")


def deny_namespaces():
    """For the rest of the test: programs that are executed can make no user namespaces, and have no capabilities (user_namespaces(7):
    the limit is the namespace's own, and exec takes what its maker has there)."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        raise Skip("root has capabilities")
    if _libc.unshare(0x10000000) != 0:
        raise Skip("no user namespaces here")
    for path, text in (("/proc/self/setgroups", "deny"), ("/proc/self/uid_map", f"{uid} {uid} 1"), ("/proc/self/gid_map", f"{gid} {gid} 1"),
                       ("/proc/sys/user/max_user_namespaces", "0")):
        try:
            pathlib.Path(path).write_text(text)
        except OSError as error:
            raise Skip(f"{path}: {error}")


# ---- a network ----

def own_network():
    """A network namespace for the test, so that it disturbs nobody's firewall."""
    need_root()
    need("nft", "ip")
    if _libc.unshare(0x40000000):
        raise Skip("network namespaces are not permitted")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def free_port():
    """Nobody's in the network namespace of the test."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port):
    def trial():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False
    return trial


# ---- cairn ----

class Result:
    """A finished run of cairn."""

    def __init__(self, argv, status, out, err, seconds):
        self.argv, self.status, self.out, self.err, self.seconds = argv, status, out, err, seconds

    def __str__(self):
        text = f"$ {' '.join(map(str, self.argv))}\nexit status {self.status} after {self.seconds * 1000:.0f} ms"
        for name, lines in (("stdout", self.out), ("stderr", self.err)):
            if lines:
                text += f"\n{name}: {lines[:4000]}"
        return text


def cairn(*words, status=None, timeout=60.0, **options):
    """Runs cairn with words. With status, anything else is a failure."""
    argv = [CAIRN, *map(str, words)]
    start_time = time.monotonic()
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout * PATIENCE, **options)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"cairn {' '.join(map(str, words))}: not done after {late.timeout:.0f} s, stderr: {late.stderr}")
    result = Result(argv, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"),
                    time.monotonic() - start_time)
    check("AddressSanitizer" not in result.err and "runtime error:" not in result.err, "a sanitizer spoke", result)
    if status is not None:
        check(result.status == status, f"exit status {result.status}, wanted {status}", result)
    return result


def fault_line(result, status, *named, several=False):
    """A refusal: the exit status of CLI.md, and exactly one line (several: one for each fault) that begins with
    `cairn: ` and names the thing."""
    check(result.status == status, f"exit status {result.status}, wanted {status}", result)
    lines = result.err.splitlines()
    check(len(lines) >= 1 and all(line.startswith("cairn: ") for line in lines) and (several or len(lines) == 1),
          "stderr is not one line that begins with 'cairn: '", result)
    for word in named:
        check(str(word).lower() in lines[0].lower(), f"the line does not name '{word}'", result)
    return lines[0]


class Program:
    """A program under test, by PID: the one that was started, and the same one restored."""

    running = []

    def __init__(self, pid, directory):
        self.pid = pid
        self.directory = pathlib.Path(directory)
        self.saves = 0
        self.ours = True  # our child, or will be by subreaping
        self.init = None  # of its private PID namespace, whose exit status is the program's
        Program.running.append(self)

    def path(self, name):
        return self.directory / name

    def text(self, name="out"):
        try:
            return self.path(name).read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def lines(self, name="out"):
        return self.text(name).count("\n")

    def wait_text(self, words, name="out", timeout=30.0):
        until(lambda: words in self.text(name) or self._dead(words), f"'{words}' in {name}", timeout)

    def wait_lines(self, count, name="out", timeout=60.0):
        """Mid-work: the program has written this many lines."""
        until(lambda: self.lines(name) >= count or self._dead(f"{count} lines in {name}"),
              f"{count} lines in {name} (there are {self.lines(name)})", timeout)

    def wait_progress(self, more=1, name="out", timeout=60.0):
        """It goes on: so many more lines than now."""
        self.wait_lines(self.lines(name) + more, name, timeout)

    def wait_cpu(self, seconds, timeout=60.0):
        """Mid-work: the tree has used so much more CPU time than now."""
        goal = cpu_seconds(self.pid) + seconds
        until(lambda: cpu_seconds(self.pid) >= goal or self._dead(f"{seconds} s of CPU time"),
              f"{seconds} s of CPU time", timeout)

    def _dead(self, what):
        reap()
        if alive(self.pid):
            return False
        raise Failure(f"process {self.pid} ended with {_statuses.get(self.pid, 'a status unseen')} while waiting for "
                      f"{what}\n{self.tail()}")

    def tail(self):
        found = ""
        for name in ("out", "err"):
            text = self.text(name)
            if text:
                lines = text.splitlines()
                notable = [line for line in lines[:-8] if not line.startswith("round ")][-20:]
                found += f"{name}: " + "\n".join(notable + lines[-8:]) + "\n"
        return found

    def next_image(self):
        self.saves += 1
        return self.path(f"image-{self.saves}.cairn")

    def checkpoint(self, *options, kill=True, image=None, status=OK, timeout=60.0):
        """Saves it. With kill it is gone afterwards, the root reaped, all PIDs free."""
        image = image or self.next_image()
        self.image = image
        self.saved_pid = self.inner_pid()
        if DRY:
            return Result([], 0, "", "", 0.0)
        tree = tree_of(self.pid)
        words = ["checkpoint", str(self.pid), "-o", str(image), *MORE_CHECKPOINT, *options]
        if kill:
            words.append("--kill")
        result = cairn(*words, timeout=timeout)
        if status is not None:
            check(result.status == status, f"checkpoint: exit status {result.status}, wanted {status}", result,
                  self.tail())
        if result.status == OK:
            check(os.path.exists(image), f"{image} is not there", result)
            if kill:
                self.reap_tree(tree)
            else:
                unharmed(self.pid)
        return result

    def reap_tree(self, tree):
        """Descendants may have come after the list was made: all that lives below us and was below it is asked."""
        wait_gone(tree + ([self.init] if self.init else []))
        self.init = None
        _statuses.pop(self.pid, None)

    def restore(self, *options, status=OK, timeout=60.0, image=None):
        """Brings it back from its last image, detached."""
        if DRY:
            return Result([], 0, "", "", 0.0)
        pidfile = self.path("pidfile")
        pidfile.unlink(missing_ok=True)
        result = cairn("restore", "-d", *MORE_RESTORE, "--pidfile", str(pidfile), *options, str(image or self.image), timeout=timeout)
        if status is not None:
            check(result.status == status, f"restore: exit status {result.status}, wanted {status}", result, self.tail())
        if result.status == OK:
            self.pid = int(pidfile.read_text())
            parent = (proc_status(self.pid) or {}).get("PPid", "0")
            self.init = int(parent) if (proc_status(parent) or {}).get("Name") == "cairn-init" else None
            _statuses.pop(self.pid, None)
        return result

    def round_trip(self, *options):
        """Save, die, come back; at the same PID."""
        pid = self.inner_pid()
        self.checkpoint(*options)
        self.restore()
        equal(self.inner_pid(), pid, "PID after the restore")

    def inner_pid(self):
        """As the program sees it."""
        return int((proc_status(self.pid) or {}).get("NSpid", "0").split()[-1])

    def wait(self, timeout=120.0):
        """Its exit status (negative: by a signal)."""
        def ended():
            reap()
            if self.init:
                return self.init in _statuses
            return self.pid in _statuses or state(self.pid) is None
        until(ended, f"end of {describe(self.pid)}\n{self.tail()}", timeout)
        if self in Program.running:
            Program.running.remove(self)
        return _statuses.get(self.init or self.pid)

    def succeed(self, timeout=120.0):
        status = self.wait(timeout)
        check(status == 0, f"the program ended with {status}", self.tail())

    def finish(self, timeout=120.0):
        """For programs that wait for a file `finish` in the middle of their work, so that however slowly a test comes
        along, it finds them working: they may go on to their end, which has to be a success."""
        self.path("finish").touch()
        self.succeed(timeout)

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        tree = tree_of(self.pid) if state(self.pid) else []
        for pid in tree:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        if tree:
            wait_gone([pid for pid in tree if pid != os.getpid()] + [self.init or tree[0]])
        _statuses.pop(self.pid, None)
        if self in Program.running:
            Program.running.remove(self)


def default_signals():
    """What python, nohup or a job server ignores is not the program's business."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


NOBODY = 65534


def become(uid):
    """For a child of root's, before it execs."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def start(argv, directory=".", env=None, session=True, stdin="/dev/null", prepare=None):
    """Starts a program that knows nothing of Cairn: standard output in `out`, errors in `err`, a session of its own."""
    directory = pathlib.Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(directory)
            if session:
                os.setsid()
            for number, name, flags in ((0, stdin, os.O_RDONLY), (1, "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
                                        (2, "err", os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
                fd = os.open(name, flags, 0o644)
                os.dup2(fd, number)
                if fd > 2:
                    os.close(fd)
            os.closerange(3, 1024)
            _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            default_signals()
            if prepare:
                prepare()
            os.execvpe(argv[0], [str(word) for word in argv], {**os.environ, **(env or {})})
        except BaseException:
            traceback.print_exc()
            os._exit(127)
    program = Program(pid, directory)
    until(lambda: _executed(pid), "exec", 10)
    return program


def _executed(pid):
    """Past its exec: our own command line is no longer its own."""
    try:
        return not alive(pid) or (pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                                  != pathlib.Path("/proc/self/cmdline").read_bytes())
    except OSError:
        return True


def undisturbed(argv, directory="reference", timeout=300.0, **options):
    """Runs the same thing to its end without any save; returns the Program, whose files can be compared."""
    write(f"{directory}/finish", "")
    program = start(argv, directory, **options)
    program.succeed(timeout)
    return program


def same_files(program, reference, *names):
    for name in names:
        got, wanted = program.path(name).read_bytes(), reference.path(name).read_bytes()
        if got != wanted:
            at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
            raise Failure(f"{name} differs from the undisturbed run's at byte {at} (of {len(got)}, wanted {len(wanted)}): "
                          f"{got[max(0, at - 60):at + 60]!r} instead of {wanted[max(0, at - 60):at + 60]!r}")


def write(path, text, mode=0o644):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def sh(*argv, **options):
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    check(done.returncode == 0, f"{argv[0]} ended with {done.returncode}", done.stdout.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


# ---- jobs ----

def jobs():
    """Name -> what `cairn ps` says."""
    return {one["name"]: one for one in map(json.loads, cairn("ps", "--json", status=OK).out.splitlines())}


def run(*words, directory=".", **options):
    return start([CAIRN, "run", *words], directory, **options)


def job_of(name):
    return until(lambda: jobs().get(name), f"job {name}")


class Terminal:
    """An interactive shell on a pty, and what a person would type there. Its size (rows, columns) is set before the shell sees it: one that is told of
    another at its first prompt may lose what is typed then."""

    def __init__(self, argv=("bash", "--norc", "--noprofile", "-i"), env=None, size=None):
        master, slave = os.openpty()
        if size:
            fcntl.ioctl(master, 0x5414, struct.pack("4H", *size, 0, 0))  # TIOCSWINSZ
        self.master = master
        self.seen = ""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(master)
                os.setsid()
                fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
                for number in range(3):
                    os.dup2(slave, number)
                os.closerange(3, 1024)
                _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
                default_signals()
                os.execvpe(argv[0], list(argv), {**os.environ, "PS1": "ready> ", "PS2": "", "TERM": "dumb",
                                                 "HISTFILE": "", **(env or {})})
            except BaseException:
                traceback.print_exc()
                os._exit(127)
        os.close(slave)
        self.program = Program(self.pid, ".")
        self.expect("ready> ")

    def pump(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.seen += data.decode(errors="replace")

    def expect(self, words, timeout=30.0):
        def found():
            self.pump()
            return words in self.seen
        try:
            until(found, f"'{words}' on the terminal", timeout)
        except Failure as failure:
            raise Failure(f"{failure}\nthe terminal shows: {self.seen[-1500:]!r}") from None
        before, _, self.seen = self.seen.partition(words)
        return before

    def type(self, line):
        """Types a line and leaves its echo behind."""
        os.write(self.master, line.encode() + b"\n")
        self.expect("\n")

    def close(self):
        self.program.kill()
        os.close(self.master)


# ---- the tests of a file ----

class Test:
    def __init__(self, function, sentence, timeout, serial, host, quick, long_only, user):
        self.function, self.sentence, self.timeout, self.user = function, sentence, timeout, user
        self.serial, self.host, self.quick, self.long_only = serial, host, quick, long_only
        self.name = function.__name__


registered = []


def test(sentence, timeout=120, serial=False, host=False, quick=False, long_only=False, user=False):
    """serial: needs the machine alone; host: stays in the PID namespace of the host; quick: also under the
    sanitizers; long_only: part of make check-long; user: runs as an ordinary user."""
    def decorate(function):
        registered.append(Test(function, sentence, timeout, serial, host, quick, long_only, user))
        return function
    return decorate


def left_behind(before):
    """Processes and files that nobody owns any more."""
    found = []
    mine = os.getpid()
    try:
        until(lambda: reap() or not [pid for pid in tree_of(mine)[1:] if state(pid) not in (None, "Z", "X")], "", 2)
    except Failure:
        pass
    for pid in tree_of(mine)[1:]:
        if state(pid) not in (None, "Z", "X"):
            found.append("left behind: " + describe(pid))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    for path in pathlib.Path(".").rglob("*"):
        name = path.name
        if name.endswith(".part") or (".cairn" in name and not name.endswith(".cairn")):
            found.append(f"left behind: {path}")
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if line not in before and "cairn" in line.replace(os.getcwd(), ""):
            found.append(f"left behind: mount {line}")
    return found


def run_one(wanted):
    become_subreaper()
    before = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    code = 0
    try:
        if wanted.user or os.environ.get("CAIRN_TEST_USER") == "1":
            become_ordinary_user()
        wanted.function()
    except Skip as skip:
        print(f"skipped: {skip}")
        code = 77
    except Failure as failure:
        where = [frame for frame in traceback.extract_tb(failure.__traceback__) if "cairn_test" not in frame.filename]
        at = f"{os.path.basename(where[-1].filename)}:{where[-1].lineno}: " if where else ""
        print(f"{at}{failure}")
        code = 1
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        code = 1
    try:
        for program in list(Program.running):
            program.kill()
    except Failure as failure:
        print(f"clean-up: {failure}")
        code = code or 1
    for line in left_behind(before):
        print(line)
        code = 1
    sys.stdout.flush()
    return code


def main():
    """`FILE NAME` runs one test in the working directory; without a name the tests are listed."""
    if len(sys.argv) < 2:
        for one in registered:
            print(f"{one.name}: {one.sentence}")
        return
    for one in registered:
        if one.name == sys.argv[1]:
            sys.exit(run_one(one))
    sys.exit(f"{sys.argv[0]}: no test '{sys.argv[1]}' in {inspect.getfile(sys.modules['__main__'])}")
