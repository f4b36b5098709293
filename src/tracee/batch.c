/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_AT = BATCH_CALLS * (int)sizeof(struct stub_call) };

void batch_init(struct batch *batch, uint64_t area)
{
	*batch = (struct batch){ .area = area };
}

void batch_finish(struct batch *batch)
{
	if (!batch)
		return;
	for (size_t i = 0; i < batch->pieces.count; i++) {
		free(batch->pieces.at[i].calls);
		free(batch->pieces.at[i].names);
		free(batch->pieces.at[i].data);
	}
	vec_finish(&batch->pieces);
}

bool batch_empty(const struct batch *batch)
{
	return batch->pieces.count == 0;
}

static struct batch_piece *last(struct batch *batch)
{
	return batch->pieces.count ? &batch->pieces.at[batch->pieces.count - 1] : vec_add(&batch->pieces);
}

void batch_group(struct batch *batch, unsigned calls, size_t bytes)
{
	assert(calls <= BATCH_CALLS && bytes <= BATCH_DATA);
	struct batch_piece *piece = last(batch);
	if (piece->call_count + calls > BATCH_CALLS || piece->data_size + bytes > BATCH_DATA)
		vec_add(&batch->pieces);
}

struct batch_place batch_room(struct batch *batch, size_t size)
{
	struct batch_piece *piece = last(batch);
	uint32_t offset = (piece->data_size + 15u) & ~15u;
	assert(offset + size <= BATCH_DATA);
	piece->data_size = offset + (uint32_t)size;
	if (piece->data_size > piece->data_space) {
		uint32_t old = piece->data_space;
		piece->data_space = piece->data_size < 1024 ? 1024 : 2 * piece->data_size;
		piece->data = memory_resize(piece->data, piece->data_space);
		memset(piece->data + old, 0, piece->data_space - old);
	}
	return (struct batch_place){ batch->area + DATA_AT + offset, (uint32_t)(batch->pieces.count - 1), offset };
}

struct batch_place batch_data(struct batch *batch, const void *data, size_t size)
{
	struct batch_place place = batch_room(batch, size);
	if (size)
		memcpy(last(batch)->data + place.offset, data, size);
	return place;
}

size_t batch_call_raw(struct batch *batch, const char *name, bool may_fail, long number, const uint64_t args[6])
{
	struct batch_piece *piece = last(batch);
	if (piece->call_count == BATCH_CALLS)
		piece = vec_add(&batch->pieces);
	if (!(piece->call_count & (piece->call_count - 1))) {
		size_t space = piece->call_count ? 2 * piece->call_count : 1;
		piece->calls = memory_resize(piece->calls, space * sizeof *piece->calls);
		piece->names = memory_resize(piece->names, space * sizeof *piece->names);
	}
	struct stub_call *call = &piece->calls[piece->call_count];
	call->number = (uint64_t)number | (may_fail ? STUB_MAY_FAIL : 0);
	memcpy(call->args, args, sizeof call->args);
	call->result = STUB_NOT_RUN;
	piece->names[piece->call_count] = name;
	return (batch->pieces.count - 1) * BATCH_CALLS + piece->call_count++;
}

uint64_t batch_result_address(const struct batch *batch, size_t call)
{
	return batch->area + call % BATCH_CALLS * sizeof(struct stub_call) + offsetof(struct stub_call, result);
}

int64_t batch_result(const struct batch *batch, size_t call)
{
	return batch->pieces.at[call / BATCH_CALLS].calls[call % BATCH_CALLS].result;
}

const void *batch_bytes(const struct batch *batch, struct batch_place place)
{
	return batch->pieces.at[place.piece].data + place.offset;
}

static int piece_verdict(const struct batch_piece *piece, struct fault *fault)
{
	for (uint32_t i = 0; i < piece->call_count; i++) {
		const struct stub_call *call = &piece->calls[i];
		if (call->result == STUB_NOT_RUN)
			return fault_set(fault, FAULT_FAILED, EIO, "%s: was not run", piece->names[i]);
		if (call->result < 0 && call->result >= -4095 && !(call->number & STUB_MAY_FAIL))
			return fault_set(fault, fault_class_of((int)-call->result), (int)-call->result,
					 "%s(0x%llx, 0x%llx, 0x%llx, 0x%llx): %s", piece->names[i],
					 (unsigned long long)call->args[0], (unsigned long long)call->args[1],
					 (unsigned long long)call->args[2], (unsigned long long)call->args[3],
					 strerror((int)-call->result));
	}
	return 0;
}

static int send_piece(const struct batch *batch, const struct batch_piece *piece, pid_t pid, uint64_t *ret_end, struct fault *fault)
{
	size_t calls_size = piece->call_count * sizeof *piece->calls;
	int rc = memory_write(pid, batch->area, piece->calls, calls_size, fault);
	if (rc == 0 && piece->data_size)
		rc = memory_write(pid, batch->area + DATA_AT, piece->data, piece->data_size, fault);
	*ret_end = batch->area + calls_size;
	return rc;
}

static int fetch_piece(const struct batch *batch, struct batch_piece *piece, pid_t pid, struct fault *fault)
{
	int rc = memory_read(pid, batch->area, piece->calls, piece->call_count * sizeof *piece->calls, fault);
	if (rc == 0 && piece->data_size)
		rc = memory_read(pid, batch->area + DATA_AT, piece->data, piece->data_size, fault);
	return rc < 0 ? rc : piece_verdict(piece, fault);
}

/* The first piece from @piece on that has calls, NULL: there is none. */
static struct batch_piece *next_piece(const struct batch *batch, struct batch_piece *piece)
{
	while (piece < batch->pieces.at + batch->pieces.count && !piece->call_count)
		piece++;
	return piece < batch->pieces.at + batch->pieces.count ? piece : NULL;
}

size_t batch_trips(const struct batch *batch)
{
	size_t count = 0;
	for (size_t i = 0; i < batch->pieces.count; i++)
		count += batch->pieces.at[i].call_count > 0;
	return count;
}

int batch_send(const struct batch *batch, pid_t pid, uint64_t *ret_end, struct fault *fault)
{
	const struct batch_piece *piece = next_piece(batch, batch->pieces.at);
	assert(piece);
	return send_piece(batch, piece, pid, ret_end, fault);
}

int batch_fetch(struct batch *batch, pid_t pid, struct fault *fault)
{
	struct batch_piece *piece = next_piece(batch, batch->pieces.at);
	assert(piece);
	return fetch_piece(batch, piece, pid, fault);
}

int batch_run(struct batch *batch, pid_t pid, batch_runner runner, void *context, struct fault *fault)
{
	for (size_t i = 0; i < batch->pieces.count; i++) {
		struct batch_piece *piece = &batch->pieces.at[i];
		uint64_t end;
		if (!piece->call_count)
			continue;
		int rc = send_piece(batch, piece, pid, &end, fault);
		if (rc == 0)
			rc = runner(context, batch->area, end, fault);
		if (rc == 0)
			rc = fetch_piece(batch, piece, pid, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}
