/* SPDX-License-Identifier: Apache-2.0 */
#include "image/flusher.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

enum { STEP = 8 << 20 };

void flusher_init(struct flusher *flusher, int fd)
{
	*flusher = (struct flusher){ .fd = fd, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
}

void flusher_begin(struct flusher *flusher)
{
	struct statfs status;
	flusher->wanted = fstatfs(flusher->fd, &status) == 0 && status.f_type != TMPFS_MAGIC && status.f_type != RAMFS_MAGIC;
}

static void *send_what_comes(void *context)
{
	struct flusher *flusher = context;
	pthread_mutex_lock(&flusher->lock);
	while (!flusher->ends) {
		uint64_t from = flusher->sent, size = flusher->written - from;
		if (size < STEP) {
			pthread_cond_wait(&flusher->changed, &flusher->lock);
			continue;
		}
		pthread_mutex_unlock(&flusher->lock);
		sync_file_range(flusher->fd, (off_t)from, (off_t)size, SYNC_FILE_RANGE_WRITE);
		pthread_mutex_lock(&flusher->lock);
		flusher->sent = from + size;
	}
	pthread_mutex_unlock(&flusher->lock);
	return NULL;
}

void flusher_note(struct flusher *flusher, uint64_t end)
{
	if (!flusher->wanted)
		return;
	pthread_mutex_lock(&flusher->lock);
	if (end > flusher->written)
		flusher->written = end;
	if (flusher->written - flusher->sent >= STEP) {
		if (!flusher->running)
			flusher->running = pthread_create(&flusher->thread, NULL, send_what_comes, flusher) == 0;
		pthread_cond_signal(&flusher->changed);
	}
	pthread_mutex_unlock(&flusher->lock);
}

void flusher_finish(struct flusher *flusher)
{
	pthread_mutex_lock(&flusher->lock);
	flusher->ends = true;
	pthread_cond_signal(&flusher->changed);
	pthread_mutex_unlock(&flusher->lock);
	if (flusher->running)
		pthread_join(flusher->thread, NULL);
	pthread_cond_destroy(&flusher->changed);
	pthread_mutex_destroy(&flusher->lock);
}
