#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs without a dynamic linker: one built with musl, and Debian's busybox."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import main, need, same_files, sh, start, test, undisturbed, write

MUSL = r'''
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static int whose;
static _Thread_local double sum;
static uint64_t hash = 14695981039346656037u;

static void *work(void *argument)
{
	int self = (int)(intptr_t)argument;
	for (int round = 0; round < 150; round++) {
		char *text = calloc(1, 100000 + (size_t)round * 100);
		for (int i = 1; i < 120000; i++)
			sum += sin(i * 0.001) * sqrt(round + 1);
		sprintf(text, "%d %d %.9f\n", self, round, sum);
		pthread_mutex_lock(&lock);
		while (whose != self)
			pthread_cond_wait(&turn, &lock);
		for (char *c = text; *c; c++)
			hash = (hash ^ (uint64_t)*c) * 1099511628211u;
		printf("%s", text);
		fflush(stdout);
		while (round == 100 && access("finish", F_OK)) usleep(10000);
		whose = (self + 1) % 3;
		pthread_cond_broadcast(&turn);
		pthread_mutex_unlock(&lock);
		free(text);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[3];
	for (intptr_t i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("%016llx\n", (unsigned long long)hash);
	return 0;
}
'''

SHELL = r'''
i=0
while [ $i -lt 400 ]; do
	i=$((i + 1))
	value=$(echo "$value $i" | busybox sha256sum | busybox cut -c1-64)
	echo "$i $value"
	while [ $i = 300 ] && [ ! -e finish ]; do busybox usleep 10000; done
done
'''


@test("a static musl program with threads ends with the same sums", quick=True)
def musl():
    need("musl-gcc")
    write("job.c", MUSL)
    sh("musl-gcc", "-static", "-O2", "-o", "job.bin", "job.c", "-lm")
    reference = undisturbed(["../job.bin"])
    program = start(["../job.bin"], "job")
    for count in (60, 180):
        program.wait_lines(count)
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "err")


@test("busybox running a script of short processes ends with the same chain", quick=True)
def busybox():
    need("busybox")
    write("job.sh", SHELL)
    reference = undisturbed(["busybox", "sh", "../job.sh"])
    program = start(["busybox", "sh", "../job.sh"], "job")
    for count in (50, 150):
        program.wait_lines(count)
        program.round_trip()
    program.finish()
    same_files(program, reference, "out", "err")


if __name__ == "__main__":
    main()
