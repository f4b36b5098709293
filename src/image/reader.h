/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What an opened image is to the files that read it (reader.c, lineage.c, page_block.c): nobody else's business. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "image/image.h"
#include "image/layout.h"

/* Where the contents of a page block's chunks are in memory. */
struct chunk_list {
	uint32_t count, pages[IMAGE_CHUNKS];
	const uint8_t *data[IMAGE_CHUNKS];
};

struct ancestor {
	uint8_t id[16];
	char *path;
	struct image_reader *reader;
};

struct image_reader {
	int fd;
	char *name; /* for faults */
	char *path; /* absolute, as far as it has one */
	VEC(struct ancestor) ancestors; /* the parent first; those of an ancestor itself are not opened */
	bool is_ancestor;
	uint64_t size;
	struct layout_header header;
	struct layout_trailer trailer;
	uint64_t seed;
	const struct image_key *key; /* while it is opened */
	struct crypt *crypt; /* NULL: it is not encrypted */
	VEC(struct image_block) blocks; /* of pages, ascending */
	VEC(struct image_place) places;
	uint32_t *by_block;   /* indices of places, by block, then in their own order */
	size_t *block_starts; /* by block: where its places begin in by_block; one more at the end */
	VEC(struct image_record) records;
	VEC(uint8_t *) buffers; /* payloads of the record blocks; the records point into them */
};

/* Faults without the image's name: it is put in front where they leave this folder. */
int reader_damaged(struct fault *fault, const char *format, ...) __attribute__((format(printf, 2, 3)));
int reader_foreign(struct fault *fault);

int reader_read_at(const struct image_reader *reader, void *data, size_t size, uint64_t offset, struct fault *fault);
/* @block was read from @offset, where @length bytes are to be one page block: all of it, of an image that is not encrypted at least the first page. It is
 * decrypted. */
int reader_pages_check(const struct image_reader *reader, struct layout_pages *block, uint64_t offset, uint64_t length, struct fault *fault);
/* Reads a record, map, ancestor or index block whole: *ret_payload (malloc) is what follows its header. @length is within the
 * file. */
int reader_payload(const struct image_reader *reader, enum layout_type type, uint64_t offset, uint64_t length,
		   struct layout_block *ret_block, uint8_t **ret_payload, struct fault *fault);
/* Opens one image of a chain, without its ancestors. */
int reader_open_ancestor(int fd, const char *path, const struct image_key *key, struct image_reader **ret_reader, struct fault *fault);
/* page_block.c. The page block at @offset of a file without its index; @buffer: IMAGE_BUFFER bytes. */
int reader_pages_at(const struct image_reader *file, uint64_t offset, uint8_t *buffer, struct chunk_list *ret_list, struct fault *fault);
/* The block that @place is in, NULL: none is there. */
const struct image_block *reader_block_of(const struct image_reader *reader, const struct page_place *place);
/* The place in which @address of @space is, NULL: it is not stored. */
const struct image_place *reader_place_of(const struct image_reader *reader, uint32_t space, uint64_t address);

/* lineage.c: the images that this one needs. */
/* From their block in the index; before the map, which refers to them. */
int lineage_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault);
/* Finds and opens them; their blocks become blocks of @reader. */
int lineage_open(struct image_reader *reader, struct fault *fault);
void lineage_close(struct image_reader *reader);

/* spool.c: an image that comes through a pipe. */
/* Takes what is left in *@fd into a temporary file, which *@fd becomes. */
int spool_take(int *fd, struct fault *fault);
