/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/memory/aio_request.h"

#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>

void aio_kit_group(struct aio_kit *kit, const struct aio_caller *caller, struct batch *batch, unsigned calls, size_t bytes)
{
	batch_group(batch, calls, AIO_KIT + bytes);
	if (kit->piece && kit->piece == batch->pieces.count)
		return;
	const struct iocb request = {
		.aio_data = caller->cookie, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)caller->eventfd, .aio_buf = POLLIN,
	};
	struct batch_place one = batch_data(batch, &request, sizeof request);
	_free_ uint64_t *list = memory_new(AIO_REQUESTS * sizeof *list);
	for (size_t i = 0; i < AIO_REQUESTS; i++)
		list[i] = one.address;
	kit->list = batch_data(batch, list, AIO_REQUESTS * sizeof *list);
	kit->piece = batch->pieces.count;
}

size_t aio_kit_submit(const struct aio_kit *kit, const struct aio_caller *caller, struct batch *batch, uint32_t count)
{
	return batch_try(batch, io_submit, caller->ring, count, kit->list.address);
}

int aio_post(const struct aio_caller *caller, uint32_t count, const uint8_t *mask, size_t mask_size, uint32_t *ret_taken, struct fault *fault)
{
	struct aio_kit kit = { 0 };
	struct batch batch;
	batch_init(&batch, caller->area);
	aio_kit_group(&kit, caller, &batch, 2, mask_size);
	if (mask)
		batch_try(&batch, sched_setaffinity, 0, mask_size, batch_data(&batch, mask, mask_size).address);
	size_t call = aio_kit_submit(&kit, caller, &batch, count < AIO_REQUESTS ? count : AIO_REQUESTS);
	int rc = caller->run(caller->thread, &batch, fault);
	int64_t taken = rc == 0 ? batch_result(&batch, call) : 0;
	batch_finish(&batch);
	*ret_taken = taken > 0 ? (uint32_t)taken : 0;
	return rc;
}

uint64_t aio_cookie(void)
{
	uint64_t cookie = UINT64_C(0x636169726e61696f);
	if (getrandom(&cookie, sizeof cookie, GRND_NONBLOCK) < 0)
		cookie ^= clock_now_ns();
	return cookie;
}

int aio_read_tail(const struct aio_caller *caller, uint32_t slots, uint32_t *ret_tail, struct fault *fault)
{
	uint32_t tail;
	int rc = memory_read(caller->tid, caller->ring + offsetof(struct aio_ring, tail), &tail, sizeof tail, fault);
	if (rc == 0)
		*ret_tail = tail % slots;
	return rc;
}

int aio_write_head(const struct aio_caller *caller, uint32_t head, struct fault *fault)
{
	return memory_write(caller->tid, caller->ring + offsetof(struct aio_ring, head), &head, sizeof head, fault);
}

static uint64_t event_address(const struct aio_caller *caller, uint32_t at)
{
	return caller->ring + sizeof(struct aio_ring) + at * sizeof(struct io_event);
}

/* How many of them lie before the end of the ring. */
static uint32_t until_end(uint32_t slots, uint32_t at, uint32_t count)
{
	return count < slots - at ? count : slots - at;
}

int aio_read_events(const struct aio_caller *caller, uint32_t slots, uint32_t at, struct io_event *events, uint32_t count, struct fault *fault)
{
	uint32_t first = until_end(slots, at, count);
	int rc = first ? memory_read(caller->tid, event_address(caller, at), events, first * sizeof *events, fault) : 0;
	if (rc == 0 && first < count)
		rc = memory_read(caller->tid, event_address(caller, 0), events + first, (count - first) * sizeof *events, fault);
	return rc;
}

int aio_write_events(const struct aio_caller *caller, uint32_t slots, uint32_t at, const struct io_event *events, uint32_t count, struct fault *fault)
{
	uint32_t first = until_end(slots, at, count);
	int rc = first ? memory_write(caller->tid, event_address(caller, at), events, first * sizeof *events, fault) : 0;
	if (rc == 0 && first < count)
		rc = memory_write(caller->tid, event_address(caller, 0), events + first, (count - first) * sizeof *events, fault);
	return rc;
}
