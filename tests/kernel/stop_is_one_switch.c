/* SPDX-License-Identifier: Apache-2.0 */
/* A sleeping thread that is seized and interrupted has, when it stands, been switched away from of its own accord once more than in its sleep
 * (/proc/TID/sched nr_voluntary_switches, /proc/TID/status voluntary_ctxt_switches). If it had woken and slept again between a look at its sleep and
 * the stop there would be two. So Cairn knows whether what it saw of a sleep is of the one that the stop broke off: without that a thread in its
 * second short sleep was taken to have slept since the first, and its sleep became too short. */
#include "fact.h"

#include <linux/futex.h>

static unsigned long number_of(pid_t tid, const char *file, const char *key)
{
	char text[8192];
	fact_file(text, sizeof text, "/proc/%d/%s", tid, file);
	const char *line = strstr(text, key), *colon = line ? strchr(line, ':') : NULL;
	if (!colon)
		fact_skip("%s of /proc/PID/%s", key + 1, file);
	return strtoul(colon + 1, NULL, 10);
}

/* How many switches a stop is after the look, with @naps whole sleeps between. */
static unsigned long switches(int naps)
{
	volatile int *word = fact_shared(sizeof *word);
	*word = 0;
	pid_t child = fact_fork();
	if (child == 0)
		for (int seen = 0;; seen++)
			while (*word == seen)
				syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
	fact_await_call(child, SYS_futex);
	unsigned long before = number_of(child, "sched", "\nnr_voluntary_switches");
	for (int i = 0; i < naps; i++) {
		unsigned long now = number_of(child, "sched", "\nnr_voluntary_switches");
		__atomic_add_fetch(word, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
		while (number_of(child, "sched", "\nnr_voluntary_switches") == now)
			;
		fact_await_call(child, SYS_futex);
	}
	int status;
	fact_need((int)ptrace(PTRACE_SEIZE, child, 0, 0), "seize");
	fact_need((int)ptrace(PTRACE_INTERRUPT, child, 0, 0), "interrupt");
	fact_need(waitpid(child, &status, __WALL), "waitpid");
	unsigned long after = number_of(child, "status", "\nvoluntary_ctxt_switches");
	fact_end(child);
	return after - before;
}

int main(void)
{
	int wrong = 0;
	fact_start();
	for (int naps = 0; naps < 3; naps++) {
		unsigned long counted = switches(naps);
		printf("%d sleeps between: %lu\n", naps, counted);
		wrong |= counted != (unsigned long)naps + 1;
	}
	return wrong;
}
