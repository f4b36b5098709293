/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How far an operation has come: bytes, counted by several threads, told to whoever shows it. */
#include <pthread.h>
#include <stdint.h>

struct progress {
	/* One call at a time, by any thread; NULL: nobody is told. */
	void (*show)(void *context, uint64_t done, uint64_t total);
	void *context;
	uint64_t done, total; /* total: as far as is known by now */
	pthread_mutex_t lock;
};
#define PROGRESS_INIT(show, context) { (show), (context), 0, 0, PTHREAD_MUTEX_INITIALIZER }

/* NULL @progress: nothing. */
static inline void progress_expect(struct progress *progress, uint64_t bytes)
{
	if (progress)
		progress->total += bytes;
}

static inline void progress_add(struct progress *progress, uint64_t bytes)
{
	if (!progress || !progress->show || !bytes)
		return;
	pthread_mutex_lock(&progress->lock);
	progress->done += bytes;
	if (progress->total < progress->done)
		progress->total = progress->done;
	progress->show(progress->context, progress->done, progress->total);
	pthread_mutex_unlock(&progress->lock);
}
