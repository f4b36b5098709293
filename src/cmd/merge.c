/* SPDX-License-Identifier: Apache-2.0 */
/* cairn merge: an image that holds only changes, with those that hold the rest, as one file. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cmd/cmd.h"
#include "image/image.h"

struct merge_options {
	const char *output;
};

static const struct cmd_option options[] = {
	{ "output", 'o', CMD_STRING, "FILE", "write the whole image to FILE, \"-\" is standard output",
	  offsetof(struct merge_options, output) },
	{ NULL },
};

static const struct cmd_syntax syntax = {
	"merge", "IMAGE", "fold an incremental image and its ancestors into one file", options, 1, 1,
};

static int take_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	struct image_writer *writer = context;
	for (uint32_t first = 0, count; first < batch->count; first += count) {
		struct page_batch part = { .space = batch->space };
		uint64_t block;
		count = batch->count - first < IMAGE_CHUNKS ? batch->count - first : IMAGE_CHUNKS;
		part.count = count;
		memcpy(part.chunks, batch->chunks + first, count * sizeof *part.chunks);
		int rc = image_writer_pages(writer, &part, &block, fault);
		if (rc < 0)
			return rc;
		for (uint32_t c = 0; c < count; c++) {
			const struct page_place place = { .address = part.chunks[c].address, .pages = part.chunks[c].pages,
							  .block = block, .chunk = (uint16_t)c };
			image_writer_places(writer, batch->space, &place, 1);
		}
	}
	return 0;
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
	const struct page_taker taker = { take_batch, writer };
	size_t count = image_reader_blocks(reader, &blocks);
	_free_ void *buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	int rc = buffer ? 0 : fault_set(fault, FAULT_FAILED, ENOMEM, "no memory to read it; try another machine");
	for (size_t i = 0; rc == 0 && i < count; i++) {
		rc = deadline_check(deadline, fault);
		if (rc == 0)
			rc = image_reader_pages(reader, i, buffer, &taker, fault);
	}
	return rc;
}

static int merge(const char *path, const char *output, const struct deadline *deadline, struct image_stats *ret_stats,
		 struct fault *fault)
{
	const struct image_compression compression = { CODEC_LZ4, 0 };
	struct image_reader *reader = NULL;
	struct image_writer *writer = NULL;
	struct image_file *file = NULL;
	int rc = image_reader_open(path, &reader, fault);
	if (rc == 0)
		rc = image_file_create(output, &file, fault);
	if (rc == 0)
		rc = image_writer_new(image_file_fd(file), &compression, NULL, &writer, fault);
	if (rc == 0)
		rc = copy_records(reader, writer, fault);
	if (rc == 0)
		rc = copy_pages(reader, writer, deadline, fault);
	if (rc == 0)
		rc = image_writer_finish(writer, ret_stats, fault);
	if (rc == 0)
		rc = image_file_commit(file, fault);
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
	if (merge(common.operands[0], given.output, &deadline, &stats, &fault) < 0)
		return cmd_report(&common, &fault);
	if (common.json)
		cmd_json(json_pack("{s:s, s:o, s:I, s:I}", "event", "merged", "image", cmd_text(given.output), "bytes",
				   (json_int_t)stats.bytes, "pages", (json_int_t)stats.pages));
	else if (!common.quiet)
		fprintf(strcmp(given.output, "-") ? stdout : stderr, "%s: %" PRIu64 " pages, %.1f MiB\n", given.output, stats.pages,
			(double)stats.bytes / 1048576);
	return 0;
}
