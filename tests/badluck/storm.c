/* SPDX-License-Identifier: Apache-2.0 */
/* storm fork|vfork|threads|exec|descriptors|exit [MICROSECONDS]: a program that never stands still: it forks, makes threads or descriptors, runs exec in a thread that is not
 * the first, or ends. */
#include "probe.h"

#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

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

static const char *own_program;

static void *exec_next(void *left)
{
	char number[24];
	snprintf(number, sizeof number, "%ld", (long)left - 1);
	usleep((useconds_t)((long)left * 331 % 1000));
	execl(own_program, own_program, "execs", number, NULL);
	_exit(99);
}

static void *stay(void *argument)
{
	for (;;)
		pause();
	return argument;
}

/* The kernel ends all others, and the one goes on with the number of the first, which may have ended before. */
static int run_execs(long left)
{
	pthread_t thread;
	if (!left)
		return 7;
	for (int i = 0; i < 3; i++)
		pthread_create(&thread, NULL, stay, NULL);
	pthread_create(&thread, NULL, exec_next, (void *)left);
	if (left % 3 == 1)
		pthread_exit(NULL);
	stay(NULL);
	return 98;
}

static void storm_exec(long round)
{
	(void)round;
	int status = 0;
	pid_t pid = PROBE(fork());
	if (!pid) {
		execl(own_program, own_program, "execs", "12", NULL);
		_exit(97);
	}
	PROBE_SAME(waitpid(pid, &status, 0), pid, "waitpid");
	PROBE_SAME(status, 7 << 8, "wait status");
}

static int open_some(long kind, int ends[2])
{
	ends[1] = -1;
	switch (kind) {
	case 0: return pipe(ends);
	case 1: return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	case 2: return ends[0] = eventfd(3, 0);
	case 3: return ends[0] = epoll_create1(0);
	case 4: return ends[0] = timerfd_create(CLOCK_MONOTONIC, 0);
	case 5: return ends[0] = inotify_init1(0);
	case 6: return ends[0] = memfd_create("storm", 0);
	case 7: return ends[0] = open("/etc/passwd", O_RDONLY);
	case 8: return ends[0] = open("/dev/null", O_RDWR);
	case 9: return ends[0] = open(".", O_RDONLY | O_DIRECTORY);
	case 10: return ends[0] = socket(AF_INET, SOCK_DGRAM, 0);
	case 11: return ends[0] = open(".", O_TMPFILE | O_RDWR, 0600);
	case 12: return ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
	default:
		ends[0] = open("passing", O_CREAT | O_RDWR, 0600);
		return unlink("passing");
	}
}

/* What has a number is something else a moment later. */
static void storm_descriptors(long round)
{
	enum { SLOTS = 12, KINDS = 14 };
	static int ends[SLOTS][2];
	static uint64_t state = 1;
	for (int i = 0; i < SLOTS; i++) {
		state = state * 6364136223846793005u + (uint64_t)round;
		for (int e = 0; round && e < 2; e++)
			if (ends[i][e] >= 0)
				PROBE(close(ends[i][e]));
		PROBE(open_some((long)(state >> 33) % KINDS, ends[i]));
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "fork";
	own_program = argv[0];
	if (!strcmp(what, "execs") && argc > 2)
		return run_execs(atol(argv[2]));
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
		else if (!strcmp(what, "exec"))
			storm_exec(round);
		else if (!strcmp(what, "descriptors"))
			storm_descriptors(round);
		else
			storm_threads(round);
		if (round % 20 == 0)
			printf("round %ld\n", round);
	}
	return probe_end();
}
