/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* When did a thread fall asleep, and where? The scheduler knows (/proc/PID/task/TID/sched, se.exec_start: when it last ran; CONFIG_SCHED_DEBUG), by
 * a clock of the processor it ran on, which leaves out time that interrupts and the hypervisor took and so differs from that of every other
 * processor. It is compared with the same file of a thread of Cairn's on that very processor. */
#include "kernel/procfs.h"

struct sleep_clock {
	uint32_t processor;
	int64_t ahead_ns; /* of CLOCK_MONOTONIC */
};
struct sleep_clocks {
	VEC(struct sleep_clock) clocks; /* one per processor met so far */
};
void sleep_clocks_finish(struct sleep_clocks *clocks);

/* What is seen of a running thread before it is stopped, which wakes it. */
struct sleep_place {
	uint64_t ran_ns;    /* when it last ran, by the clock of its processor; 0: not asleep, or unknown */
	uint64_t switches;  /* how often it had gone to sleep by then */
	uint32_t processor;
	char where[48];     /* wchan: the kernel function it sleeps in; "" unknown */
};
/* Never fails: what cannot be known is unknown. */
void sleep_look(pid_t pid, pid_t tid, struct sleep_place *ret_place);
/* The thread is stopped now, for the first time since, and has gone to sleep or stopped @switches times (proc_status): was it in the sleep that was looked
 * at? If it had woken and slept anew between the look and the stop nothing of @place counts. Where the scheduler does not say, it stays. */
void sleep_confirm(struct sleep_place *place, uint64_t switches);
/* Since when it slept, by CLOCK_MONOTONIC, 0: unknown. Never earlier than it was, if @clocks were all read after the thread
 * was stopped: the processor's clock only ever falls behind. May move the calling thread to the processor and back. */
uint64_t sleep_since(const struct sleep_place *place, struct sleep_clocks *clocks);
