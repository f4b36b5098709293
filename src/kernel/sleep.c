/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/sleep.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

void sleep_clocks_finish(struct sleep_clocks *clocks)
{
	vec_finish(&clocks->clocks);
}

/* How far the clock of the processor that Cairn runs on is ahead. Every reading errs to the late side: the clock only falls behind, and Cairn may be
 * preempted between the two looks. So the furthest ahead counts, and one that was quick is good enough. */
static bool compare_clocks(int64_t *ret_ahead_ns)
{
	enum { TRIES = 5, QUICK_NS = 1000000 };
	bool known = false;
	for (int i = 0; i < TRIES; i++) {
		struct proc_sched own = { 0 };
		clock_sleep_ns(1000); /* waking up brings exec_start up to date (not sched_yield(2): see tracee/ptrace.c) */
		uint64_t woken = clock_now_ns();
		if (proc_sched_read(getpid(), gettid(), &own, NULL) < 0 || !own.ran_ns)
			return false;
		uint64_t now = clock_now_ns(); /* afterwards: no sleep may seem longer than it was */
		int64_t ahead = (int64_t)(own.ran_ns - now);
		if (!known || ahead > *ret_ahead_ns)
			*ret_ahead_ns = ahead;
		known = true;
		if (now - woken < QUICK_NS)
			break;
	}
	return known;
}

/* The same of @processor, by running on it. */
static bool read_clock(uint32_t processor, int64_t *ret_ahead_ns)
{
	cpu_set_t before, one;
	if (processor >= CPU_SETSIZE || sched_getaffinity(0, sizeof before, &before) < 0)
		return false;
	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	if (sched_setaffinity(0, sizeof one, &one) < 0)
		return false;
	bool known = compare_clocks(ret_ahead_ns);
	sched_setaffinity(0, sizeof before, &before);
	return known;
}

static const struct sleep_clock *clock_of(struct sleep_clocks *clocks, uint32_t processor)
{
	for (size_t i = 0; i < clocks->clocks.count; i++)
		if (clocks->clocks.at[i].processor == processor)
			return &clocks->clocks.at[i];
	int64_t ahead;
	if (!read_clock(processor, &ahead))
		return NULL;
	struct sleep_clock *clock = vec_add(&clocks->clocks);
	*clock = (struct sleep_clock){ processor, ahead };
	return clock;
}

void sleep_look(pid_t pid, pid_t tid, struct sleep_place *ret_place)
{
	struct sleep_place place = { 0 };
	struct text text = { 0 };
	struct proc_sched sched = { 0 };
	struct proc_stat stat;
	*ret_place = place;
	/* First the number of the sleep: sleep_confirm tells whether all that is read after it is of the same one. */
	if (proc_sched_read(pid, tid, &sched, NULL) < 0 || proc_stat_read(pid, tid, &stat, NULL) < 0 || stat.state != 'S')
		return;
	place = (struct sleep_place){ .ran_ns = sched.ran_ns, .switches = sched.switches, .processor = stat.processor };
	if (proc_read_record(pid, tid, "wchan", &text, NULL) == 0 && text.size < sizeof place.where)
		memcpy(place.where, text.at, text.size + 1);
	text_finish(&text);
	*ret_place = place;
}

void sleep_confirm(struct sleep_place *place, uint64_t switches)
{
	/* A stop is one switch more. */
	if (place->ran_ns && switches != place->switches + 1)
		*place = (struct sleep_place){ 0 };
}

uint64_t sleep_since(const struct sleep_place *place, struct sleep_clocks *clocks)
{
	const struct sleep_clock *clock = place->ran_ns ? clock_of(clocks, place->processor) : NULL;
	return clock ? place->ran_ns - (uint64_t)clock->ahead_ns : 0;
}
