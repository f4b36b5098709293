/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A PID namespace of its own, and the program that is its PID 1. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"

struct namespace_wish {
	bool template; /* no PID namespace: what is started makes those itself (namespace_fork), in the user namespace that it gets */
	bool network; /* a network namespace too, with a loopback that is up */
	bool clocks;  /* a time namespace too: */
	int64_t monotonic_ns, boottime_ns; /* what is added to the clocks in it */
};

/* Starts @program with @argv as PID 1 of a new PID namespace with a /proc of its own, a child of the caller. A caller without
 * CAP_SYS_ADMIN gets a user namespace too, in which he has the same uid and gid, and in which PID 1 has all capabilities, ambient:
 * what it executes has them until they are lowered. Descriptors that are not close-on-exec stay open in it. */
int namespace_start(const char *program, char *const argv[], const struct namespace_wish *wish, pid_t *ret_init, struct fault *fault);

/* The same without executing anything, for a process with one thread that was itself started so, as a template: 1 in PID 1 of the new PID namespace, which is a
 * child of the caller's parent (CLONE_PARENT), 0 in the caller. */
int namespace_fork(const struct namespace_wish *wish, pid_t *ret_init, struct fault *fault);
