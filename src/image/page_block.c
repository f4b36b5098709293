/* SPDX-License-Identifier: Apache-2.0 */
/* Reads page blocks: cuts one into its chunks, decompresses them, and hands out what the map names of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/codec.h"
#include "image/reader.h"

static bool is_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

/* Chunk @chunk of the block of @length bytes in @buffer, of which *at are accounted for. Decompresses into *room. @hashed: it has a checksum. */
static int chunk_take(const struct layout_chunk *chunk, bool hashed, const uint8_t *buffer, uint64_t length, uint64_t *at,
		      uint8_t **room, const uint8_t **ret_data, struct fault *fault)
{
	uint64_t bytes = (uint64_t)chunk->pages * IMAGE_PAGE, align = chunk->codec ? LAYOUT_CHUNK_ALIGN : IMAGE_PAGE;
	if (chunk->codec > CODEC_ZSTD || chunk->flags)
		return fault_set(fault, FAULT_IMAGE, EPROTONOSUPPORT,
				 "pages are stored in a way (%u, %u) that this Cairn does not know; try a newer Cairn",
				 chunk->codec, chunk->flags);
	if (!chunk->pages || chunk->pages > IMAGE_BLOCK_PAGES || chunk->offset % align || chunk->offset < *at ||
	    chunk->offset - *at >= align || chunk->offset > length || chunk->stored > length - chunk->offset ||
	    !chunk->stored || chunk->stored > bytes || (!chunk->codec && chunk->stored != bytes))
		return reader_damaged(fault, "a chunk of %u pages, which its block does not hold", chunk->pages);
	if ((hashed && chunk->hash != layout_chunk_hash(buffer + chunk->offset, chunk->stored)) ||
	    !is_zero(buffer + *at, chunk->offset - *at))
		return reader_damaged(fault, "checksum of %u pages", chunk->pages);
	*at = chunk->offset + chunk->stored;
	*ret_data = buffer + chunk->offset;
	if (!chunk->codec)
		return 0;
	if (!codec_decompress(chunk->codec, buffer + chunk->offset, chunk->stored, *room, bytes))
		return reader_damaged(fault, "%u compressed pages", chunk->pages);
	*ret_data = *room;
	*room += bytes;
	return 0;
}

static int chunks_take(const struct image_block *entry, bool hashed, uint8_t *buffer, struct chunk_list *ret_list, struct fault *fault)
{
	const struct layout_pages *first = (const struct layout_pages *)buffer;
	uint8_t *room = buffer + (IMAGE_BLOCK_PAGES + 1) * IMAGE_PAGE;
	uint64_t at = IMAGE_PAGE, pages = 0;
	ret_list->count = first->block.count;
	if (!ret_list->count || ret_list->count > IMAGE_CHUNKS)
		return reader_damaged(fault, "the block holds %u chunks", ret_list->count);
	for (uint32_t i = 0; i < ret_list->count; i++) {
		ret_list->pages[i] = first->chunks[i].pages;
		pages += ret_list->pages[i];
		if (pages > IMAGE_BLOCK_PAGES)
			return reader_damaged(fault, "the block holds more pages than it may");
		int rc = chunk_take(&first->chunks[i], hashed, buffer, entry->length, &at, &room, &ret_list->data[i], fault);
		if (rc)
			return rc;
	}
	if (layout_align(at) != entry->length || !is_zero(buffer + at, entry->length - at) || pages != entry->pages ||
	    pages != first->block.pages)
		return reader_damaged(fault, "the block is not what the index says");
	return 0;
}

static int places_check(const struct image_reader *reader, size_t index, const struct chunk_list *list,
			struct fault *fault)
{
	for (size_t i = reader->block_starts[index]; i < reader->block_starts[index + 1]; i++) {
		const struct page_place *place = &reader->places.at[reader->by_block[i]].at;
		if (place->chunk >= list->count || place->first >= list->pages[place->chunk] ||
		    place->pages > list->pages[place->chunk] - place->first)
			return reader_damaged(fault, "the map names pages that the block does not hold");
	}
	return 0;
}

static int places_give(const struct image_reader *reader, size_t index, const struct chunk_list *list,
		       const struct page_taker *taker, struct fault *fault)
{
	struct page_batch batch;
	batch.count = batch.space = 0;
	int rc = 0;
	for (size_t i = reader->block_starts[index]; !rc && i < reader->block_starts[index + 1]; i++) {
		const struct image_place *place = &reader->places.at[reader->by_block[i]];
		if (batch.count && (batch.space != place->space || batch.count == PAGES_MOST)) {
			rc = taker->take(taker->context, &batch, fault);
			batch.count = 0;
		}
		batch.space = place->space;
		batch.chunks[batch.count++] = (struct page_chunk){
			place->at.address, place->at.pages,
			list->data[place->at.chunk] + (size_t)place->at.first * IMAGE_PAGE };
	}
	return !rc && batch.count ? taker->take(taker->context, &batch, fault) : rc;
}

static int block_read(const struct image_reader *reader, size_t index, void *buffer, struct chunk_list *ret_list,
		      struct fault *fault)
{
	const struct image_block *entry = &reader->blocks.at[index];
	const struct image_reader *source = entry->image ? reader->ancestors.at[entry->image - 1].reader : reader;
	int rc = reader_read_at(source, buffer, entry->length, entry->offset, fault);
	if (!rc)
		rc = reader_pages_check(source, buffer, entry->offset, entry->length, fault);
	if (rc)
		return rc;
	rc = chunks_take(entry, !source->crypt, buffer, ret_list, fault);
	if (!rc)
		rc = places_check(reader, index, ret_list, fault);
	return rc ? fault_at(fault, rc, "the block at 0x%llx", (unsigned long long)entry->offset) : 0;
}

int reader_pages_at(const struct image_reader *file, uint64_t offset, uint8_t *buffer, struct chunk_list *ret_list, struct fault *fault)
{
	struct layout_block block; /* its length is at the same place in an encrypted one */
	int rc = reader_read_at(file, &block, sizeof block, offset, fault);
	if (!rc && (block.length < 2 * IMAGE_PAGE || block.length > (IMAGE_BLOCK_PAGES + 1) * IMAGE_PAGE))
		rc = reader_damaged(fault, "a page block of %llu bytes", (unsigned long long)block.length);
	if (!rc)
		rc = reader_read_at(file, buffer, block.length, offset, fault);
	if (!rc)
		rc = reader_pages_check(file, (struct layout_pages *)buffer, offset, block.length, fault);
	if (rc)
		return rc;
	const struct image_block entry = { offset, (uint32_t)block.length, ((struct layout_pages *)buffer)->block.pages, 0 };
	return chunks_take(&entry, !file->crypt, buffer, ret_list, fault);
}

int image_reader_pages(const struct image_reader *reader, size_t index, void *buffer, const struct page_taker *taker,
		       struct fault *fault)
{
	struct chunk_list list;
	if (index >= reader->blocks.count)
		return fault_set(fault, FAULT_FAILED, EINVAL, "%s: it has no page block %zu; please report this",
				 reader->name, index);
	int rc = block_read(reader, index, buffer, &list, fault);
	if (rc)
		return fault_at(fault, rc, "%s", reader->name);
	return taker ? places_give(reader, index, &list, taker, fault) : 0;
}

/* Of the block @index, whose first page is in @first. */
static int raw_places_give(const struct image_reader *reader, size_t index, const struct layout_pages *first, image_take_raw take, void *context,
			   struct fault *fault)
{
	const struct image_block *entry = &reader->blocks.at[index];
	for (size_t i = reader->block_starts[index]; i < reader->block_starts[index + 1]; i++) {
		const struct image_place *place = &reader->places.at[reader->by_block[i]];
		const struct layout_chunk *chunk = &first->chunks[place->at.chunk < IMAGE_CHUNKS ? place->at.chunk : 0];
		uint64_t end = (uint64_t)chunk->offset + (uint64_t)chunk->pages * IMAGE_PAGE;
		if (place->at.chunk >= first->block.count || place->at.first >= chunk->pages || place->at.pages > chunk->pages - place->at.first)
			return reader_damaged(fault, "the map names pages that the block does not hold");
		if (chunk->codec)
			continue;
		if (chunk->offset % IMAGE_PAGE || chunk->offset < IMAGE_PAGE || end > entry->length)
			return reader_damaged(fault, "a chunk of %u pages, which its block does not hold", chunk->pages);
		take(context, place, entry->offset + chunk->offset + (uint64_t)place->at.first * IMAGE_PAGE);
	}
	return 0;
}

int image_reader_raw(const struct image_reader *reader, image_take_raw take, void *context, struct fault *fault)
{
	if (reader->crypt)
		return 0;
	struct layout_pages *first = aligned_alloc(IMAGE_PAGE, sizeof *first);
	int rc = first ? 0 : fault_set(fault, FAULT_FAILED, ENOMEM, "no memory to read with; try to free some");
	for (size_t index = 0; first && !rc && index < reader->blocks.count; index++) {
		const struct image_block *entry = &reader->blocks.at[index];
		if (entry->image)
			continue;
		rc = reader_read_at(reader, first, sizeof *first, entry->offset, fault);
		if (!rc)
			rc = reader_pages_check(reader, first, entry->offset, entry->length, fault);
		if (!rc && (!first->block.count || first->block.count > IMAGE_CHUNKS))
			rc = reader_damaged(fault, "the block holds %u chunks", first->block.count);
		if (!rc)
			rc = raw_places_give(reader, index, first, take, context, fault);
		if (rc)
			fault_at(fault, rc, "the block at 0x%llx", (unsigned long long)entry->offset);
	}
	free(first);
	return rc ? fault_at(fault, rc, "%s", reader->name) : 0;
}

/* Comparing */

struct image_cursor {
	const struct image_reader *reader;
	size_t index; /* of the block in the buffer */
	bool good;    /* there is one */
	struct chunk_list list;
	void *buffer;
};

struct image_cursor *image_cursor_new(const struct image_reader *reader)
{
	struct image_cursor *cursor = memory_new(sizeof *cursor);
	cursor->reader = reader;
	cursor->buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	return cursor;
}

bool image_cursor_same(struct image_cursor *cursor, uint32_t space, uint64_t address, const void *page,
		       struct page_place *ret_place)
{
	struct fault fault;
	const struct image_place *place = cursor->buffer ? reader_place_of(cursor->reader, space, address) : NULL;
	const struct image_block *block = place ? reader_block_of(cursor->reader, &place->at) : NULL;
	if (!block)
		return false;
	size_t index = (size_t)(block - cursor->reader->blocks.at);
	if (!cursor->good || cursor->index != index) {
		cursor->good = block_read(cursor->reader, index, cursor->buffer, &cursor->list, &fault) == 0;
		cursor->index = index;
	}
	size_t first = place->at.first + (address - place->at.address) / IMAGE_PAGE;
	if (!cursor->good || memcmp(cursor->list.data[place->at.chunk] + first * IMAGE_PAGE, page, IMAGE_PAGE))
		return false;
	*ret_place = place->at;
	ret_place->address = address;
	ret_place->pages = 1;
	ret_place->first = (uint16_t)first;
	ret_place->image++;
	return true;
}

void image_cursor_free(struct image_cursor *cursor)
{
	if (!cursor)
		return;
	free(cursor->buffer);
	free(cursor);
}
