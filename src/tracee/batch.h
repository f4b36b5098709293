/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* System calls to be made by somebody else, with the memory that they point to. Calls and data are laid out here as
 * they will lie in the other's area; batch_run sends them there, runs them in as few round trips as fit, and fetches
 * results and data back. */
#include "base/memory.h"
#include "stub/stub.h"
#include "tracee/ptrace.h"

enum {
	BATCH_CALLS = 512, /* per round trip */
	BATCH_AREA = 128 * 1024,
	BATCH_END = 64, /* the stub's own, at the end of the area */
	BATCH_DATA = BATCH_AREA - BATCH_CALLS * (int)sizeof(struct stub_call) - BATCH_END,
};

/* Data of a batch: where it will be for the one who makes the calls, and where it is here. */
struct batch_place {
	uint64_t address;
	uint32_t piece, offset;
};

struct batch_piece {
	struct stub_call *calls;
	const char **names;
	uint32_t call_count, data_size, data_space;
	uint8_t *data;
};

struct batch {
	uint64_t area; /* BATCH_AREA bytes in the other address space */
	VEC(struct batch_piece) pieces;
};

void batch_init(struct batch *batch, uint64_t area);
void batch_finish(struct batch *batch);
bool batch_empty(const struct batch *batch);

/* Makes sure that @calls calls and @bytes of data lie in one round trip: before each group of calls and data that belong
 * together. Groups must fit (asserted). */
void batch_group(struct batch *batch, unsigned calls, size_t bytes);
/* Data for the calls of this group, 16-byte aligned. */
struct batch_place batch_data(struct batch *batch, const void *data, size_t size);
struct batch_place batch_room(struct batch *batch, size_t size);
/* Adds a call; @name is for the fault and lives as long as the batch. Returns its number. */
size_t batch_call_raw(struct batch *batch, const char *name, bool may_fail, long number, const uint64_t args[6]);
#define BATCH_ARGS(...) ((const uint64_t[6]){ __VA_ARGS__ })
/* batch_call(batch, prctl, PR_SET_NAME, place.address): the batch stops if it fails. batch_try: it goes on. */
#define batch_call(batch, call, ...) \
	batch_call_raw((batch), #call, false, __NR_##call, BATCH_ARGS(__VA_ARGS__))
#define batch_try(batch, call, ...) batch_call_raw((batch), #call, true, __NR_##call, BATCH_ARGS(__VA_ARGS__))

/* Where its result will be for the one who makes the calls: a later one of the same group may use it. */
uint64_t batch_result_address(const struct batch *batch, size_t call);

/* After the run. */
int64_t batch_result(const struct batch *batch, size_t call);
const void *batch_bytes(const struct batch *batch, struct batch_place place);

/* How many round trips it takes. */
size_t batch_trips(const struct batch *batch);
/* The first half of a batch of one round trip: sends it to address space @pid; it is then to be run from its area's beginning to *@ret_end. The second half: fetches what
 * it has done. */
int batch_send(const struct batch *batch, pid_t pid, uint64_t *ret_end, struct fault *fault);
int batch_fetch(struct batch *batch, pid_t pid, struct fault *fault);

/* How a piece is made to run: writes nothing of the area itself. */
typedef int (*batch_runner)(void *context, uint64_t first, uint64_t end, struct fault *fault);
/* Runs it all in address space @pid. The first call that failed and must not is the fault. */
int batch_run(struct batch *batch, pid_t pid, batch_runner runner, void *context, struct fault *fault);
