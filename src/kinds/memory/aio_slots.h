/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Is anything under way in a context of asynchronous I/O? No interface tells, but its free slots are counted exactly (aio_slots.c). */
#include "kernel/aio.h"
#include "kinds/kind.h"

/* A context with nothing under way. */
struct aio_idle {
	uint32_t head;           /* place of the oldest event that was not read */
	struct io_event *unread; /* from there on; on the heap */
	uint32_t unread_count;
};

/* Frozen, with @thread as Cairn's guest. The ring is mapped by @pieces, side by side, the first of which is its beginning. A transient fault where requests are under way. The ring is
 * as before when it returns, but for events that have come meanwhile. */
int aio_slots_count(struct frozen_thread *thread, const struct map *pieces, size_t piece_count, struct aio_idle *ret_idle, struct fault *fault);
