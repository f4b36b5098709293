#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""MariaDB, whose InnoDB reads and writes by an io_uring, or by libaio."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import NOBODY, Skip, become, check, equal, main, need, need_cairn, need_root, start, test, write

# Small buffers, so that it writes pages all the time; each row is a transaction of its own, whose number the client prints when it is committed.
JOB = """
cd {home}
mariadbd --no-defaults --datadir={home}/data --tmpdir={home} --socket={home}/socket --pid-file={home}/pid --skip-networking --skip-grant-tables --skip-name-resolve \
--innodb-use-native-aio=1 {options} --innodb-buffer-pool-size=8M --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0 > server.log 2>&1 &
until mariadb --no-defaults -S socket -e 'select 1' > /dev/null 2>&1; do read -t 0.05 <> <(:); done
mariadb --no-defaults -S socket -e 'create database d; create table d.h (n int primary key, pad blob) engine=innodb' || exit 1
echo ready
seq {rows} | sed "s/.*/insert into h values (&, repeat(char(& % 251), 1500)); select &;/" | mariadb --no-defaults -S socket -N -n d > seen || exit 1
mariadb --no-defaults -S socket -N -e "check table h extended; select count(*), sum(n), sum(pad = repeat(char(n % 251), 1500)) from h" d
kill %1
wait %1
echo down
"""


def home_of_nobody():
    home = pathlib.Path("maria").resolve()
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    os.chmod(".", 0o711)
    made = subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={home}/data", "--skip-test-db", "--auth-root-authentication-method=normal", f"--tmpdir={home}"],
                          preexec_fn=lambda: become(NOBODY), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(made.returncode == 0, "mariadb-install-db failed", made.stdout)
    return home


def rings(pid):
    """How many requests the io_urings of the tree's mariadbd have taken."""
    for task in pathlib.Path("/proc").glob("[0-9]*/comm"):
        if task.read_text() == "mariadbd\n":
            infos = [info.read_text() for info in (task.parent / "fdinfo").iterdir()]
            return [int(text.split("CachedSqHead:")[1].split()[0]) for text in infos if "CachedSqHead:" in text]
    return []


def contexts(pid):
    """How many rings of asynchronous I/O the tree's mariadbd has."""
    for task in pathlib.Path("/proc").glob("[0-9]*/comm"):
        if task.read_text() == "mariadbd\n":
            return (task.parent / "maps").read_text().count("/[aio]")
    return 0


def under_load(options, find, what):
    need("mariadbd", "mariadb", "mariadb-install-db")
    need_cairn()
    need_root()
    rows = 24000
    home = home_of_nobody()
    write("job.sh", JOB.format(home=home, rows=rows, options=options))
    os.chmod("job.sh", 0o644)
    program = start(["bash", os.path.abspath("job.sh")], prepare=lambda: become(NOBODY))
    program.wait_text("ready", timeout=60)
    check(find(program.pid), f"it has no {what}", (home / "server.log").read_text())
    for number in range(4):
        program.wait_cpu(0.3)
        program.checkpoint("--timeout", "100", kill=number != 2, timeout=120)
        if number != 2:
            program.restore()
    program.succeed(timeout=120)
    lines = program.text().splitlines()
    equal(next(line for line in lines if "\t" in line and line.startswith(str(rows))).split("\t"),
          [str(rows), str(rows * (rows + 1) // 2), str(rows)], "rows, their sum, and how many are as they were written")
    check(any(line.endswith("status\tOK") for line in lines), "the table is damaged", program.text())
    equal((home / "seen").read_text().split(), [str(n) for n in range(1, rows + 1)], "rows that the client saw committed")


@test("mariadb with its io_uring under a write load: no row is lost or doubled, and its tables are sound", timeout=300)
def mariadb():
    under_load("", rings, "io_uring")


@test("mariadb with libaio under a write load: no row is lost or doubled, and its tables are sound", timeout=300)
def mariadb_aio():
    need("mariadbd")
    known = subprocess.run(["mariadbd", "--no-defaults", "--help", "--verbose"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    if "--innodb-linux-aio" not in known:
        raise Skip("this mariadbd has no --innodb-linux-aio")
    under_load("--innodb-linux-aio=aio", contexts, "asynchronous I/O")


if __name__ == "__main__":
    main()
