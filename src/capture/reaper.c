/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/reaper.h"

#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"

/* A seizure that takes no longer waits for nobody. */
#define LOOK_NS UINT64_C(5000000)

/* Stops are left to who seized them: those of the traced are waited for whether that is asked for or not (kernel/exit.c wait_task_stopped, 6.18). */
static bool has_ended(pid_t tid)
{
	siginfo_t info = { 0 };
	return waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && info.si_pid &&
	       (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED);
}

static void reap(const struct frozen_process *process)
{
	for (size_t i = 0; i < process->threads.count; i++) {
		const struct frozen_thread *thread = process->threads.at[i];
		siginfo_t info;
		if (thread->seized && has_ended(thread->tid))
			waitid(P_PID, (id_t)thread->tid, &info, WEXITED | WNOHANG | __WALL);
	}
}

static void *look_on(void *context)
{
	struct reaper *reaper = context;
	unsigned last = 0;
	pthread_mutex_lock(&reaper->lock);
	while (!reaper->ends) {
		uint64_t until_ns = clock_now_ns() + LOOK_NS;
		const struct timespec until = { (time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000) };
		if (reaper->process && reaper->seizure == last)
			reap(reaper->process);
		last = reaper->seizure;
		pthread_cond_timedwait(&reaper->changed, &reaper->lock, &until);
	}
	pthread_mutex_unlock(&reaper->lock);
	return NULL;
}

void reaper_init(struct reaper *reaper)
{
	pthread_condattr_t attributes;
	*reaper = (struct reaper){ .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&reaper->changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

void reaper_watch(struct reaper *reaper, const struct frozen_process *process)
{
	pthread_mutex_lock(&reaper->lock);
	reaper->process = process;
	reaper->seizure++;
	/* The first that is seized can wait for nobody. */
	if (!reaper->running && process->threads.count > 1)
		reaper->running = pthread_create(&reaper->thread, NULL, look_on, reaper) == 0;
	pthread_mutex_unlock(&reaper->lock);
}

void reaper_rest(struct reaper *reaper)
{
	pthread_mutex_lock(&reaper->lock);
	reaper->process = NULL;
	pthread_mutex_unlock(&reaper->lock);
}

void reaper_finish(struct reaper *reaper)
{
	pthread_mutex_lock(&reaper->lock);
	reaper->ends = true;
	pthread_cond_signal(&reaper->changed);
	pthread_mutex_unlock(&reaper->lock);
	if (reaper->running)
		pthread_join(reaper->thread, NULL);
	pthread_cond_destroy(&reaper->changed);
	pthread_mutex_destroy(&reaper->lock);
}
