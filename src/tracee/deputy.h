/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A deputy: a process that shares this one's memory and descriptors, and traces in its place. The kernel suspends a program's seccomp filters
 * only for as long as its tracer lives (PTRACE_O_SUSPEND_SECCOMP): a thread left alone in the middle of Cairn's calls would be killed by its own
 * filter on the way home. The deputy outlives a Cairn that is killed, sees that (deadline_check), and puts everything back.
 *
 * What is left: the deputy itself killed (by number, or by the kernel for want of memory) while the tree stands still. */
#include "base/fault.h"

/* Runs @work(@context) in a deputy and waits for its end. Signals in @signal_fd (-1: none) are handed on to it. The two share this
 * thread's storage too, so it does nothing else meanwhile. If the deputy is killed this process ends as well. */
int deputy_run(int signal_fd, int (*work)(void *context, struct fault *fault), void *context, struct fault *fault);
