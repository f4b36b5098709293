/* SPDX-License-Identifier: Apache-2.0 */
#include "image/repeats.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "image/reader.h"

/* Where the page of an anchor is; pages 0: nothing. The first one that has these contents stays. */
struct known {
	uint64_t hash;
	struct page_place place;
};

/* A block that was read back. */
struct block_view {
	struct block_view *next;
	uint64_t offset; /* 0: none */
	struct chunk_list list;
	uint8_t *buffer;
};

struct repeats {
	struct image_reader file; /* no more of it than page blocks need */
	pthread_mutex_t lock;
	struct known *table; /* open addressing; a power of two, at most half full */
	size_t size, count;
	struct block_view *views; /* those that no thread uses: the last one used first */
};

struct repeats *repeats_new(int fd, uint64_t seed, struct crypt *crypt)
{
	struct repeats *repeats = memory_new(sizeof *repeats);
	repeats->file = (struct image_reader){ .fd = fd, .seed = seed, .crypt = crypt };
	pthread_mutex_init(&repeats->lock, NULL);
	repeats->size = 1024;
	repeats->table = memory_new(repeats->size * sizeof *repeats->table);
	return repeats;
}

void repeats_free(struct repeats *repeats)
{
	if (!repeats)
		return;
	while (repeats->views) {
		struct block_view *view = repeats->views;
		repeats->views = view->next;
		free(view->buffer);
		free(view);
	}
	pthread_mutex_destroy(&repeats->lock);
	free(repeats->table);
	free(repeats);
}

/* ---- anchors ---- */

/* By four words, so that most pages cost no more than that. Pages of which these are zero are none: there may be very many. */
static bool is_anchor(const uint64_t *words)
{
	uint64_t mixed = words[37] ^ (words[165] << 17 | words[165] >> 47) ^ (words[293] << 31 | words[293] >> 33) ^
			 (words[421] << 47 | words[421] >> 17);
	return mixed && mixed * UINT64_C(0x9e3779b97f4a7c15) >> 60 == 0;
}

void anchors_find(const struct page_batch *batch, struct anchors *ret_anchors)
{
	ret_anchors->count = 0;
	for (uint32_t c = 0; c < batch->count; c++)
		for (uint32_t p = 0; p < batch->chunks[c].pages; p++) {
			const uint8_t *page = (const uint8_t *)batch->chunks[c].data + (size_t)p * IMAGE_PAGE;
			if (!is_anchor((const uint64_t *)(const void *)page))
				continue;
			if (ret_anchors->count == REPEATS_ANCHORS)
				return;
			ret_anchors->at[ret_anchors->count++] = (struct anchor){ XXH3_64bits(page, IMAGE_PAGE), (uint16_t)c, (uint16_t)p };
		}
}

/* ---- the table; the lock is held ---- */

/* Where @hash is, or would be. */
static struct known *slot_of(struct known *table, size_t size, uint64_t hash)
{
	size_t at = hash & (size - 1);
	while (table[at].place.pages && table[at].hash != hash)
		at = (at + 1) & (size - 1);
	return &table[at];
}

static void grow(struct repeats *repeats)
{
	size_t size = repeats->size * 2;
	struct known *table = memory_new(size * sizeof *table);
	for (size_t i = 0; i < repeats->size; i++)
		if (repeats->table[i].place.pages)
			*slot_of(table, size, repeats->table[i].hash) = repeats->table[i];
	free(repeats->table);
	repeats->table = table;
	repeats->size = size;
}

void repeats_note(struct repeats *repeats, const struct anchor *anchor, const struct page_place *place)
{
	pthread_mutex_lock(&repeats->lock);
	struct known *slot = slot_of(repeats->table, repeats->size, anchor->hash);
	if (!slot->place.pages) {
		*slot = (struct known){ anchor->hash, *place };
		if (++repeats->count * 2 > repeats->size)
			grow(repeats);
	}
	pthread_mutex_unlock(&repeats->lock);
}

static bool look_up(struct repeats *repeats, uint64_t hash, struct page_place *ret_place)
{
	pthread_mutex_lock(&repeats->lock);
	*ret_place = slot_of(repeats->table, repeats->size, hash)->place;
	pthread_mutex_unlock(&repeats->lock);
	return ret_place->pages != 0;
}

/* ---- comparing ---- */

static struct block_view *view_take(struct repeats *repeats)
{
	pthread_mutex_lock(&repeats->lock);
	struct block_view *view = repeats->views;
	if (view)
		repeats->views = view->next;
	pthread_mutex_unlock(&repeats->lock);
	if (view)
		return view;
	view = memory_new(sizeof *view);
	view->buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	return view;
}

static void view_put(struct repeats *repeats, struct block_view *view)
{
	pthread_mutex_lock(&repeats->lock);
	view->next = repeats->views;
	repeats->views = view;
	pthread_mutex_unlock(&repeats->lock);
}

/* What cannot be read back is not there. */
static bool view_read(const struct repeats *repeats, struct block_view *view, uint64_t offset)
{
	struct fault fault;
	if (view->offset == offset)
		return true;
	view->offset = 0;
	if (!view->buffer || reader_pages_at(&repeats->file, offset, view->buffer, &view->list, &fault) < 0)
		return false;
	view->offset = offset;
	return true;
}

static bool same(const uint8_t *a, const uint8_t *b)
{
	return !memcmp(a, b, IMAGE_PAGE);
}

/* How far the pages around @anchor (from page @from of its chunk on) are those around @place. false: not far enough. */
static bool match(const struct block_view *view, const struct page_place *place, const struct page_chunk *chunk, const struct anchor *anchor,
		  uint32_t from, struct repeat *ret_repeat)
{
	if (place->chunk >= view->list.count || place->first >= view->list.pages[place->chunk])
		return false;
	const uint8_t *here = (const uint8_t *)chunk->data + (size_t)anchor->page * IMAGE_PAGE;
	const uint8_t *there = view->list.data[place->chunk] + (size_t)place->first * IMAGE_PAGE;
	uint32_t before = 0, after = 0, most_before = anchor->page - from, most_after = chunk->pages - anchor->page;
	if (most_before > place->first)
		most_before = place->first;
	if (most_after > view->list.pages[place->chunk] - place->first)
		most_after = view->list.pages[place->chunk] - place->first;
	if (most_before + most_after < REPEATS_LEAST)
		return false;
	while (after < most_after && same(here + (size_t)after * IMAGE_PAGE, there + (size_t)after * IMAGE_PAGE))
		after++;
	while (after && before < most_before && same(here - (size_t)(before + 1) * IMAGE_PAGE, there - (size_t)(before + 1) * IMAGE_PAGE))
		before++;
	*ret_repeat = (struct repeat){
		anchor->chunk, (uint16_t)(anchor->page - before),
		{ .address = chunk->address + (uint64_t)(anchor->page - before) * IMAGE_PAGE, .block = place->block, .pages = before + after,
		  .chunk = place->chunk, .first = (uint16_t)(place->first - before) } };
	return before + after >= REPEATS_LEAST;
}

uint32_t repeats_find(struct repeats *repeats, const struct page_batch *batch, const struct anchors *anchors, struct repeat ret_repeats[REPEATS_ANCHORS])
{
	struct block_view *view = NULL;
	uint32_t count = 0;
	for (uint32_t i = 0; i < anchors->count; i++) {
		const struct anchor *anchor = &anchors->at[i];
		const struct page_chunk *chunk = &batch->chunks[anchor->chunk];
		const struct repeat *last = count && ret_repeats[count - 1].chunk == anchor->chunk ? &ret_repeats[count - 1] : NULL;
		uint32_t from = last ? last->page + last->place.pages : 0;
		struct page_place place;
		if (anchor->page < from || !look_up(repeats, anchor->hash, &place))
			continue;
		/* At the same address it may be the same page of a relative, and what the map names for both of them they share (ARCHITECTURE.md, families): that
		 * is the walker's to decide. */
		if (place.address == chunk->address + (uint64_t)anchor->page * IMAGE_PAGE)
			continue;
		if (!view)
			view = view_take(repeats);
		if (view_read(repeats, view, place.block) && match(view, &place, chunk, anchor, from, &ret_repeats[count]))
			count++;
	}
	if (view)
		view_put(repeats, view);
	return count;
}
