/* SPDX-License-Identifier: Apache-2.0 */
/* Many small things for the benchmark: crowd processes N | threads N | small. Says ready, waits to be killed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static void *wait_for_ever(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&barrier);
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	int count = argc > 2 ? atoi(argv[2]) : 0;
	if (argc > 1 && !strcmp(argv[1], "processes")) {
		for (int i = 1; i < count; i++)
			if (fork() == 0)
				for (;;)
					pause();
	} else if (argc > 1 && !strcmp(argv[1], "threads")) {
		pthread_attr_t attributes;
		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 65536);
		pthread_barrier_init(&barrier, NULL, (unsigned)count);
		for (int i = 1; i < count; i++) {
			pthread_t thread;
			if (pthread_create(&thread, &attributes, wait_for_ever, NULL))
				return 1;
		}
		if (count > 1)
			pthread_barrier_wait(&barrier);
	} else {
		static char memory[2 << 20];
		memset(memory, 1, sizeof memory);
	}
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
