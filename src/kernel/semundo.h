/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Has somebody a list of semaphore adjustments (SEM_UNDO)? kcmp(2) tells only whether two have the same, and most have none, which is "the same" too. One
 * that is known to have none is needed. Cairn itself is none any more once it has made a thread: pthread_create makes a list to be shared
 * (ipc/sem.c copy_semundo, 6.18). */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A thread of Cairn's that has none, made when it is first needed; init by zero. */
struct semundo {
	pid_t tid;
	unsigned waited_for; /* futex word: 0 when it has ended */
	int wake, keep; /* both ends of the pipe that it reads */
	void *stack;
};
/* false as well where nobody can tell. */
bool semundo_has(struct semundo *semundo, pid_t pid);
void semundo_finish(struct semundo *semundo);
