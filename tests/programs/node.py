#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""node: libuv's epoll, eventfd, timers and its two kinds of threads."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import main, need, same_files, start, test, undisturbed, write

JOB = r'''
const crypto = require('crypto'), fs = require('fs');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) {
    let value = String(workerData);
    parentPort.on('message', () => {
        for (let i = 0; i < 1500; i++) value = crypto.createHash('sha256').update(value).digest('hex');
        parentPort.postMessage(value);
    });
} else {
    const rounds = 120, workers = [0, 1].map(id => new Worker(__filename, { workerData: id }));
    const total = crypto.createHash('sha256');
    const ask = worker => new Promise(done => { worker.once('message', done); worker.postMessage('next'); });
    const derive = round => new Promise((done, fail) => crypto.pbkdf2('cairn', String(round), 2000, 32, 'sha256',
        (error, key) => error ? fail(error) : done(key.toString('hex'))));
    let ticks = 0;
    const interval = setInterval(() => ticks++, 5);
    (async () => {
        for (let round = 0; round < rounds; round++) {
            const answers = await Promise.all([ask(workers[0]), ask(workers[1]), derive(round),
                new Promise(done => setTimeout(() => done('timer'), 10))]);
            answers.forEach(answer => total.update(answer));
            await fs.promises.appendFile('log', `round ${round}\n`);
            while (round == 80 && !fs.existsSync('finish')) await new Promise(done => setTimeout(done, 10));
        }
        clearInterval(interval);
        console.log(total.digest('hex'), ticks > 10 ? 'ticked' : 'no ticks');
        await Promise.all(workers.map(worker => worker.terminate()));
    })();
}
'''


@test("node with worker threads, timers and file work ends with the same digest")
def node():
    need("node")
    write("job.js", JOB)
    reference = undisturbed(["node", "../job.js"])
    program = start(["node", "../job.js"], "job")
    for count in (15, 40):
        program.wait_lines(count, "log")
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "log", "err")


if __name__ == "__main__":
    main()
