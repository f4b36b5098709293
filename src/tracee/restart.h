/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A stop interrupts the system call in which a thread sleeps. What the kernel then left in the registers, and what has to be
 * done so that the program never knows.
 *
 * -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND: the kernel makes the call again by itself when the thread
 *   is resumed from an interrupt stop with these very registers, or gives EINTR if a handler runs first. The
 *   same registers do the same in a newborn.
 * -EINTR of some calls, though no signal came: signal(7), "Interruption of system calls and library functions by stop
 *   signals". These become -ERESTARTNOHAND.
 * -ERESTART_RESTARTBLOCK: the kernel keeps the end of the sleep to itself, and at the next stop not even the number of the
 *   call can be seen. These become -ERESTARTNOHAND too, whose behaviour towards signal handlers is the same.
 *
 * Calls that are made again with a relative timeout are made with the time that is left: its register is set, or points to
 * a timespec below the red zone of the stack, where nothing lives while the thread sleeps. Both are registers that a function call clobbers. The time is
 * an estimate, never shorter than what is left; longer by the time that interrupts and a hypervisor took from the processor since the thread fell
 * asleep, and some 0.1 ms for each stop. Of a sleep that had been stopped and continued before (restart_syscall(2)) only what passed since is known:
 * in the program that runs on it ends in time, after a restore it may be late by what had passed before. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"
#include "tracee/arch.h"

struct restart {
	bool timed;       /* the call has a relative timeout, of which this is left */
	bool known;       /* when it fell asleep is known; otherwise left_ns is the whole timeout */
	bool kernel_keeps; /* its end is left to the kernel, in a program that runs on: nobody else knows it exactly */
	long number;       /* of the call, also behind restart_syscall(2) */
	uint64_t left_ns;
};

/* What of a sleep was known before the stop. */
struct restart_sleep {
	bool known;
	uint64_t slept_ns;
	const char *where; /* wchan, "" unknown */
	bool alone;        /* the kernel's restart_syscall(2) may be forbidden by a filter: better late than dead */
};

/* Does it matter for a thread that sleeps in this call how long it has? Not where the call has no relative timeout. */
bool restart_call_wants_time(long number, const uint64_t args[6]);
/* And for the registers with which it was interrupted? */
bool restart_wants_time(const struct registers *registers);
/* Looks at the registers of a freshly interrupted thread and makes them such that it goes on unharmed when resumed. Timeouts that lie in
 * memory are read from @pid. */
int restart_examine(pid_t pid, struct registers *registers, const struct restart_sleep *sleep,
		    struct restart *ret_restart, struct fault *fault);
/* The registers for the image: what the kernel keeps cannot be carried, and is asked for anew. Transient fault when it is not known what for. */
int restart_for_image(const struct restart *restart, struct registers *registers, struct fault *fault);
/* Sets the timeout of the call to @left_ns. */
int restart_shorten(pid_t pid, struct registers *registers, uint64_t left_ns, struct fault *fault);
/* The registers with which a thread can go on without the kernel's help (after Cairn's death). */
void restart_walk_home(struct registers *registers);
/* Was the thread at a place where it had been interrupted in a call (any of the above)? */
bool restart_pending(const struct registers *registers);
