/* SPDX-License-Identifier: Apache-2.0 */
/* variant inside: pidfds of processes of the tree, living, ended and gone, are those afterwards */
/* variant outside: a pidfd of a process outside the tree is refused by name */
/* refusable: pidfd */
#include "probe.h"

#include <poll.h>
#include <signal.h>

static int pidfd_open_(pid_t pid, unsigned flags)
{
	return (int)syscall(SYS_pidfd_open, pid, flags);
}

static int pidfd_send(int fd, int signal)
{
	return (int)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
}

static void inside(void)
{
	pid_t child = PROBE(fork());
	if (!child) {
		for (;;)
			pause();
	}
	pid_t zombie = PROBE(fork());
	if (!zombie)
		_exit(7);
	pid_t gone = PROBE(fork());
	if (!gone)
		_exit(8);
	int of_child = PROBE(pidfd_open_(child, O_NONBLOCK)), of_zombie = PROBE(pidfd_open_(zombie, 0)), of_self = PROBE(pidfd_open_(getpid(), 0));
	int of_gone = PROBE(pidfd_open_(gone, 0));
	PROBE(waitpid(gone, NULL, 0));
	siginfo_t info = { 0 };
	PROBE(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT));

	probe_save();

	struct pollfd poll_ = { .fd = of_child, .events = POLLIN };
	PROBE_SAME(poll(&poll_, 1, 0), 0, "poll of a living one");
	poll_.fd = of_zombie;
	PROBE_SAME(poll(&poll_, 1, 0), 1, "poll of one that has ended");
	poll_.fd = of_gone;
	PROBE_SAME(poll(&poll_, 1, 0), 1, "poll of one that is gone");
	PROBE_SAME(fcntl(of_child, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "flags");
	PROBE_SAME(fcntl(of_child, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(pidfd_send(of_self, 0), 0, "signal 0 to itself");
	PROBE_SAME(pidfd_send(of_gone, 0), -1, "signal 0 to one that is gone");
	memset(&info, 0, sizeof info);
	PROBE_SAME(waitid((idtype_t)3 /* P_PIDFD, 5.4 */, (id_t)of_zombie, &info, WEXITED), 0, "waitid of the one that has ended");
	PROBE_SAME(info.si_pid, zombie, "its PID");
	PROBE_SAME(info.si_status, 7, "its status");
	PROBE_SAME(pidfd_send(of_child, SIGKILL), 0, "signal");
	poll_.fd = of_child;
	PROBE_SAME(poll(&poll_, 1, 5000), 1, "poll of the killed one");
	memset(&info, 0, sizeof info);
	PROBE_SAME(waitid((idtype_t)3 /* P_PIDFD, 5.4 */, (id_t)of_child, &info, WEXITED), 0, "waitid of the killed one");
	PROBE_SAME(info.si_pid, child, "its PID");
}

static void outside(void)
{
	int fd = PROBE(pidfd_open_(1, 0));
	probe_save();
	PROBE_TRUE(fcntl(fd, F_GETFD) >= 0, "the descriptor is there");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "outside"))
		outside();
	else
		inside();
	return probe_end();
}
