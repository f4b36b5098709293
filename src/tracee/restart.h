/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A stop interrupts the system call in which a thread sleeps. What the kernel then left in the registers, and what has to be
 * done so that the program never knows.
 *
 * -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND: the kernel makes the call again by itself when the thread
 *   is resumed from an interrupt stop with these very registers, or gives EINTR if a handler runs first. The
 *   same registers do the same in a newborn.
 * -ERESTART_RESTARTBLOCK: time left is kept in the kernel. A program that runs on finds it there; in a
 *   newborn the call is made once more with the time that is left, and interrupted, so that its kernel knows it too.
 * -EINTR of some calls, though no signal came: signal(7), "Interruption of system calls and library functions by stop
 *   signals". These become -ERESTARTNOHAND, with the time shortened by what has passed. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"
#include "tracee/arch.h"

enum restart_action {
	RESTART_NONE,  /* the registers say it all */
	RESTART_REARM, /* a relative sleep kept by the kernel: `left_ns` */
	RESTART_TIMED, /* registers say it all but for a relative timeout, which has to become `left_ns` */
};

struct restart {
	enum restart_action action;
	uint64_t left_ns; /* an estimate, never shorter than what is left */
};

/* Looks at the registers of a freshly interrupted thread. @slept_ns is how long it had been asleep (0: unknown). Timeouts that lie in
 * memory are read from @pid. Changes @registers only where -EINTR has to become a restart. */
int restart_examine(pid_t pid, struct registers *registers, uint64_t slept_ns, struct restart *ret_restart,
		    struct fault *fault);
/* Shortens the timeout of a RESTART_TIMED call to @restart->left_ns: in its register, or in a timespec
 * written below the red zone of the stack, where nothing lives and the kernel reads it at once. */
int restart_shorten(pid_t pid, struct registers *registers, const struct restart *restart, struct fault *fault);
/* The call to make, and interrupt, in a newborn for RESTART_REARM: number and arguments, where @timespec is an
 * address that holds left_ns. */
void restart_rearm_call(const struct registers *registers, const struct restart *restart, uint64_t timespec,
			uint64_t *ret_number, uint64_t ret_args[6]);
/* The registers with which a thread can go on without the kernel's help (after Cairn's death). */
void restart_walk_home(struct registers *registers);
/* Was the thread at a place where it had been interrupted in a call (any of the above)? */
bool restart_pending(const struct registers *registers);
