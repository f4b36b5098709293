/* SPDX-License-Identifier: Apache-2.0 */
/* storm fork|vfork|threads|exit [MICROSECONDS]: a program that never stands still: it forks, makes threads, or ends. */
#include "probe.h"

#include <pthread.h>
#include <spawn.h>

extern char **environ;

static void *nothing(void *argument)
{
	return argument;
}

static void storm_fork(long round)
{
	pid_t pids[4];
	for (int i = 0; i < 4; i++) {
		pids[i] = PROBE(fork());
		if (!pids[i]) {
			if (i % 2) { /* a grandchild too */
				pid_t pid = fork();
				if (!pid)
					_exit(7);
				int status = 0;
				_exit(waitpid(pid, &status, 0) == pid && status == 7 << 8 ? (int)(round & 63) : 99);
			}
			_exit((int)(round & 63));
		}
	}
	for (int i = 0; i < 4; i++) {
		int status = 0;
		PROBE_SAME(waitpid(pids[i], &status, 0), pids[i], "waitpid");
		PROBE_SAME(status, (round & 63) << 8, "wait status");
	}
}

static void storm_vfork(long round)
{
	(void)round;
	pid_t pid = 0;
	char *words[] = { "true", NULL };
	int status = 0;
	PROBE_SAME(posix_spawn(&pid, "/bin/true", NULL, NULL, words, environ), 0, "posix_spawn");
	PROBE_SAME(waitpid(pid, &status, 0), pid, "waitpid");
	PROBE_SAME(status, 0, "wait status");
}

static void storm_threads(long round)
{
	pthread_t threads[8];
	for (long i = 0; i < 8; i++)
		PROBE_SAME(pthread_create(&threads[i], NULL, nothing, (void *)(round + i)), 0, "pthread_create");
	for (long i = 0; i < 8; i++) {
		void *value = NULL;
		PROBE_SAME(pthread_join(threads[i], &value), 0, "pthread_join");
		PROBE_SAME((long)value, round + i, "value of a thread");
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "fork";
	probe_ready();
	if (!strcmp(what, "exit")) {
		uint64_t until = probe_clock_ns(CLOCK_MONOTONIC) + (uint64_t)atol(argc > 2 ? argv[2] : "1000") * 1000;
		while (probe_clock_ns(CLOCK_MONOTONIC) < until)
			;
		return 0;
	}
	for (long round = 0; access(probe_go, F_OK); round++) {
		if (!strcmp(what, "fork"))
			storm_fork(round);
		else if (!strcmp(what, "vfork"))
			storm_vfork(round);
		else
			storm_threads(round);
		if (round % 20 == 0)
			printf("round %ld\n", round);
	}
	return probe_end();
}
