/* SPDX-License-Identifier: Apache-2.0 */
/* driver: notice */
/* variant calls: a program that is saved again and again sees no EINTR from any blocking call, none too short, and no changed mask */
/* variant rseq: an rseq counter per CPU loses nothing under repeated saves */
/* variant stops: a parent that stops and continues its child all the time waits for neither in vain */
/* variant registers: loops in assembly keep all registers under repeated saves */
#include "probe.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/rseq.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/inotify.h>

static volatile bool over;
static int empty_pipe[2];
static struct timespec moment(void)
{
	return (struct timespec){ .tv_nsec = 3000000 };
}

/* Each makes one blocking call of about 3 ms; true when it saw what it must not see. */
static bool call_nanosleep(void)
{
	struct timespec time = moment();
	return nanosleep(&time, NULL) != 0;
}

static bool call_clock_nanosleep(void)
{
	struct timespec time = moment(), left;
	return clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &left) != 0;
}

static bool call_poll(void)
{
	struct pollfd one = { .fd = empty_pipe[0], .events = POLLIN };
	return poll(&one, 1, 3) != 0;
}

static bool call_ppoll(void)
{
	struct pollfd one = { .fd = empty_pipe[0], .events = POLLIN };
	struct timespec time = moment();
	sigset_t mask;
	sigemptyset(&mask);
	return ppoll(&one, 1, &time, &mask) != 0;
}

static bool call_select(void)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(empty_pipe[0], &set);
	struct timeval time = { .tv_usec = 3000 };
	return select(empty_pipe[0] + 1, &set, NULL, NULL, &time) != 0;
}

static bool call_pselect(void)
{
	struct timespec time = moment();
	sigset_t mask;
	sigemptyset(&mask);
	return pselect(0, NULL, NULL, NULL, &time, &mask) != 0;
}

static bool call_futex(void)
{
	int word = 0;
	struct timespec time = moment();
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0) != -1 || errno != ETIMEDOUT;
}

static bool call_epoll_wait(void)
{
	static _Thread_local int epoll = -1;
	if (epoll < 0)
		epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	return epoll_wait(epoll, &event, 1, 3) != 0;
}

static bool call_epoll_pwait(void)
{
	static _Thread_local int epoll = -1;
	if (epoll < 0)
		epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	sigset_t mask;
	sigemptyset(&mask);
	return epoll_pwait(epoll, &event, 1, 3, &mask) != 0;
}

static bool call_sigtimedwait(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	struct timespec time = moment();
	return sigtimedwait(&set, NULL, &time) != -1 || errno != EAGAIN;
}

static bool call_semtimedop(void)
{
	static _Thread_local int id = -1;
	if (id < 0) {
		id = semget(IPC_PRIVATE, 1, 0600);
		if (id < 0)
			return true;
	}
	struct sembuf operation = { .sem_op = -1 };
	struct timespec time = moment();
	bool wrong = semtimedop(id, &operation, 1, &time) != -1 || errno != EAGAIN;
	if (over)
		semctl(id, 0, IPC_RMID);
	return wrong;
}

/* A pipe on which another thread writes now and then. */
static int slow_pipe[2];

static bool call_read(void)
{
	char byte;
	return read(slow_pipe[0], &byte, 1) != 1;
}

static void *write_slowly(void *unused)
{
	(void)unused;
	while (!over) {
		struct timespec time = moment();
		nanosleep(&time, NULL);
		if (write(slow_pipe[1], "x", 1) != 1)
			probe_differs("write to a pipe: %s", strerror(errno));
	}
	close(slow_pipe[1]);
	return NULL;
}

/* PARTS of the list that need other kernel objects are left out when those are refused: see "refused" in the driver. */
static const struct call {
	const char *name;
	bool (*call)(void);
} calls[] = {
	{ "nanosleep", call_nanosleep },   { "clock_nanosleep", call_clock_nanosleep }, { "poll", call_poll },
	{ "ppoll", call_ppoll },	   { "select", call_select },		    { "pselect", call_pselect },
	{ "futex", call_futex },	   { "epoll_wait", call_epoll_wait },	    { "epoll_pwait", call_epoll_pwait },
	{ "sigtimedwait", call_sigtimedwait }, { "semtimedop", call_semtimedop },	    { "read", call_read },
};
enum { CALLS = sizeof calls / sizeof *calls };
static unsigned long rounds[CALLS];

static void *call_loop(void *argument)
{
	size_t self = (size_t)argument;
	sigset_t mask, seen;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, (int)(SIGRTMIN + (int)self));
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	while (!over) {
		errno = 0;
		uint64_t since = probe_clock_ns(CLOCK_MONOTONIC);
		if (calls[self].call() && !over)
			probe_differs("%s returned early or failed: %s", calls[self].name, strerror(errno));
		uint64_t took = probe_clock_ns(CLOCK_MONOTONIC) - since;
		if (calls[self].call != call_read && took < 3000000)
			probe_differs("%s of 3 ms took %.3f ms", calls[self].name, (double)took / 1e6);
		pthread_sigmask(SIG_SETMASK, NULL, &seen);
		if (memcmp(&seen, &mask, 8))
			probe_differs("the mask of the thread in %s changed", calls[self].name);
		rounds[self]++;
	}
	return NULL;
}

static void calls_run(void)
{
	pthread_t threads[CALLS], writer;
	PROBE(pipe(empty_pipe));
	PROBE(pipe(slow_pipe));
	sigset_t block;
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	PROBE(sigprocmask(SIG_BLOCK, &block, NULL));
	PROBE_SAME(pthread_create(&writer, NULL, write_slowly, NULL), 0, "set-up");
	for (size_t i = 0; i < CALLS; i++)
		PROBE_SAME(pthread_create(&threads[i], NULL, call_loop, (void *)i), 0, "set-up");
	probe_save();
	over = true;
	pthread_join(writer, NULL);
	for (size_t i = 0; i < CALLS; i++) {
		pthread_join(threads[i], NULL);
		if (!rounds[i])
			probe_differs("%s never returned", calls[i].name);
	}
}

/* ---- a counter per CPU, incremented by a restartable sequence ---- */

struct counter {
	uint64_t count;
	char padding[120];
};
static struct counter counters[1024];

/* One increment, 0; or 1 when the section was aborted. The section is long, so that a stop often falls into it. */
static int rseq_increment(struct rseq *area)
{
	unsigned cpu = __atomic_load_n(&area->cpu_id_start, __ATOMIC_RELAXED);
	uint64_t *counter = &counters[cpu].count;
	asm goto(".pushsection __rseq_cs_probe, \"aw\"\n"
		 ".balign 32\n"
		 "3:\n"
		 ".long 0, 0\n"
		 ".quad 1f, (2f - 1f), 4f\n"
		 ".popsection\n"
		 "leaq 3b(%%rip), %%rax\n"
		 "movq %%rax, 8(%[area])\n"
		 "1:\n"
		 "cmpl %[cpu], 4(%[area])\n"
		 "jnz 4f\n"
		 "movq (%[counter]), %%rax\n"
		 "movl $60, %%ecx\n"
		 "5: pause\n"
		 "decl %%ecx\n"
		 "jnz 5b\n"
		 "incq %%rax\n"
		 "movq %%rax, (%[counter])\n"
		 "2:\n"
		 ".pushsection .text.unlikely, \"ax\"\n"
		 ".byte 0x0f, 0xb9, 0x3d\n"
		 ".long 0x53053053\n"
		 "4: jmp %l[aborted]\n"
		 ".popsection\n"
		 :
		 : [area] "r"(area), [cpu] "r"(cpu), [counter] "r"(counter)
		 : "memory", "cc", "rax", "rcx"
		 : aborted);
	return 0;
aborted:
	return 1;
}

static void *rseq_loop(void *argument)
{
	struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	uint64_t *done = argument;
	while (!over)
		if (!rseq_increment(area))
			++*done;
	area->rseq_cs = 0;
	return NULL;
}

static void rseq_run(void)
{
	if (!__rseq_size)
		probe_skip("this C library registers no rseq area");
	enum { THREADS = 4 };
	static struct counter done[THREADS];
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		PROBE_SAME(pthread_create(&threads[i], NULL, rseq_loop, &done[i].count), 0, "set-up");
	probe_save();
	over = true;
	uint64_t wanted = 0, got = 0;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		wanted += done[i].count;
	}
	for (int i = 0; i < 1024; i++)
		got += counters[i].count;
	PROBE_SAME(got, wanted, "sum of the counters per CPU");
	PROBE_TRUE(wanted > 0, "set-up: something was counted");
}

/* ---- registers under repeated saves: sums that go wrong when any of them changes ---- */

static void *register_loop(void *argument)
{
	bool vector = argument != NULL;
	while (!over) {
		uint64_t sum = 0x9e3779b97f4a7c15u, other = 1;
		double real = 1;
		for (int i = 0; i < 200000; i++) {
			sum = (sum << 7 | sum >> 57) * 3 + (uint64_t)i;
			other ^= sum >> 3;
			if (vector)
				real = real * 1.0000001 + 1e-7 * (double)(i & 15);
		}
		static uint64_t first_other;
		static double first_real;
		uint64_t none = 0;
		if (!__atomic_compare_exchange_n(&first_other, &none, other, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) &&
		    none != other)
			probe_differs("a sum in registers is %#llx, was %#llx", (long long)other, (long long)none);
		if (vector) {
			if (first_real == 0)
				first_real = real;
			else if (first_real != real)
				probe_differs("a sum in vector registers is %.17g, was %.17g", real, first_real);
		}
	}
	return NULL;
}

static void registers_run(void)
{
	pthread_t threads[3];
	for (long i = 0; i < 3; i++)
		PROBE_SAME(pthread_create(&threads[i], NULL, register_loop, i == 0 ? (void *)1 : NULL), 0, "set-up");
	probe_save();
	over = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

static pid_t stopped_child;

static void *stop_loop(void *argument)
{
	int status;
	for (long round = 0; !over; round++) {
		PROBE(kill(stopped_child, SIGSTOP));
		pid_t pid = PROBE(waitpid(stopped_child, &status, WUNTRACED));
		if (pid != stopped_child || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
			probe_differs("round %ld: waited for a stop, status is %#x", round, (unsigned)status);
		PROBE(kill(stopped_child, SIGCONT));
		pid = PROBE(waitpid(stopped_child, &status, WCONTINUED));
		if (pid != stopped_child || !WIFCONTINUED(status))
			probe_differs("round %ld: waited for it to go on, status is %#x", round, (unsigned)status);
	}
	return argument;
}

static void stops_run(void)
{
	stopped_child = PROBE(fork());
	if (!stopped_child)
		for (volatile unsigned i = 0;; i++)
			if (i % 1000000 == 0)
				nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	pthread_t thread;
	PROBE_SAME(pthread_create(&thread, NULL, stop_loop, NULL), 0, "set-up");
	probe_save();
	over = true;
	pthread_join(thread, NULL);
	kill(stopped_child, SIGKILL);
	PROBE(waitpid(stopped_child, NULL, 0));
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "calls";
	if (!strcmp(variant, "calls"))
		calls_run();
	else if (!strcmp(variant, "rseq"))
		rseq_run();
	else if (!strcmp(variant, "stops"))
		stops_run();
	else
		registers_run();
	return probe_end();
}
