/* SPDX-License-Identifier: Apache-2.0 */
/* What the freeze copies waits in memory until the program goes on. */
#include "capture/round.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void snapshot_hold_back(struct snapshot *snapshot, size_t bytes)
{
	struct snapshot_hold *hold = &snapshot->hold;
	void *memory = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) : MAP_FAILED;
	if (memory == MAP_FAILED)
		return;
	*hold = (struct snapshot_hold){ .memory = memory, .size = bytes };
}

bool hold_batch(struct round *round, size_t store, const struct page_batch *batch)
{
	struct snapshot_hold *hold = &round->snapshot->hold;
	size_t bytes = 0, at;
	for (uint32_t i = 0; i < batch->count; i++)
		bytes += (size_t)batch->chunks[i].pages * PAGE;
	pthread_mutex_lock(&round->lock);
	bool fits = bytes <= hold->size - hold->used;
	at = hold->used;
	hold->used += fits ? bytes : 0;
	for (uint32_t i = 0; fits && i < batch->count; i++) {
		*vec_add(&hold->held) = (struct snapshot_held){ store, batch->chunks[i].address, batch->chunks[i].pages, at };
		at += (size_t)batch->chunks[i].pages * PAGE;
	}
	pthread_mutex_unlock(&round->lock);
	for (uint32_t i = batch->count; fits && i-- > 0;) {
		size_t size = (size_t)batch->chunks[i].pages * PAGE;
		at -= size;
		memcpy(hold->memory + at, batch->chunks[i].data, size);
	}
	return fits;
}

/* A batch of what was held back, and whose each chunk is. */
struct giving {
	struct snapshot *snapshot;
	struct page_batch batch;
	size_t stores[PAGES_MOST];
	uint32_t pages;
};

static int give_batch(struct giving *giving, struct fault *fault)
{
	const struct page_sink *sink = giving->snapshot->sink;
	page_places places = { 0 };
	int rc = giving->batch.count ? sink->put(sink->context, &giving->batch, &places, fault) : 0;
	size_t next = 0;
	for (uint32_t c = 0; rc == 0 && c < giving->batch.count; c++)
		for (uint32_t pages = 0; pages < giving->batch.chunks[c].pages && next < places.count; pages += places.at[next++].pages)
			*vec_add(&giving->snapshot->stores.at[giving->stores[c]].fresh) = places.at[next];
	vec_finish(&places);
	giving->batch.count = giving->pages = 0;
	return rc;
}

/* @goes_on: it follows the one before it in the same mapping. */
static int give_page(struct giving *giving, size_t store, uint64_t address, const uint8_t *page, bool goes_on, struct fault *fault)
{
	struct page_batch *batch = &giving->batch;
	struct page_chunk *last = batch->count ? &batch->chunks[batch->count - 1] : NULL;
	int rc = 0;
	if (goes_on && last && giving->pages < PAGES_MOST && last->address + (uint64_t)last->pages * PAGE == address) {
		last->pages++;
		giving->pages++;
		return 0;
	}
	if (giving->pages == PAGES_MOST || batch->count == PAGES_MOST_CHUNKS)
		rc = give_batch(giving, fault);
	giving->stores[batch->count] = store;
	batch->chunks[batch->count++] = (struct page_chunk){ address, 1, page };
	giving->pages++;
	return rc;
}

int snapshot_give_out(struct snapshot *snapshot, struct fault *fault)
{
	struct snapshot_hold *hold = &snapshot->hold;
	struct giving *giving = memory_new(sizeof *giving);
	void *cursor = NULL;
	int rc = 0;
	giving->snapshot = snapshot;
	for (size_t i = 0; rc == 0 && i < hold->held.count; i++) {
		const struct snapshot_held *held = &hold->held.at[i];
		page_places *fresh = &snapshot->stores.at[held->store].fresh;
		for (uint32_t p = 0; rc == 0 && p < held->pages; p++) {
			const uint8_t *page = hold->memory + held->at + (size_t)p * PAGE;
			uint64_t address = held->address + (uint64_t)p * PAGE;
			if (!unit_is_known(snapshot, held->store, &cursor, address, page, fresh))
				rc = give_page(giving, held->store, address, page, p > 0, fault);
		}
	}
	if (rc == 0)
		rc = give_batch(giving, fault);
	for (size_t i = 0; rc == 0 && i < snapshot->stores.count; i++) {
		struct snapshot_store *store = &snapshot->stores.at[i];
		if (snapshot->unsettled) {
			store_settle(store);
			continue;
		}
		places_settle(&store->fresh);
		places_merge(&store->places, &store->fresh);
		vec_finish(&store->fresh);
	}
	snapshot->unsettled &= rc < 0;
	if (cursor)
		snapshot->sink->forget(cursor);
	free(giving);
	hold->held.count = hold->used = 0;
	return rc;
}
