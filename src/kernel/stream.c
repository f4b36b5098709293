/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

enum { PIECE_FIRST = 32 << 10, PIECE_MOST = 256 << 10, READ_LEAST = 4 << 10, LINE_MOST = 16 << 10, PIECES = 2 };

struct piece {
	char *at;
	size_t size, space;
};

struct stream {
	int fd;
	size_t most, total;
	struct piece pieces[PIECES];
	char tail[LINE_MOST]; /* the beginning of a line, whose rest is in the next piece */
	size_t tail_size;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	unsigned filled, taken; /* pieces */
	bool ended, stop;       /* nothing more is filled; nor wanted */
	int rc;
};

/* 1: it was the last one. */
static int read_bytes(struct stream *stream, struct piece *piece)
{
	for (;;) {
		if (piece->space - piece->size <= READ_LEAST && piece->space >= PIECE_MOST)
			return 0;
		if (piece->space - piece->size <= READ_LEAST)
			piece->at = memory_resize(piece->at, piece->space = piece->space ? 2 * piece->space : PIECE_FIRST);
		ssize_t n = read(stream->fd, piece->at + piece->size, piece->space - piece->size - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 1;
		piece->size += (size_t)n;
		stream->total += (size_t)n;
		if (stream->total > stream->most)
			return -EFBIG;
	}
}

static int fill(struct stream *stream, struct piece *piece)
{
	if (stream->tail_size && !piece->space)
		piece->at = memory_resize(piece->at, piece->space = PIECE_MOST);
	if (stream->tail_size)
		memcpy(piece->at, stream->tail, stream->tail_size);
	piece->size = stream->tail_size;
	stream->tail_size = 0;
	int rc = read_bytes(stream, piece);
	if (rc < 0)
		return rc;
	const char *end = rc ? NULL : memrchr(piece->at, '\n', piece->size);
	if (rc == 0) {
		size_t whole = end ? (size_t)(end - piece->at) + 1 : 0;
		if (!whole || piece->size - whole > sizeof stream->tail)
			return -EOVERFLOW;
		stream->tail_size = piece->size - whole;
		memcpy(stream->tail, piece->at + whole, stream->tail_size);
		piece->size = whole;
	}
	piece->at[piece->size] = 0;
	return rc;
}

static void *read_on(void *thing)
{
	struct stream *stream = thing;
	int rc = 0;
	pthread_mutex_lock(&stream->lock);
	while (rc == 0 && !stream->stop) {
		if (stream->filled - stream->taken == PIECES) {
			pthread_cond_wait(&stream->changed, &stream->lock);
			continue;
		}
		struct piece *piece = &stream->pieces[stream->filled % PIECES];
		pthread_mutex_unlock(&stream->lock);
		rc = fill(stream, piece);
		pthread_mutex_lock(&stream->lock);
		stream->filled += rc >= 0;
		pthread_cond_signal(&stream->changed);
	}
	stream->rc = rc < 0 ? rc : 0;
	stream->ended = true;
	pthread_cond_signal(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	return NULL;
}

typedef int taker(void *context, const char *lines, struct fault *fault);

/* The first piece is filled. */
static int take_while_read(struct stream *stream, taker *take, void *context, struct fault *fault)
{
	pthread_t reader;
	int rc = 0;
	stream->filled = 1;
	if (pthread_create(&reader, NULL, read_on, stream))
		return -EAGAIN;
	pthread_mutex_lock(&stream->lock);
	while (rc == 0 && (stream->filled != stream->taken || !stream->ended)) {
		if (stream->filled == stream->taken) {
			pthread_cond_wait(&stream->changed, &stream->lock);
			continue;
		}
		const char *lines = stream->pieces[stream->taken % PIECES].at;
		pthread_mutex_unlock(&stream->lock);
		rc = take(context, lines, fault);
		pthread_mutex_lock(&stream->lock);
		stream->taken++;
		pthread_cond_signal(&stream->changed);
	}
	stream->stop = true;
	pthread_cond_signal(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	pthread_join(reader, NULL);
	return rc;
}

static int take_by_turns(struct stream *stream, taker *take, void *context, struct fault *fault)
{
	for (int rc = 0;;) {
		int taken = take(context, stream->pieces[0].at, fault);
		if (taken < 0 || rc > 0)
			return taken;
		rc = fill(stream, &stream->pieces[0]);
		if (rc < 0) {
			stream->rc = rc;
			return 0;
		}
	}
}

int proc_stream(pid_t pid, const char *name, size_t most, taker *take, void *context, struct fault *fault)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return proc_fault(pid, name, errno, fault);
	struct stream *stream = memory_new(sizeof *stream);
	*stream = (struct stream){ .fd = fd, .most = most, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	int rc = 0, first = fill(stream, &stream->pieces[0]);
	stream->rc = first < 0 ? first : 0;
	if (first > 0) /* all of it */
		rc = take(context, stream->pieces[0].at, fault);
	else if (first == 0 && (rc = take_while_read(stream, take, context, fault)) == -EAGAIN && !stream->taken)
		rc = take_by_turns(stream, take, context, fault);
	int failed = stream->rc;
	for (int i = 0; i < PIECES; i++)
		free(stream->pieces[i].at);
	free(stream);
	if (rc < 0 || !failed || failed == -EFBIG)
		return rc < 0 ? rc : failed;
	return proc_fault(pid, name, -failed, fault);
}
