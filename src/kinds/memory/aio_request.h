/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Requests of Cairn's own in a context of asynchronous I/O, made by a thread whose address space has it: polls of an eventfd, which wait for it, or are done at once when it has
 * been written to. All are made by one and the same iocb, and their events are known by its cookie. */
#include <stdbool.h>

#include "kernel/aio.h"
#include "tracee/batch.h"

enum {
	AIO_REQUESTS = 4096, /* that one call submits */
	AIO_KIT = AIO_REQUESTS * (int)sizeof(uint64_t) + (int)sizeof(struct iocb) + 32,
};

struct aio_caller {
	void *thread;
	int (*run)(void *thread, struct batch *batch, struct fault *fault);
	pid_t tid;
	uint64_t area;    /* as of a batch */
	uint64_t ring;    /* address */
	int eventfd;      /* of its process */
	uint64_t cookie;
};

/* What the calls of one group have in common. */
struct aio_kit {
	size_t piece; /* one more than the number of the batch's piece in which it lies, 0: in none yet */
	struct batch_place list;
};
/* As batch_group, with the kit in the same group. */
void aio_kit_group(struct aio_kit *kit, const struct aio_caller *caller, struct batch *batch, unsigned calls, size_t bytes);
/* Adds the call that submits up to @count requests; it may fail. Returns its number. */
size_t aio_kit_submit(const struct aio_kit *kit, const struct aio_caller *caller, struct batch *batch, uint32_t count);

/* Submits up to @count, by the processors in @mask (NULL: by any), as far as there are slots. */
int aio_post(const struct aio_caller *caller, uint32_t count, const uint8_t *mask, size_t mask_size, uint32_t *ret_taken, struct fault *fault);
uint64_t aio_cookie(void);
static inline bool aio_is_own(const struct aio_caller *caller, const struct io_event *event)
{
	return event->data == caller->cookie;
}

/* The words of the ring that count, from outside. */
int aio_read_tail(const struct aio_caller *caller, uint32_t slots, uint32_t *ret_tail, struct fault *fault);
int aio_write_head(const struct aio_caller *caller, uint32_t head, struct fault *fault);
/* @count events from place @at on, over the end of the ring too. */
int aio_read_events(const struct aio_caller *caller, uint32_t slots, uint32_t at, struct io_event *events, uint32_t count, struct fault *fault);
int aio_write_events(const struct aio_caller *caller, uint32_t slots, uint32_t at, const struct io_event *events, uint32_t count, struct fault *fault);
