/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/janitor.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

enum { STACK_SIZE = 256 * 1024, NUMBERS_TRIED = 64 };

/* It shares even the thread-local storage of Cairn, which it must not write as long as that one lives: system calls that do not fail leave errno alone, and
 * with all signals blocked these do not. */
static int stand_by(void *argument)
{
	struct workshop *workshop = argument;
	const uint64_t death = UINT64_C(1) << (SIGUSR1 - 1);
	syscall(SYS_setsid); /* what ends Cairn from the terminal does not end this */
	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
	while (syscall(SYS_getppid) == workshop->janitor.employer)
		syscall(SYS_rt_sigtimedwait, &death, NULL, NULL, sizeof death);
	workshop_fail(workshop);
	return 0;
}

static pid_t engage(struct workshop *workshop)
{
	/* Its end sends no signal: Cairn may be a library's user whose children these are not. */
	return clone(stand_by, (char *)workshop->janitor.stack + STACK_SIZE, CLONE_VM | CLONE_FS | CLONE_FILES, workshop);
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
}

void janitor_hire(struct workshop *workshop)
{
	sigset_t all, before;
	if (workshop->janitor.has_tried)
		return;
	workshop->janitor.has_tried = true;
	workshop->janitor.employer = getpid();
	void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return;
	workshop->janitor.stack = stack;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	workshop->janitor.pid = engage(workshop);
	/* A number that one of the newborns is to have will not do: the next one is another. */
	for (int i = 0; i < NUMBERS_TRIED && workshop->janitor.pid > 0 && workshop_will_be(workshop, workshop->janitor.pid); i++) {
		end(workshop->janitor.pid);
		workshop->janitor.pid = engage(workshop);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (workshop->janitor.pid < 0)
		log_debug("nobody undoes what a killed restore has made: %s", strerror(errno));
}

void janitor_dismiss(struct workshop *workshop)
{
	if (workshop->janitor.pid > 0)
		end(workshop->janitor.pid);
	if (workshop->janitor.stack)
		munmap(workshop->janitor.stack, STACK_SIZE);
	workshop->janitor.pid = 0;
	workshop->janitor.stack = NULL;
}
