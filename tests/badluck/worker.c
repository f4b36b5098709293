/* SPDX-License-Identifier: Apache-2.0 */
/* worker [MIB [confined|suspendable|plain [direct]]]: a program that notices harm. Threads that compute, sleep, and pass a token through a pipe, a child that
 * does the same, and memory that is checked all the time. A line per round on standard output; ends when `go` exists,
 * with 0 when nothing was wrong. Confined: all threads are under a seccomp filter that kills for the calls that Cairn would make in them;
 * suspendable: it lets those through that a frozen cgroup makes of interrupted sleeps. Direct: a file is open with O_DIRECT, so that its writes
 * cannot be tracked. */
#include "probe.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

static volatile bool over;
static unsigned char *memory;
static size_t memory_size;
static int token_pipe[2];

static void *compute(void *unused)
{
	(void)unused;
	while (!over) {
		uint64_t sum = 1;
		double real = 1;
		static uint64_t wanted_sum;
		static double wanted_real;
		for (int i = 0; i < 100000; i++) {
			sum = sum * 6364136223846793005u + (uint64_t)i;
			real = real * 1.0000001 + 1e-9 * i;
		}
		if (!wanted_sum) {
			wanted_sum = sum;
			wanted_real = real;
		}
		if (sum != wanted_sum || real != wanted_real)
			probe_differs("a computed sum");
	}
	return NULL;
}

static void *sleeper(void *unused)
{
	(void)unused;
	sigset_t before, after;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	while (!over) {
		uint64_t since = probe_clock_ns(CLOCK_MONOTONIC);
		if (poll(NULL, 0, 2))
			probe_differs("poll: %s", strerror(errno));
		if (nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL))
			probe_differs("nanosleep: %s", strerror(errno));
		if (probe_clock_ns(CLOCK_MONOTONIC) - since < 5000000 - 100000)
			probe_differs("a sleep was too short");
		pthread_sigmask(SIG_SETMASK, NULL, &after);
		if (memcmp(&before, &after, 8))
			probe_differs("the signal mask changed");
	}
	return NULL;
}

static void *passer(void *unused)
{
	(void)unused;
	uint64_t token = 0;
	while (!over) {
		uint64_t seen = 0;
		if (read(token_pipe[0], &seen, sizeof seen) != sizeof seen)
			probe_differs("read of the token: %s", strerror(errno));
		else if (seen != token)
			probe_differs("the token is %llu, was %llu", (long long)seen, (long long)token);
		token++;
		if (write(token_pipe[1], &token, sizeof token) != sizeof token)
			probe_differs("write of the token: %s", strerror(errno));
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	return NULL;
}

static void confine(bool suspendable)
{
	const unsigned killers[] = { SYS_mmap, SYS_munmap, SYS_select, SYS_prctl, SYS_sigaltstack, SYS_getitimer, SYS_timer_gettime,
					    SYS_brk, SYS_userfaultfd, SYS_membarrier, SYS_getpid,
					    suspendable ? SYS_userfaultfd : SYS_restart_syscall };
	enum { COUNT = sizeof killers / sizeof *killers };
	struct sock_filter program[COUNT + 3] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)) };
	for (unsigned i = 0; i < COUNT; i++)
		program[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, killers[i], (unsigned char)(COUNT - i), 0);
	program[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog whole = { .len = COUNT + 3, .filter = program };
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	PROBE(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &whole));
}

static void work(bool speaks, const char *manner)
{
	pthread_t threads[3];
	uint64_t token = 0;
	PROBE(pipe(token_pipe));
	PROBE(write(token_pipe[1], &token, sizeof token));
	PROBE_SAME(pthread_create(&threads[0], NULL, compute, NULL), 0, "set-up");
	PROBE_SAME(pthread_create(&threads[1], NULL, sleeper, NULL), 0, "set-up");
	PROBE_SAME(pthread_create(&threads[2], NULL, passer, NULL), 0, "set-up");
	if (*manner && strcmp(manner, "plain"))
		confine(!strcmp(manner, "suspendable"));
	if (speaks)
		probe_ready();
	size_t at = 0;
	for (unsigned long round = 0; access(probe_go, F_OK); round++) {
		size_t piece = 262144 < memory_size ? 262144 : memory_size;
		if (at + piece > memory_size)
			at = 0;
		for (size_t i = at; i < at + piece; i += 8)
			if (*(uint64_t *)(memory + i) != i * 0x9e3779b97f4a7c15u) {
				probe_differs("memory at %zu", i);
				break;
			}
		at += piece;
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
		if (speaks)
			printf("round %lu\n", round);
	}
	over = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	memory_size = (size_t)(argc > 1 ? atoi(argv[1]) : 4) << 20;
	memory = PROBE((unsigned char *)malloc(memory_size));
	for (size_t i = 0; i < memory_size; i += 8)
		*(uint64_t *)(memory + i) = i * 0x9e3779b97f4a7c15u;
	const char *manner = argc > 2 ? argv[2] : "";
	if (argc > 3)
		PROBE(open("direct", O_RDWR | O_CREAT | O_DIRECT, 0600));
	pid_t child = PROBE(fork());
	if (!child) {
		work(false, manner);
		_exit(probe_faults != 0);
	}
	work(true, manner);
	probe_join(child, "child");
	return probe_end();
}
