/* SPDX-License-Identifier: Apache-2.0 */
/* cairn merge: an image that holds only changes, with those that hold the rest, as one file. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/key.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "image/image.h"

struct merge_options {
	const char *output, *decrypt_key, *encrypt_key;
};

static const struct cmd_option options[] = {
	{ "output", 'o', CMD_STRING, "FILE", "write the whole image to FILE, \"-\" is standard output",
	  offsetof(struct merge_options, output) },
	{ "decrypt-key", 0, CMD_STRING, "FILE", DECRYPT_KEY_HELP "; so is the new one", offsetof(struct merge_options, decrypt_key) },
	{ "encrypt-key", 0, CMD_STRING, "FILE", "encrypt the new image with the key in FILE, whatever the old one is", offsetof(struct merge_options, encrypt_key) },
	{ NULL },
};

static const struct cmd_syntax syntax = {
	"merge", "IMAGE", "fold an incremental image and its ancestors into one file", options, 1, 1,
};

/* Where a page of the block at hand has been stored already: several spaces may name it. */
struct stored_page {
	bool there;
	uint64_t block;
	uint16_t chunk, first;
};

struct folding {
	struct image_writer *writer;
	uint8_t *buffer; /* with the block that is read */
	struct stored_page pages[IMAGE_BUFFER / IMAGE_PAGE]; /* by their place in the buffer */
};

static struct stored_page *stored_page(struct folding *folding, const void *data)
{
	return &folding->pages[(size_t)((const uint8_t *)data - folding->buffer) / IMAGE_PAGE];
}

static int store(struct folding *folding, struct page_batch *part, struct fault *fault)
{
	page_places places = { 0 };
	int rc = part->count ? image_writer_pages(folding->writer, part, &places, fault) : 0;
	size_t next = 0;
	if (rc == 0)
		image_writer_places(folding->writer, part->space, places.at, places.count);
	for (uint32_t c = 0; rc == 0 && c < part->count; c++) {
		struct stored_page *page = stored_page(folding, part->chunks[c].data), *end = page + part->chunks[c].pages;
		for (; page < end && next < places.count; next++)
			for (uint32_t p = 0; p < places.at[next].pages; p++)
				*page++ = (struct stored_page){ true, places.at[next].block, places.at[next].chunk, (uint16_t)(places.at[next].first + p) };
	}
	vec_finish(&places);
	part->count = 0;
	return rc;
}

/* How many pages from the first of @chunk on are stored one behind the other, or not stored at all. */
static uint32_t run_of(const struct stored_page *page, uint32_t pages)
{
	uint32_t run = 1;
	while (run < pages && page[run].there == page->there &&
	       (!page->there || (page[run].block == page->block && page[run].chunk == page->chunk && page[run].first == page->first + run)))
		run++;
	return run;
}

static int take_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	struct folding *folding = context;
	struct page_batch part;
	uint32_t pages = 0; /* of the part: a space may name a page of the block more than once */
	int rc = 0;
	part.space = batch->space;
	part.count = 0;
	for (uint32_t i = 0; rc == 0 && i < batch->count; i++) {
		struct page_chunk left = batch->chunks[i];
		for (uint32_t run; rc == 0 && left.pages; left.pages -= run) {
			const struct stored_page *page = stored_page(folding, left.data);
			const struct page_place place = { .address = left.address, .block = page->block, .chunk = page->chunk, .first = page->first,
							  .pages = run = run_of(page, left.pages) };
			if (!page->there && (part.count == IMAGE_CHUNKS || pages + run > IMAGE_BLOCK_PAGES)) {
				rc = store(folding, &part, fault);
				pages = run = 0; /* it may be there by now */
				continue;
			}
			if (page->there) {
				image_writer_places(folding->writer, batch->space, &place, 1);
			} else {
				part.chunks[part.count++] = (struct page_chunk){ left.address, run, left.data };
				pages += run;
			}
			left.address += (uint64_t)run * IMAGE_PAGE;
			left.data = (const uint8_t *)left.data + (size_t)run * IMAGE_PAGE;
		}
	}
	return rc < 0 ? rc : store(folding, &part, fault);
}

static int copy_records(const struct image_reader *reader, struct image_writer *writer, struct fault *fault)
{
	const struct image_record *records;
	size_t count = image_reader_records(reader, &records);
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = image_writer_raw_record(writer, records[i].tag, records[i].data, records[i].size, fault);
	return rc;
}

static int copy_pages(const struct image_reader *reader, struct image_writer *writer, const struct deadline *deadline,
		      struct fault *fault)
{
	const struct image_block *blocks;
	_free_ struct folding *folding = memory_new(sizeof *folding);
	const struct page_taker taker = { take_batch, folding };
	size_t count = image_reader_blocks(reader, &blocks);
	_free_ uint8_t *buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	folding->writer = writer;
	folding->buffer = buffer;
	int rc = buffer ? 0 : fault_set(fault, FAULT_FAILED, ENOMEM, "no memory to read it; try another machine");
	for (size_t i = 0; rc == 0 && i < count; i++) {
		rc = deadline_check(deadline, fault);
		memset(folding->pages, 0, sizeof folding->pages);
		if (rc == 0)
			rc = image_reader_pages(reader, i, buffer, &taker, fault);
	}
	return rc;
}

struct merge_keys {
	uint8_t *old, *new; /* NULL: not encrypted */
};

static int merge(const char *path, const char *output, const struct merge_keys *keys, const struct deadline *deadline,
		 struct image_stats *ret_stats, struct fault *fault)
{
	const struct image_compression compression = { CODEC_LZ4, 0 };
	struct image_reader *reader = NULL;
	struct image_writer *writer = NULL;
	struct image_file *file = NULL;
	int rc = image_reader_open(path, (const struct image_key *)keys->old, &reader, fault);
	if (rc == 0)
		rc = image_file_create(output, &file, fault);
	if (rc == 0)
		rc = image_writer_new(image_file_fd(file), &compression, (const struct image_key *)keys->new, NULL, &writer, fault);
	if (rc == 0) {
		image_writer_flush_early(writer);
		rc = copy_records(reader, writer, fault);
	}
	if (rc == 0)
		rc = copy_pages(reader, writer, deadline, fault);
	if (rc == 0)
		rc = image_writer_finish(writer, ret_stats, fault);
	if (rc == 0 && (rc = image_file_commit(file, fault)) < 0)
		fault_at(fault, rc, "%s", output);
	image_writer_free(writer);
	image_file_free(file);
	image_reader_free(reader);
	return rc;
}

int cmd_merge(int argc, char **argv)
{
	struct merge_options given = { 0 };
	struct cmd_common common;
	struct fault fault;
	struct image_stats stats = { 0 };
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	if (rc > 0)
		return 0;
	if (rc < 0)
		return cmd_report(&common, &fault);
	if (!given.output) {
		fault_set(&fault, FAULT_USAGE, EINVAL, "where to? try -o FILE");
		return cmd_report(&common, &fault);
	}
	const struct deadline deadline = cmd_deadline(&common);
	const char *new_key = given.encrypt_key ? given.encrypt_key : given.decrypt_key;
	struct merge_keys keys = { 0 };
	rc = given.decrypt_key ? key_read(given.decrypt_key, &keys.old, &fault) : 0;
	if (rc == 0 && new_key == given.decrypt_key)
		keys.new = keys.old;
	else if (rc == 0)
		rc = key_read(new_key, &keys.new, &fault);
	if (rc == 0)
		rc = merge(common.operands[0], given.output, &keys, &deadline, &stats, &fault);
	if (keys.new != keys.old)
		key_free(keys.new);
	key_free(keys.old);
	if (rc < 0)
		return cmd_report(&common, &fault);
	if (common.json)
		cmd_json(json_pack("{s:s, s:o, s:I, s:I}", "event", "merged", "image", cmd_text(given.output), "bytes",
				   (json_int_t)stats.bytes, "pages", (json_int_t)stats.pages));
	else if (!common.quiet)
		fprintf(strcmp(given.output, "-") ? stdout : stderr, "%s: %" PRIu64 " pages, %.1f MiB\n", given.output, stats.pages,
			(double)stats.bytes / 1048576);
	return 0;
}
