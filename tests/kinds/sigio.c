/* SPDX-License-Identifier: Apache-2.0 */
/* probe: who gets SIGIO for a file, by which signal, with which descriptor, is kept: a process, a thread, a group */
#include "probe.h"

#include <pthread.h>
#include <signal.h>

enum { F_GETOWNER_UIDS_ = 17 };

static volatile sig_atomic_t got_fd = -1, got_band, got_tid, plain;
static void on_signal(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	got_fd = info->si_fd;
	got_band = (int)info->si_band;
	got_tid = (int)syscall(SYS_gettid);
}
static void on_io(int signal)
{
	(void)signal;
	plain++;
}

static volatile pid_t other;
static void *thread(void *argument)
{
	(void)argument;
	other = (pid_t)syscall(SYS_gettid);
	probe_wait();
	while (got_fd < 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return NULL;
}

static void same_owner(int fd, const struct f_owner_ex *wanted, const char *what)
{
	struct f_owner_ex owner;
	PROBE_SAME(fcntl(fd, F_GETOWN_EX, &owner), 0, what);
	PROBE_SAME(owner.type, wanted->type, what);
	PROBE_SAME(owner.pid, wanted->pid, what);
}

int main(void)
{
	int process[2], group[2], to_thread[2];
	pthread_t id;
	sigaction(SIGRTMIN + 5, &(struct sigaction){ .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART }, NULL);
	sigaction(SIGIO, &(struct sigaction){ .sa_handler = on_io, .sa_flags = SA_RESTART }, NULL);
	PROBE(pipe(process));
	PROBE(pipe(group));
	PROBE(pipe(to_thread));
	pthread_create(&id, NULL, thread, NULL);
	while (!other)
		;
	const struct f_owner_ex owners[] = {
		{ F_OWNER_PID, getpid() }, { F_OWNER_PGRP, getpgrp() }, { F_OWNER_TID, other },
	};
	PROBE(fcntl(process[0], F_SETOWN_EX, &owners[0]));
	PROBE(fcntl(process[0], F_SETFL, O_ASYNC));
	PROBE(fcntl(group[0], F_SETOWN_EX, &owners[1]));
	PROBE(fcntl(group[0], F_SETSIG, SIGCHLD));
	int copy = PROBE(dup2(to_thread[0], 77));
	PROBE(fcntl(copy, F_SETOWN_EX, &owners[2]));
	PROBE(fcntl(copy, F_SETSIG, SIGRTMIN + 5));
	PROBE(close(to_thread[0]));
	PROBE(fcntl(copy, F_SETFL, O_ASYNC | O_NONBLOCK));
	uid_t before[2] = { 0 }, now[2] = { 0 };
	fcntl(copy, F_GETOWNER_UIDS_, before);

	probe_save();

	same_owner(process[0], &owners[0], "a process");
	same_owner(group[0], &owners[1], "a group");
	same_owner(copy, &owners[2], "a thread");
	PROBE_SAME(fcntl(process[0], F_GETSIG), 0, "signal for the process");
	PROBE_SAME(fcntl(group[0], F_GETSIG), SIGCHLD, "signal for the group");
	PROBE_SAME(fcntl(process[0], F_GETFL), O_RDONLY | O_ASYNC, "flags");
	PROBE_SAME(fcntl(copy, F_GETFL), O_RDONLY | O_ASYNC | O_NONBLOCK, "flags of the thread's");
	PROBE_SAME(fcntl(group[0], F_GETFL), O_RDONLY, "flags of the group's");
	fcntl(copy, F_GETOWNER_UIDS_, now);
	PROBE_SAME(now[0], before[0], "user whose right it is");
	PROBE_SAME(now[1], before[1], "effective user whose right it is");
	PROBE_SAME(plain, 0, "signals so far");
	PROBE_SAME(write(process[1], "x", 1), 1, "write");
	while (!plain)
		;
	PROBE_SAME(write(to_thread[1], "x", 1), 1, "write");
	pthread_join(id, NULL);
	PROBE_SAME(got_fd, 77, "descriptor in the signal's information");
	PROBE_SAME(got_tid, other, "thread that got it");
	return probe_end();
}
