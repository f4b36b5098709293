/* SPDX-License-Identifier: Apache-2.0 */
/* SEIZE + INTERRUPT + DETACH, with no signal anywhere: some blocked calls go on as if nothing had been, others return
 * EINTR, which a program without signal handlers has never seen. Cairn makes the latter again (tracee/restart.c). */
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>

#include "fact.h"

static const struct timespec long_time = { 1000, 0 };

/* Made before the child, so that the parent can remove them. */
static struct {
	int semaphore, queue;
} ipc;

static long do_epoll_wait(void)
{
	struct epoll_event event;
	return epoll_wait(epoll_create1(0), &event, 1, -1);
}

static long do_epoll_wait_with_timeout(void)
{
	struct epoll_event event;
	return epoll_wait(epoll_create1(0), &event, 1, 1000000);
}

static long do_epoll_pwait2(void)
{
	struct epoll_event event;
	return syscall(SYS_epoll_pwait2, epoll_create1(0), &event, 1, &long_time, NULL, 8);
}

static long do_semop(void)
{
	struct sembuf down = { 0, -1, 0 };
	return syscall(SYS_semop, ipc.semaphore, &down, 1);
}

static long do_semtimedop(void)
{
	struct sembuf down = { 0, -1, 0 };
	return syscall(SYS_semtimedop, ipc.semaphore, &down, 1, &long_time);
}

static long do_sigtimedwait(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return sigtimedwait(&set, NULL, &long_time);
}

static long do_io_getevents(void)
{
	aio_context_t context = 0;
	struct io_event event;
	if (syscall(SYS_io_setup, 1, &context) < 0)
		return -1;
	return syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
}

static long do_io_uring_enter(void)
{
	struct io_uring_params parameters = { 0 };
	long fd = syscall(SYS_io_uring_setup, 8, &parameters);
	return fd < 0 ? -1 : syscall(SYS_io_uring_enter, fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
}

static int timed_socket(int type)
{
	struct timeval timeout = { 1000, 0 };
	int fd = socket(AF_INET, type, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	return fd;
}

static long do_recv_with_timeout(void)
{
	char byte;
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = timed_socket(SOCK_DGRAM);
	if (bind(fd, (struct sockaddr *)&any, sizeof any) < 0)
		return -1;
	return recv(fd, &byte, 1, 0);
}

static long do_accept_with_timeout(void)
{
	int fd = timed_socket(SOCK_STREAM);
	if (listen(fd, 1) < 0)
		return -1;
	return accept(fd, NULL, NULL);
}

static long do_read_of_socket_with_timeout(void)
{
	char byte;
	int pair[2];
	struct timeval timeout = { 1000, 0 };
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	return read(pair[0], &byte, 1);
}

static long do_recv(void)
{
	char byte;
	int pair[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	return recv(pair[0], &byte, 1, 0);
}

static long do_accept(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (listen(fd, 1) < 0)
		return -1;
	return accept(fd, NULL, NULL);
}

static long do_nanosleep(void)
{
	return syscall(SYS_nanosleep, &long_time, NULL);
}

static long do_clock_nanosleep_absolute(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += 1000;
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static long do_poll(void)
{
	return syscall(SYS_poll, NULL, 0, 1000000);
}

static long do_ppoll(void)
{
	struct timespec time = long_time;
	return syscall(SYS_ppoll, NULL, 0, &time, NULL, 8);
}

static long do_select(void)
{
	struct timeval time = { 1000, 0 };
	return syscall(SYS_select, 0, NULL, NULL, NULL, &time);
}

static long do_futex(void)
{
	static int word;
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static long do_futex_with_timeout(void)
{
	static int word;
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &long_time, NULL, 0);
}

static long do_msgrcv(void)
{
	struct {
		long type;
		char text[8];
	} message;
	return msgrcv(ipc.queue, &message, sizeof message.text, 0, 0);
}

static long do_inotify_read(void)
{
	char buffer[512];
	return read(inotify_init1(0), buffer, sizeof buffer);
}

static long do_pipe_read(void)
{
	char byte;
	int fds[2];
	if (pipe(fds) < 0)
		return -1;
	return read(fds[0], &byte, 1);
}

static long do_pause(void)
{
	return syscall(SYS_pause);
}

static long do_sigsuspend(void)
{
	sigset_t none;
	sigemptyset(&none);
	return sigsuspend(&none);
}

static const struct trial {
	const char *name;
	long number;
	bool interrupted; /* expected to return EINTR */
	long (*call)(void);
} trials[] = {
	{ "epoll_wait", SYS_epoll_wait, true, do_epoll_wait },
	{ "epoll_wait with a timeout", SYS_epoll_wait, true, do_epoll_wait_with_timeout },
	{ "epoll_pwait2", SYS_epoll_pwait2, true, do_epoll_pwait2 },
	{ "semop", SYS_semop, true, do_semop },
	{ "semtimedop", SYS_semtimedop, true, do_semtimedop },
	{ "sigtimedwait", SYS_rt_sigtimedwait, true, do_sigtimedwait },
	{ "io_getevents", SYS_io_getevents, true, do_io_getevents },
	{ "io_uring_enter", SYS_io_uring_enter, true, do_io_uring_enter },
	{ "recv with SO_RCVTIMEO", SYS_recvfrom, true, do_recv_with_timeout },
	{ "accept with SO_RCVTIMEO", SYS_accept, true, do_accept_with_timeout },
	{ "read of a socket with SO_RCVTIMEO", SYS_read, true, do_read_of_socket_with_timeout },
	{ "recv", SYS_recvfrom, false, do_recv },
	{ "accept", SYS_accept, false, do_accept },
	{ "nanosleep", SYS_nanosleep, false, do_nanosleep },
	{ "clock_nanosleep with TIMER_ABSTIME", SYS_clock_nanosleep, false, do_clock_nanosleep_absolute },
	{ "poll", SYS_poll, false, do_poll },
	{ "ppoll", SYS_ppoll, false, do_ppoll },
	{ "select", SYS_select, false, do_select },
	{ "futex", SYS_futex, false, do_futex },
	{ "futex with a timeout", SYS_futex, false, do_futex_with_timeout },
	{ "msgrcv", SYS_msgrcv, false, do_msgrcv },
	{ "read of inotify", SYS_read, false, do_inotify_read },
	{ "read of a pipe", SYS_read, false, do_pipe_read },
	{ "pause", SYS_pause, false, do_pause },
	{ "sigsuspend", SYS_rt_sigsuspend, false, do_sigsuspend },
};

/* What a child's call gave. */
struct result {
	int returned; /* 1 when it did */
	int error;
};

/* Waits until the child is in its call, or has failed to make it. */
static bool blocked(pid_t child, const struct trial *trial)
{
	for (;;) {
		if (fact_blocked_in(child) == trial->number)
			return true;
		if (fact_state(child) == 'Z')
			return false;
		sched_yield();
	}
}

/* The child ends when its call returns; if the call was made again, it is asleep in it, or in restart_syscall(2). */
static bool ended(pid_t child, const struct trial *trial)
{
	for (;;) {
		long in = fact_blocked_in(child);
		if (in == trial->number || in == SYS_restart_syscall)
			return false;
		if (fact_state(child) == 'Z')
			return true;
		sched_yield();
	}
}

static bool trial_run(const struct trial *trial, struct result *result)
{
	*result = (struct result){ 0 };
	pid_t child = fact_fork();
	if (child == 0) {
		long rc = trial->call();
		*result = (struct result){ 1, rc < 0 ? errno : 0 };
		_exit(0);
	}
	if (!blocked(child, trial)) {
		printf("%s: %s: not tried\n", trial->name, strerror(result->error));
		fact_end(child);
		return true;
	}
	fact_stop(child);
	fact_need(ptrace(PTRACE_DETACH, child, NULL, NULL), "PTRACE_DETACH");
	bool over = ended(child, trial);
	const char *seen = over ? strerror(result->error) : "restarted";
	bool holds = fact(over == trial->interrupted && (!over || result->error == EINTR), "%s: %s", trial->name, seen);
	fact_end(child);
	return holds;
}

int main(void)
{
	fact_start();
	struct result *result = fact_shared(sizeof *result);
	(void)!unshare(CLONE_NEWIPC); /* where it is permitted, even a killed run leaves nothing */
	ipc.semaphore = semget(IPC_PRIVATE, 1, 0600);
	ipc.queue = msgget(IPC_PRIVATE, 0600);
	bool holds = true;
	for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
		holds &= trial_run(&trials[i], result);
	semctl(ipc.semaphore, 0, IPC_RMID);
	msgctl(ipc.queue, IPC_RMID, NULL);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
