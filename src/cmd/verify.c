/* SPDX-License-Identifier: Apache-2.0 */
/* cairn verify: every byte of an image is read, and every checksum, record and place of a page checked. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/key.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "cmd/decoded.h"

/* Reads all page blocks; that no page is named twice was checked with the map. *ret_pages counts. */
static int pages_verify(const struct image_reader *reader, const struct deadline *deadline, uint64_t *ret_pages,
			struct fault *fault)
{
	const struct image_block *blocks;
	const struct image_place *places;
	size_t count = image_reader_blocks(reader, &blocks), place_count = image_reader_places(reader, &places);
	_free_ uint8_t *buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	int rc = buffer ? 0 : fault_set(fault, FAULT_FAILED, ENOMEM, "no memory to read it; try another machine");
	for (size_t i = 0; !rc && i < count; i++) {
		rc = deadline_check(deadline, fault);
		if (!rc)
			rc = image_reader_pages(reader, i, buffer, NULL, fault);
	}
	*ret_pages = 0;
	for (size_t i = 0; i < place_count; i++)
		*ret_pages += places[i].at.pages;
	return rc;
}

struct verdict {
	uint64_t bytes, records, unknown, pages;
};

static int records_verify(const struct image_reader *reader, struct verdict *verdict, struct fault *fault)
{
	const struct image_record *records;
	verdict->records = image_reader_records(reader, &records);
	for (size_t i = 0; i < verdict->records; i++) {
		struct decoded decoded;
		int rc = decoded_init(&decoded, reader, i, fault);
		if (rc)
			return rc;
		verdict->unknown += !decoded.kind;
		decoded_finish(&decoded);
	}
	return 0;
}

static int image_verify(const char *path, const uint8_t *key, const struct deadline *deadline, struct verdict *ret_verdict,
			struct fault *fault)
{
	struct image_reader *reader;
	int rc = image_reader_open(path, (const struct image_key *)key, &reader, fault);
	if (rc)
		return rc;
	ret_verdict->bytes = image_reader_size(reader);
	rc = records_verify(reader, ret_verdict, fault);
	if (rc)
		fault_at(fault, rc, "%s", path);
	if (!rc)
		rc = pages_verify(reader, deadline, &ret_verdict->pages, fault);
	image_reader_free(reader);
	return rc;
}

static void verdict_print(const struct cmd_common *common, const char *path, const struct verdict *verdict)
{
	if (common->json) {
		cmd_json(json_pack("{s:s, s:o, s:b, s:I, s:I, s:I, s:I}", "event", "verified", "image",
				   cmd_text(path), "ok", 1, "bytes", (json_int_t)verdict->bytes, "records",
				   (json_int_t)verdict->records, "unknown_records", (json_int_t)verdict->unknown,
				   "pages", (json_int_t)verdict->pages));
		return;
	}
	printf("%s: ok, %" PRIu64 " bytes, %" PRIu64 " records, %" PRIu64 " pages",
	       strcmp(path, "-") ? path : "stdin", verdict->bytes, verdict->records, verdict->pages);
	if (verdict->unknown)
		printf(" (of kinds that this Cairn does not know: %" PRIu64 " records)", verdict->unknown);
	putchar('\n');
}

struct verify_options {
	const char *key;
};

static const struct cmd_option options[] = {
	{ "decrypt-key", 0, CMD_STRING, "FILE", DECRYPT_KEY_HELP, offsetof(struct verify_options, key) },
	{ NULL },
};

int cmd_verify(int argc, char **argv)
{
	static const struct cmd_syntax syntax = {
		"verify", "IMAGE", "Reads every byte of IMAGE (- is stdin) and checks every checksum and reference.",
		options, 1, 1, false,
	};
	struct verify_options given = { 0 };
	struct cmd_common common;
	struct fault fault;
	struct verdict verdict = { 0 };
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	if (rc)
		return rc > 0 ? 0 : cmd_report(&common, &fault);
	struct deadline deadline = cmd_deadline(&common);
	const char *path = common.operands[0];
	uint8_t *key = NULL;
	rc = given.key ? key_read(given.key, &key, &fault) : 0;
	if (!rc)
		rc = image_verify(path, key, &deadline, &verdict, &fault);
	key_free(key);
	if (rc)
		return cmd_report(&common, &fault);
	verdict_print(&common, path, &verdict);
	return cmd_flush(&fault) ? cmd_report(&common, &fault) : 0;
}
