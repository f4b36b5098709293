/* SPDX-License-Identifier: Apache-2.0 */
/* driver: blocked */
/* variant nanosleep: nanosleep sleeps what was left */
/* variant nanosleep_rem: nanosleep with a remainder sleeps what was left */
/* variant nanosleep_same: nanosleep whose remainder goes where the time stood, as in most loops, sleeps what was left */
/* variant clock_nanosleep_same: clock_nanosleep whose remainder goes where the time stood sleeps what was left */
/* variant clock_nanosleep: clock_nanosleep sleeps what was left */
/* variant clock_nanosleep_absolute: clock_nanosleep to an absolute time wakes at that time */
/* variant poll: poll waits what was left */
/* variant ppoll: ppoll waits what was left and keeps its mask */
/* variant select: select waits what was left */
/* variant futex: a futex wait with a timeout waits what was left */
/* variant epoll_wait: epoll_wait waits what was left */
/* variant sigtimedwait: sigtimedwait waits what was left */
/* variant semtimedop: semtimedop waits what was left, or SysV semaphores are refused */
/* variant io_getevents: io_getevents waits what was left */
/* variant read: a read of an empty pipe goes on, and gets what a child writes later */
/* variant wait4: wait4 goes on, and gets the child that ends later */
/* variant pause: pause goes on until a signal comes */
/* variant sigsuspend: sigsuspend goes on until a signal comes, and puts back the mask */
#include "probe.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>

/* Each call takes 1.5 s. It returns what the call has to return then. */
static const struct timespec length = { 1, 500000000 };

static void nothing(int number)
{
	(void)number;
}

static uint64_t begin(void)
{
	uint64_t now = probe_clock_ns(CLOCK_MONOTONIC);
	probe_ready();
	return now;
}

static void end(uint64_t since, long got, long wanted, int error)
{
	int seen = errno;
	uint64_t slept = probe_clock_ns(CLOCK_MONOTONIC) - since;
	PROBE_SAME(got, wanted, "result of the call");
	if (wanted < 0)
		PROBE_SAME(seen, error, "error of the call");
	printf("slept %.4f\n", (double)slept / 1e9);
}

/* A child that does something 1.5 s later. */
static pid_t later(int fd, int number)
{
	pid_t parent = getpid(), child = PROBE(fork());
	if (child)
		return child;
	nanosleep(&length, NULL);
	if (fd >= 0)
		PROBE_SAME(write(fd, "later", 5), 5, "write of the child");
	if (number)
		kill(parent, number);
	_exit(33);
}

static void call(const char *variant)
{
	int pipe_fds[2], word = 0;
	PROBE(pipe(pipe_fds));
	struct timespec left = length;
	struct pollfd one = { .fd = pipe_fds[0], .events = POLLIN };
	uint64_t since;

	if (!strcmp(variant, "nanosleep")) {
		since = begin();
		end(since, nanosleep(&length, NULL), 0, 0);
	} else if (!strcmp(variant, "nanosleep_rem")) {
		since = begin();
		end(since, nanosleep(&length, &left), 0, 0);
	} else if (!strcmp(variant, "nanosleep_same")) {
		since = begin();
		end(since, nanosleep(&left, &left), 0, 0);
	} else if (!strcmp(variant, "clock_nanosleep_same")) {
		since = begin();
		end(since, clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left), 0, 0);
	} else if (!strcmp(variant, "clock_nanosleep")) {
		since = begin();
		end(since, clock_nanosleep(CLOCK_BOOTTIME, 0, &length, &left), 0, 0);
	} else if (!strcmp(variant, "clock_nanosleep_absolute")) {
		printf("absolute\n");
		since = begin();
		uint64_t until = since + 1500000000u;
		struct timespec when = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
		end(since, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL), 0, 0);
	} else if (!strcmp(variant, "poll")) {
		since = begin();
		end(since, poll(&one, 1, 1500), 0, 0);
	} else if (!strcmp(variant, "ppoll")) {
		sigset_t mask, before, after;
		sigemptyset(&mask);
		sigaddset(&mask, SIGUSR2);
		PROBE(sigprocmask(SIG_SETMASK, NULL, &before));
		since = begin();
		end(since, ppoll(&one, 1, &left, &mask), 0, 0);
		sigprocmask(SIG_SETMASK, NULL, &after);
		PROBE_TRUE(!memcmp(&before, &after, 8), "mask after ppoll");
	} else if (!strcmp(variant, "select")) {
		fd_set set;
		FD_ZERO(&set);
		FD_SET(pipe_fds[0], &set);
		struct timeval time = { 1, 500000 };
		since = begin();
		end(since, select(pipe_fds[0] + 1, &set, NULL, NULL, &time), 0, 0);
	} else if (!strcmp(variant, "futex")) {
		since = begin();
		end(since, syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &length, NULL, 0), -1, ETIMEDOUT);
	} else if (!strcmp(variant, "epoll_wait")) {
		int epoll = PROBE(epoll_create1(0));
		struct epoll_event event = { .events = EPOLLIN };
		PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_fds[0], &event));
		since = begin();
		end(since, epoll_wait(epoll, &event, 1, 1500), 0, 0);
	} else if (!strcmp(variant, "sigtimedwait")) {
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		PROBE(sigprocmask(SIG_BLOCK, &set, NULL));
		since = begin();
		end(since, sigtimedwait(&set, NULL, &length), -1, EAGAIN);
	} else if (!strcmp(variant, "semtimedop")) {
		int id = PROBE(semget(IPC_PRIVATE, 1, 0600));
		struct sembuf operation = { .sem_op = -1 };
		since = begin();
		end(since, semtimedop(id, &operation, 1, &length), -1, EAGAIN);
		semctl(id, 0, IPC_RMID);
	} else if (!strcmp(variant, "io_getevents")) {
		struct io_event event;
		aio_context_t context = 0;
		if (syscall(SYS_io_setup, 1, &context))
			probe_skip("io_setup: %s", strerror(errno));
		since = begin();
		end(since, syscall(SYS_io_getevents, context, 1, 1, &event, &left), 0, 0);
	} else if (!strcmp(variant, "read")) {
		char bytes[16];
		pid_t child = later(pipe_fds[1], 0);
		since = begin();
		end(since, read(pipe_fds[0], bytes, sizeof bytes), 5, 0);
		waitpid(child, NULL, 0);
	} else if (!strcmp(variant, "wait4")) {
		pid_t child = later(-1, 0);
		int status = 0;
		since = begin();
		end(since, waitpid(child, &status, 0), child, 0);
		PROBE_SAME(status, 33 << 8, "wait status");
	} else if (!strcmp(variant, "pause")) {
		signal(SIGUSR1, nothing);
		pid_t child = later(-1, SIGUSR1);
		since = begin();
		end(since, pause(), -1, EINTR);
		waitpid(child, NULL, 0);
	} else if (!strcmp(variant, "sigsuspend")) {
		sigset_t set, empty, after;
		sigemptyset(&set);
		sigemptyset(&empty);
		sigaddset(&set, SIGUSR1);
		sigaddset(&set, SIGHUP);
		PROBE(sigprocmask(SIG_SETMASK, &set, NULL));
		signal(SIGUSR1, nothing);
		pid_t child = later(-1, SIGUSR1);
		since = begin();
		end(since, sigsuspend(&empty), -1, EINTR);
		sigprocmask(SIG_SETMASK, NULL, &after);
		PROBE_TRUE(!memcmp(&set, &after, 8), "mask after sigsuspend");
		waitpid(child, NULL, 0);
	} else {
		printf("set-up: no variant '%s'\n", variant);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	call(argc > 1 ? argv[1] : "nanosleep");
	return probe_end();
}
