/* SPDX-License-Identifier: Apache-2.0 */
/* A parent in vfork(2) is in uninterruptible sleep until its child has exec'd or ended: PTRACE_INTERRUPT succeeds, but
 * the stop comes only then. So Cairn freezes such parents last, and waits for the child within a bound. */
#include "fact.h"

struct shared {
	volatile pid_t grandchild;
};

static void parent_run(struct shared *shared, int gate)
{
	pid_t child = vfork();
	if (child == 0) {
		char byte;
		shared->grandchild = (pid_t)syscall(SYS_getpid);
		_exit(read(gate, &byte, 1) < 0);
	}
	for (;;)
		pause();
}

int main(void)
{
	enum { LOOKS = 2000 };
	fact_start();
	struct shared *shared = fact_shared(sizeof *shared);
	int gate[2], status, stops = 0;
	fact_need(pipe2(gate, O_CLOEXEC), "pipe2");
	pid_t parent = fact_fork();
	if (parent == 0) {
		close(gate[1]);
		parent_run(shared, gate[0]);
	}
	close(gate[0]);
	while (!shared->grandchild)
		sched_yield();
	fact_await_call(shared->grandchild, SYS_read);
	fact_await_state(parent, 'D');
	fact_need(ptrace(PTRACE_SEIZE, parent, NULL, PTRACE_O_EXITKILL), "PTRACE_SEIZE");
	bool holds = fact(ptrace(PTRACE_INTERRUPT, parent, NULL, NULL) == 0, "PTRACE_INTERRUPT of the parent succeeds");
	for (int i = 0; i < LOOKS; i++)
		stops += waitpid(parent, &status, WNOHANG | __WALL) != 0 || fact_state(parent) != 'D';
	holds &= fact(stops == 0, "it sleeps on uninterruptibly while its child lives (looked %d times)", LOOKS);
	close(gate[1]);
	status = fact_await_stop(parent);
	holds &= fact(status >> 16 == PTRACE_EVENT_STOP, "its stop came when the child ended");
	fact_end(parent);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
