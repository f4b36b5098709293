/* SPDX-License-Identifier: Apache-2.0 */
/* probe: many processes that have no semaphore adjustments come back without, whatever threads Cairn makes */
#include "probe.h"

#include <linux/kcmp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { CHILDREN = 24 };

/* A process born just now has none (ipc/sem.c copy_semundo): whoever is equal to it has none either. */
static int has_none(void)
{
	pid_t fresh = fork();
	if (!fresh)
		for (;;)
			pause();
	long order = syscall(SYS_kcmp, getpid(), fresh, KCMP_SYSVSEM, 0L, 0L);
	kill(fresh, SIGKILL);
	waitpid(fresh, NULL, 0);
	return order == 0;
}

static int child(int ask, int answer)
{
	char byte;
	while (read(ask, &byte, 1) == 1)
		if (write(answer, has_none() ? "n" : "s", 1) != 1)
			return 1;
	return 0;
}

static void *wait_for_ever(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

static void ask_all(int ask, int answer)
{
	for (int i = 0; i < CHILDREN; i++) {
		char byte = 0;
		PROBE_SAME(write(ask, "?", 1), 1, "a question");
		PROBE_SAME(read(answer, &byte, 1), 1, "an answer");
		PROBE_SAME(byte, 'n', "the adjustments of a child");
	}
}

int main(void)
{
	int ask[2], answer[2];
	pthread_t thread;
	PROBE(pipe(ask));
	PROBE(pipe(answer));
	for (int i = 0; i < CHILDREN; i++) {
		pid_t pid = PROBE(fork());
		if (!pid) {
			close(ask[1]);
			_exit(child(ask[0], answer[1]));
		}
	}
	/* One that has a list. */
	PROBE_TRUE(!pthread_create(&thread, NULL, wait_for_ever, NULL), "a thread");
	ask_all(ask[1], answer[0]);

	probe_save();

	ask_all(ask[1], answer[0]);
	close(ask[1]);
	return probe_end();
}
