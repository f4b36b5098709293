/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Sends a file that is being written to its disk meanwhile, instead of all at once at the end (fsync), when nobody has anything else to do. By a thread of
 * its own: sync_file_range(2) waits where the disk's queue is full, and a program whose memory is being copied must not wait for a disk. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct flusher {
	int fd;
	bool wanted, running, ends;
	pthread_t thread;
	pthread_mutex_t lock; /* of all but fd and wanted */
	pthread_cond_t changed;
	uint64_t written, sent; /* bytes from the file's beginning */
};

/* @fd is the caller's, and has to stay open until flusher_finish. Nothing is sent before flusher_begin. */
void flusher_init(struct flusher *flusher, int fd);
/* Files without a disk (tmpfs) stay as they are. */
void flusher_begin(struct flusher *flusher);
/* @end: where the last of what has been written ends, or is being written. Thread-safe. Errors are left to the fsync that has to come. */
void flusher_note(struct flusher *flusher, uint64_t end);
void flusher_finish(struct flusher *flusher);
