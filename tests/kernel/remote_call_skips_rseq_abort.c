/* SPDX-License-Identifier: Apache-2.0 */
/* A task that is stopped inside a restartable sequence and let go is sent to its abort handler. But one that is made
 * to run a system call in between and put back where it was commits: the kernel has looked at rseq_cs while the
 * instruction pointer was outside, and cleared it. So Cairn has to put back the abort address itself. */
#include "fact.h"

#if defined(__x86_64__) && __has_include(<sys/rseq.h>)
#include <sys/rseq.h>

struct shared {
	volatile int entered, go, committed, aborts;
};

extern char fact_sequence_start[], fact_sequence_commit[], fact_sequence_abort[];

/* Spins inside a sequence until @shared->go, then commits. An abort begins anew, or ends it after go. */
__attribute__((noinline)) static void sequence(struct shared *shared, struct rseq *rseq)
{
	static struct rseq_cs descriptor __attribute__((aligned(32)));
	descriptor = (struct rseq_cs){ 0, 0, (uintptr_t)fact_sequence_start,
				       (uintptr_t)(fact_sequence_commit - fact_sequence_start),
				       (uintptr_t)fact_sequence_abort };
	__asm__ volatile("1:	movq %[descriptor], %[pointer]\n"
			 "fact_sequence_start:\n"
			 "2:	movl $1, %[entered]\n"
			 "	cmpl $0, %[go]\n"
			 "	je 2b\n"
			 "	movl $1, %[committed]\n"
			 "fact_sequence_commit:\n"
			 "	jmp 3f\n"
			 "	.long 0x53053053\n" /* RSEQ_SIG: right in front of the abort handler */
			 "fact_sequence_abort:\n"
			 "	incl %[aborts]\n"
			 "	cmpl $0, %[go]\n"
			 "	je 1b\n"
			 "3:\n"
			 : [pointer] "=m"(rseq->rseq_cs), [entered] "=m"(shared->entered),
			   [committed] "=m"(shared->committed), [aborts] "+m"(shared->aborts)
			 : [descriptor] "r"(&descriptor), [go] "m"(shared->go)
			 : "memory", "cc");
}

static void child_run(struct shared *shared)
{
	sequence(shared, (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset));
	_exit(0);
}

/* A child that stands inside the sequence, stopped; its registers. */
static pid_t stopped_inside(struct shared *shared, struct user_regs_struct *ret_registers)
{
	*shared = (struct shared){ 0 };
	pid_t child = fact_fork();
	if (child == 0)
		child_run(shared);
	while (!shared->entered)
		sched_yield();
	fact_stop(child);
	for (;;) { /* a preemption may just have sent it to the abort handler */
		fact_need(ptrace(PTRACE_GETREGS, child, NULL, ret_registers), "PTRACE_GETREGS");
		if (ret_registers->rip >= (uintptr_t)fact_sequence_start &&
		    ret_registers->rip < (uintptr_t)fact_sequence_commit)
			return child;
		fact_need(ptrace(PTRACE_CONT, child, NULL, NULL), "PTRACE_CONT");
		fact_need(ptrace(PTRACE_INTERRUPT, child, NULL, NULL), "PTRACE_INTERRUPT");
		fact_await_stop(child);
	}
}

static void let_go(pid_t child, struct shared *shared)
{
	shared->go = 1;
	fact_need(ptrace(PTRACE_DETACH, child, NULL, NULL), "PTRACE_DETACH");
	waitpid(child, NULL, 0);
}

static bool plain_stop_aborts(struct shared *shared)
{
	struct user_regs_struct registers;
	pid_t child = stopped_inside(shared, &registers);
	int before = shared->aborts;
	let_go(child, shared);
	return fact(!shared->committed && shared->aborts == before + 1, "stopped and let go: %s",
		    shared->committed ? "committed" : "aborted");
}

static bool remote_call_commits(struct shared *shared)
{
	struct user_regs_struct registers;
	pid_t child = stopped_inside(shared, &registers);
	int before = shared->aborts;
	fact_remote_call(child, &registers, SYS_getppid, 0, 0);
	fact_need(ptrace(PTRACE_SETREGS, child, NULL, &registers), "PTRACE_SETREGS");
	let_go(child, shared);
	return fact(shared->committed && shared->aborts == before, "a remote call in between: %s",
		    shared->committed ? "committed" : "aborted");
}

int main(void)
{
	fact_start();
	if (!__rseq_size)
		fact_skip("no rseq area was registered by the C library");
	struct shared *shared = fact_shared(sizeof *shared);
	bool holds = plain_stop_aborts(shared);
	holds &= remote_call_commits(shared);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
#else
int main(void)
{
	fact_skip("no program for this architecture or C library");
}
#endif
