/* SPDX-License-Identifier: Apache-2.0 */
/* "se.exec_start" of /proc/TID/sched of a sleeping thread says when it fell asleep, by the clock that stands in the
 * file of a thread that runs: how long it has slept is the difference to the reader's own, here within 10 ms. So
 * Cairn estimates what is left of a relative timeout that only the kernel knows.
 *
 * But that clock is each processor's own: time stolen by a hypervisor does not count (kernel/sched/core.c
 * update_rq_clock_task, CONFIG_PARAVIRT_TIME_ACCOUNTING, 6.18). Two processors of one machine were seen 600 ms apart
 * after two days. So the reader has to stand on the processor on which the thread fell asleep, or know the
 * difference. What was stolen during the sleep is missing from the estimate, which makes it too short, never too long.
 */
#include "fact.h"

static const double tolerance_ms = 10;
enum { SLEPT_MS = 200, TRIES = 5 };

struct shared {
	volatile uint64_t slept_from_ns;
};

/* Milliseconds, negative when the kernel does not say. */
static double exec_start_ms(pid_t tid)
{
	char text[4096];
	fact_file(text, sizeof text, "/proc/%d/sched", tid);
	const char *line = strstr(text, "se.exec_start");
	const char *colon = line ? strchr(line, ':') : NULL;
	return colon ? strtod(colon + 1, NULL) : -1;
}

/* How far the estimate is from the truth, in ms. */
static double difference_ms(struct shared *shared)
{
	shared->slept_from_ns = 0;
	pid_t child = fact_fork();
	if (child == 0) {
		shared->slept_from_ns = fact_now_ns();
		for (;;)
			pause();
	}
	fact_await_call(child, SYS_pause);
	fact_until(shared->slept_from_ns + SLEPT_MS * 1000000ull);
	double asleep = exec_start_ms(child), running = exec_start_ms(getpid());
	double truth = (double)(fact_now_ns() - shared->slept_from_ns) / 1e6;
	fact_end(child);
	if (asleep < 0 || running < 0)
		fact_skip("se.exec_start in /proc/PID/sched (CONFIG_SCHED_DEBUG)");
	printf("asleep for %.3f ms, by exec_start %.3f ms\n", truth, running - asleep);
	return running - asleep - truth;
}

static int processor_pin(int processor)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	return sched_setaffinity(0, sizeof set, &set);
}

/* Each processor's clock against CLOCK_MONOTONIC: seen, not demanded, since a machine of its own has none stolen. */
static void processors_print(const cpu_set_t *allowed)
{
	for (int processor = 0; processor < CPU_SETSIZE; processor++) {
		if (!CPU_ISSET(processor, allowed) || processor_pin(processor) < 0)
			continue;
		double now = (double)fact_now_ns() / 1e6, start = exec_start_ms(getpid());
		printf("processor %d: its clock is %.3f ms from CLOCK_MONOTONIC\n", processor, start - now);
	}
}

/* The reader may lose the processor between its three looks: the best of a few tries counts. */
int main(void)
{
	fact_start();
	struct shared *shared = fact_shared(sizeof *shared);
	double best = 1e9;
	cpu_set_t allowed;
	fact_need(sched_getaffinity(0, sizeof allowed, &allowed), "sched_getaffinity");
	processors_print(&allowed);
	fact_need(processor_pin(sched_getcpu()), "sched_setaffinity"); /* the children inherit it */
	for (int i = 0; i < TRIES && (best > tolerance_ms || best < -tolerance_ms); i++) {
		double difference = difference_ms(shared);
		if (difference * difference < best * best)
			best = difference;
	}
	bool holds = fact(best < tolerance_ms && best > -tolerance_ms, "the estimate is %.3f ms off", best);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
