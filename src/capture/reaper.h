/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* PTRACE_SEIZE of a thread whose process is in the middle of exec waits for the end of that (cred_guard_mutex, kernel/ptrace.c ptrace_attach), and the exec for the
 * end of all other threads, of which those that are traced end only when their tracer takes note (fs/exec.c de_thread, 6.18): who seizes one thread after the other
 * would wait for himself, and the program with him, for ever. Another thread of Cairn's takes note then. */
#include <pthread.h>

#include "kinds/kind.h"

struct reaper {
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	const struct frozen_process *process; /* of which a thread is being seized; its list does not change meanwhile */
	unsigned seizure;
	bool running, ends;
};

void reaper_init(struct reaper *reaper);
/* Around each PTRACE_SEIZE. */
void reaper_watch(struct reaper *reaper, const struct frozen_process *process);
void reaper_rest(struct reaper *reaper);
void reaper_finish(struct reaper *reaper);
