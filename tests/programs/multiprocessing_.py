#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""python's multiprocessing: a pool behind pipes and semaphores, an array in an unlinked file, an anonymous shared mapping whose
start nobody maps any more, and named shared memory with its tracker process."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import PYTHON, main, same_files, start, test, undisturbed, write

JOB = r'''
import ctypes, hashlib, mmap, multiprocessing, os, sys, time
from multiprocessing import shared_memory

ROWS, WORKERS, SIZE = int(sys.argv[1]), 3, 1 << 16

def work(number, tasks, answers, lock, array, total, name, anonymous):
    named = shared_memory.SharedMemory(name)
    while (row := tasks.get()) is not None:
        value = hashlib.sha256(str(row).encode())
        for _ in range(3000):
            value = hashlib.sha256(value.digest())
        with lock:
            total.value += row
            array[row % len(array)] += row
            named.buf[row % 4096] = row % 251
            at = row * 64 % SIZE
            anonymous[at:at + 32] = value.digest()
        answers.put((row, value.hexdigest()))
    named.close()

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    tasks, answers, lock = multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Lock()
    array, total = multiprocessing.Array("q", 1000), multiprocessing.Value("q", 0)
    named = shared_memory.SharedMemory(create=True, size=8192)
    anonymous = mmap.mmap(-1, SIZE)
    workers = [multiprocessing.Process(target=work, args=(i, tasks, answers, lock, array, total, named.name, anonymous))
               for i in range(WORKERS)]
    for worker in workers:
        worker.start()
    log = open("log", "a")
    seen = {}
    for row in range(ROWS):
        tasks.put(row)
        while row >= ROWS * 3 // 4 and not os.path.exists("finish"): time.sleep(0.01)
        if row >= 10:
            number, value = answers.get()
            seen[number] = value
            log.write("row\n")
            log.flush()
    for worker in workers:
        tasks.put(None)
    while len(seen) < ROWS:
        number, value = answers.get()
        seen[number] = value
    for worker in workers:
        worker.join()
    total_hash = hashlib.sha256(repr(sorted(seen.items())).encode())
    total_hash.update(bytes(named.buf[:4096]) + anonymous[:] + repr(list(array)).encode())
    print(total.value, total_hash.hexdigest(), [worker.exitcode for worker in workers])
    named.close()
    named.unlink()
'''


def job(directory, rows=400):
    write(f"{directory}/job.py", JOB)
    return [PYTHON, "job.py", str(rows)]


@test("python's multiprocessing with shared memory of all sorts ends with the same sums", quick=True)
def multiprocessing():
    reference = undisturbed(job("reference"))
    program = start(job("job"), "job")
    for count in (30, 150):
        program.wait_lines(count, "log")
        program.checkpoint(kill=False, image=program.path("image.cairn"))
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "err")


if __name__ == "__main__":
    main()
