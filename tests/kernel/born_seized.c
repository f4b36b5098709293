/* SPDX-License-Identifier: Apache-2.0 */
/* A child made with CLONE_PTRACE by a seized process stands at a stop before its first instruction, seized, with the options of its maker: PTRACE_O_EXITKILL among them.
 * kernel/ptrace.c ptrace_init_task (6.18). The copy-on-write children of a live save rely on it (tracee/twin.h). */
#include "fact.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

struct seen {
	volatile pid_t child;
	volatile bool ran, stood, seized;
};

static void bear(struct seen *seen)
{
	raise(SIGSTOP); /* until it is seized */
	pid_t child = (pid_t)syscall(SYS_clone, CLONE_PTRACE, 0, 0, 0, 0);
	seen->ran |= child == 0;
	if (child)
		seen->child = child;
	for (;;)
		pause();
}

static int await(pid_t pid, int options)
{
	int status = 0;
	while (waitpid(pid, &status, options) < 0 && errno == EINTR)
		;
	return status;
}

/* Lets the child run, and ends as a tracer does that is killed. */
static void trace(struct seen *seen, pid_t maker)
{
	int status;
	fact_need(ptrace(PTRACE_SEIZE, maker, NULL, PTRACE_O_EXITKILL), "seize");
	await(maker, __WALL);
	kill(maker, SIGCONT);
	while (!seen->child) {
		ptrace(PTRACE_CONT, maker, NULL, NULL);
		waitpid(maker, &status, __WALL | WNOHANG);
	}
	status = await(seen->child, __WALL);
	seen->stood = WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP;
	seen->seized = !seen->ran;
	fact_need(ptrace(PTRACE_CONT, seen->child, NULL, NULL), "let the child run");
	while (!seen->ran)
		;
	_exit(0);
}

int main(void)
{
	fact_start();
	struct seen *seen = fact_shared(sizeof *seen);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t maker = fact_fork();
	if (!maker)
		bear(seen);
	await(maker, WUNTRACED);
	pid_t tracer = fact_fork();
	if (!tracer)
		trace(seen, maker);
	int status = await(tracer, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fact_skip("a tracer");
	bool holds = fact(seen->stood && seen->seized, "the child stood seized before its first instruction");
	status = await(maker, 0);
	holds &= fact(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the maker died with its tracer");
	status = await(seen->child, __WALL);
	holds &= fact(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "and so did the child, for which nobody set that option");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
