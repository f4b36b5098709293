/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/deputy.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GUARD_SIZE = 64 * 1024, STACK_SIZE = 8 * 1024 * 1024 };

struct errand {
	int (*work)(void *context, struct fault *fault);
	void *context;
	struct fault fault;
	int result;
};

static int stand_in(void *argument)
{
	struct errand *errand = argument;
	errand->result = errand->work(errand->context, &errand->fault);
	return 0;
}

/* Until the deputy has ended. The two threads share their thread-local storage, which this one must not write: system calls that do not fail
 * leave errno alone, and with all signals blocked these do not. */
static void await(pid_t deputy, int pidfd, int signal_fd)
{
	struct pollfd ends[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = signal_fd, .events = POLLIN } };
	while (!(ends[0].revents & POLLIN)) {
		syscall(SYS_ppoll, ends, 2UL, NULL, NULL, 0UL);
		if (ends[1].revents) {
			syscall(SYS_kill, deputy, SIGTERM);
			ends[1] = (struct pollfd){ .fd = -1 };
		}
	}
}

static int send_deputy(struct errand *errand, char *stack, int signal_fd, struct fault *fault)
{
	sigset_t all, before;
	int pidfd = -1, status = 0;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	/* Its end sends no signal: it may be a library's user whose children these are not. */
	pid_t deputy = clone(stand_in, stack + GUARD_SIZE + STACK_SIZE, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_PIDFD, errand, &pidfd);
	int error = errno;
	if (deputy > 0) {
		await(deputy, pidfd, signal_fd);
		while (waitpid(deputy, &status, __WALL) < 0 && errno == EINTR)
			;
		close(pidfd);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (deputy < 0)
		return fault_set(fault, fault_class_of(error), error, "make a process that traces: %s", strerror(error));
	/* It may have held any lock, and nothing in memory is whole. */
	if (!WIFEXITED(status))
		kill(getpid(), SIGKILL);
	return 0;
}

int deputy_run(int signal_fd, int (*work)(void *context, struct fault *fault), void *context, struct fault *fault)
{
	struct errand errand = { work, context, { 0 }, 0 };
	char *stack = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return fault_set(fault, FAULT_FAILED, errno, "memory for a process that traces: %s", strerror(errno));
	mprotect(stack, GUARD_SIZE, PROT_NONE);
	int rc = send_deputy(&errand, stack, signal_fd, fault);
	munmap(stack, GUARD_SIZE + STACK_SIZE);
	if (rc == 0 && errand.result < 0)
		*fault = errand.fault;
	return rc < 0 ? rc : errand.result;
}
