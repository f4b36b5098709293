#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""python3 with threads, an sqlite database in memory, an open log and a subprocess behind pipes."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import PYTHON, main, need, same_files, start, test, undisturbed, write

JOB = r'''
import hashlib, os, queue, sqlite3, subprocess, sys, threading, time

ROWS = int(sys.argv[1])
WORKERS = 4
answers = queue.Queue()

def chain(worker):
    value = str(worker).encode()
    for row in range(worker, ROWS, WORKERS):
        for _ in range(10000):
            value = hashlib.sha256(value).digest()
        answers.put((row, value.hex()))

database = sqlite3.connect(":memory:")
database.execute("create table chain (row integer primary key, value text, upper text)")
log = open("log", "a")
helper = subprocess.Popen(["sed", "-u", "s/[a-f]/\\U&/g"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
threads = [threading.Thread(target=chain, args=(i,)) for i in range(WORKERS)]
for thread in threads:
    thread.start()
for count in range(ROWS):
    row, value = answers.get()
    helper.stdin.write(value + "\n")
    helper.stdin.flush()
    upper = helper.stdout.readline().strip()
    database.execute("insert into chain values (?, ?, ?)", (row, value, upper))
    log.write(f"{count}\n")
    log.flush()
    while count == ROWS * 3 // 4 and not os.path.exists("finish"): time.sleep(0.01)
for thread in threads:
    thread.join()
helper.stdin.close()
helper.wait()
total = hashlib.sha256()
for line in database.iterdump():
    total.update(line.encode())
print(database.execute("select count(*), count(distinct value), count(distinct upper) from chain").fetchone(),
      total.hexdigest(), helper.returncode)
'''


def job(directory, rows=420):
    write(f"{directory}/job.py", JOB)
    return [PYTHON, "job.py", str(rows)]


@test("python with threads, sqlite, an appended log and a subprocess ends with the same database", quick=True)
def python():
    need("sed")
    reference = undisturbed(job("reference"))
    program = start(job("job"), "job")
    for count in (30, 100):
        program.wait_lines(count, "log")
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "log", "err")


@test("python that is saved 20 times and runs on ends with the same database")
def python_runs_on():
    need("sed")
    reference = undisturbed(job("reference", 700))
    program = start(job("job", 700), "job")
    for number in range(20):
        program.wait_lines(20 * number, "log")
        program.checkpoint(kill=False, image=program.path("image.cairn"))
    program.finish()
    same_files(program, reference, "out", "log", "err")


if __name__ == "__main__":
    main()
