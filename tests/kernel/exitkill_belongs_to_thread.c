/* SPDX-License-Identifier: Apache-2.0 */
/* A tracer is a thread, not a process: when it ends, its tracees get PTRACE_O_EXITKILL's signal, or are detached, while
 * the process lives on. So the threads of Cairn that trace live until all is detached. */
#include <pthread.h>

#include "fact.h"

struct order {
	pid_t child, tid;
	long options;
	int error;
};

static void *trace(void *argument)
{
	struct order *order = argument;
	order->tid = (pid_t)syscall(SYS_gettid);
	if (ptrace(PTRACE_SEIZE, order->child, NULL, order->options) < 0)
		order->error = errno;
	return NULL;
}

/* Seizes a child from a thread that ends; waits until the kernel has no trace of the thread any more. */
static pid_t traced_by_ended_thread(long options)
{
	struct order order = { .options = options };
	order.child = fact_fork();
	if (order.child == 0)
		for (;;)
			pause();
	pthread_t thread;
	pthread_create(&thread, NULL, trace, &order);
	pthread_join(thread, NULL);
	if (order.error)
		fact_skip("PTRACE_SEIZE: %s", strerror(order.error));
	while (fact_state(order.tid))
		sched_yield();
	return order.child;
}

static pid_t tracer_of(pid_t pid)
{
	char text[4096];
	fact_file(text, sizeof text, "/proc/%d/status", pid);
	const char *line = strstr(text, "TracerPid:");
	return line ? (pid_t)strtol(line + strlen("TracerPid:"), NULL, 10) : -1;
}

int main(void)
{
	fact_start();
	int status = 0;
	pid_t child = traced_by_ended_thread(0);
	bool holds = fact(waitpid(child, &status, WNOHANG) == 0 && tracer_of(child) == 0,
			  "without EXITKILL the child lives on, detached");
	fact_end(child);
	child = traced_by_ended_thread(PTRACE_O_EXITKILL);
	waitpid(child, &status, 0);
	holds &= fact(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		      "with EXITKILL the child was killed when the thread ended");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
