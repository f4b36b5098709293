/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A context of asynchronous I/O (io_setup(2)) as a program sees it: the ring that the kernel maps for it, and whose address is its name (fs/aio.c, 6.18). */
#include <linux/aio_abi.h>
#include <stddef.h>
#include <stdint.h>

struct fault;

struct aio_ring {
	uint32_t id;          /* the kernel finds the context by it: never written by Cairn */
	uint32_t slots;       /* of events; one is always left free */
	uint32_t head, tail;  /* the oldest event that was not read, and behind the newest. Who reads may write the head; of the tail the kernel has a copy of its own */
	uint32_t magic, compatible, incompatible, header_size;
	struct io_event events[];
};

enum { AIO_PAGE = 4096, AIO_MOST_SIZE = 65537 * AIO_PAGE };

/* How many slots a ring of @size bytes has (aio_setup_ring). */
uint32_t aio_slots(uint64_t size);
/* From one place of the ring to another. */
uint32_t aio_distance(uint32_t from, uint32_t to, uint32_t slots);
/* How many requests a processor takes from the common slots at once (ioctx_alloc). */
uint32_t aio_batch(uint32_t slots, uint32_t processors);
/* How many slots can be taken when none is: what is left over is less than a processor takes at once. */
uint32_t aio_usable(uint32_t slots, uint32_t processors);
/* For how many requests io_setup(2) has to be asked to make a ring of @size bytes, the fewest; 0: it makes none of that size where so many processors are possible. */
uint32_t aio_requests(uint64_t size, uint32_t processors);

/* How many processors are possible here ("0-1", "0,2-5": /sys/devices/system/cpu/possible). */
int aio_processors_parse(const char *text, uint32_t *ret_count, struct fault *fault);
int aio_processors(uint32_t *ret_count, struct fault *fault);
