/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/bound.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cmd/target.h"

/* How long the child may take to roll back by itself. */
enum { GRACE_S = 3 };

struct place {
	dev_t device;
	ino_t inode; /* 0: nothing */
};

static struct place look(const char *path)
{
	struct stat stat_;
	return stat(path, &stat_) < 0 ? (struct place){ 0 } : (struct place){ stat_.st_dev, stat_.st_ino };
}

static _Noreturn void end_as(pid_t child)
{
	int status = 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	_exit(FAULT_FAILED);
}

static void pass_on(int signals, pid_t child)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == sizeof info)
		kill(child, (int)info.ssi_signo);
}

/* Until the child has ended, which is seen at its pidfd, or the time is over: false. */
static bool await(const struct deadline *deadline, int pidfd, int signals, pid_t child)
{
	struct pollfd events[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	for (;;) {
		uint64_t left_ms = deadline_left_ns(deadline) / 1000000;
		int found = poll(events, 2, left_ms < 1000000 ? (int)left_ms + 1 : 1000000);
		if (found > 0 && events[1].revents)
			pass_on(signals, child);
		if (events[0].revents)
			return true;
		if (!deadline_left_ns(deadline))
			return false;
	}
}

static _Noreturn void watch(const struct cmd_common *common, const char *output, struct place before, pid_t child)
{
	struct deadline deadline = cmd_deadline(common);
	int signals = cmd_signal_fd(), pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	deadline.at_ns += GRACE_S * UINT64_C(1000000000);
	if (pidfd < 0 || await(&deadline, pidfd, signals, child))
		end_as(child);
	/* First, as a look at a file system that does not answer would be held as well, and the program stands still until the child has ended. */
	kill(child, SIGKILL);
	deadline.at_ns = clock_now_ns() + UINT64_C(1000000000);
	struct fault fault;
	struct place now = before;
	if (await(&deadline, pidfd, signals, child))
		now = look(output);
	if (now.device != before.device || now.inode != before.inode)
		fault_set(&fault, FAULT_FAILED, ETIMEDOUT, "%s: is there, and whole, but Cairn was held after that, and killed when the time was over; see what the "
			  "program does", output);
	else
		fault_set(&fault, FAULT_TIMEOUT, ETIMEDOUT, "%s: out of time, and held in a system call of Cairn's own, as by a file system that does not answer; it "
			  "ends, rolled back, as soon as that lets it; try again then", output);
	_exit(cmd_report(common, &fault));
}

void cmd_bound(const struct cmd_common *common, const char *output)
{
	if (common->timeout_s <= 0)
		return;
	const pid_t parent = getpid();
	struct place before = look(output);
	signal(SIGCHLD, SIG_DFL); /* ignored, there would be no status */
	pid_t child = fork();
	if (child > 0)
		watch(common, output, before, child);
	if (child < 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(FAULT_FAILED);
}
