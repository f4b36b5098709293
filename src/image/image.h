/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One image is one file: see FORMAT.md beside this header for every byte.
 *
 * A file header, then blocks. A record block holds tagged, length-delimited protobuf records; a page block
 * holds chunks of pages: a header page with the chunk table, then the chunks, raw ones page-aligned. The map says which page of
 * which space (an address space or a shared object, by id) is where; what it does not name is not part of the image (a page that was
 * stored again later). Then an index of all blocks and a trailer. A file without a
 * valid trailer is not an image. Everything is covered by XXH3-64. Nothing here knows what a record means. */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fault.h"
#include "base/pages.h"

enum {
	IMAGE_PAGE = PAGES_SIZE,
	IMAGE_VERSION = 2,
	IMAGE_CHUNKS = PAGES_MOST_CHUNKS,        /* most chunks in a page block */
	IMAGE_BLOCK_PAGES = PAGES_MOST,          /* most pages in a page block: 1 MiB of data */
	IMAGE_BUFFER = (2 * IMAGE_BLOCK_PAGES + 2) * IMAGE_PAGE, /* bytes that reading a page block takes: as stored, and decompressed */
};

/* Codecs of a chunk. */
enum image_codec { CODEC_RAW = 0, CODEC_LZ4 = 1, CODEC_ZSTD = 2 };
struct image_compression {
	enum image_codec codec; /* a chunk that does not shrink is stored raw all the same */
	int level;              /* of zstd; 0: its default */
};

/* The secret of encrypted images: random bytes. Wherever one is asked for, NULL means that the image is not encrypted. Borrowed for the call. */
struct image_key {
	uint8_t bytes[32];
};

struct image_writer;
struct image_reader;
struct image_stats {
	uint64_t bytes;    /* of the whole file */
	uint64_t pages;    /* of the program that are in it */
	uint64_t stored;   /* pages in the file: more, when some were stored twice; less, when ancestors or other addresses have the same */
	uint64_t records;
};

/* @fd is borrowed and stands at offset 0; a pipe is written in order, a file by pwrite at any offset. */
/* @parent: an image, and those before it, whose pages may be named (page_place.image), opened with the same key; NULL: none. Not needed any more
 * afterwards. */
int image_writer_new(int fd, const struct image_compression *compression, const struct image_key *key, const struct image_reader *parent,
		     struct image_writer **ret_writer, struct fault *fault);
/* Appends one record. Not thread-safe against itself, safe beside image_writer_pages. */
int image_writer_record(struct image_writer *writer, uint32_t tag, const ProtobufCMessage *record,
			struct fault *fault);
/* As it is in another image. */
int image_writer_raw_record(struct image_writer *writer, uint32_t tag, const void *data, size_t size, struct fault *fault);
/* Writes at most one page block, of at most IMAGE_CHUNKS chunks; the data may be reused after the return. What is stored already is not stored again
 * (repeats.h). Where the pages are is added to @places: one place or several for each chunk, in their order. Thread-safe. The pages are part of the
 * image only if image_writer_places is told of these. */
int image_writer_pages(struct image_writer *writer, const struct page_batch *batch, page_places *places, struct fault *fault);
/* Enters pages of @space into the map. No page may be entered twice. */
void image_writer_places(struct image_writer *writer, uint32_t space, const struct page_place *places, size_t count);
/* Writes what is left, the index and the trailer. Does not sync: that is the owner's of the file. */
int image_writer_finish(struct image_writer *writer, struct image_stats *ret_stats, struct fault *fault);
void image_writer_id(const struct image_writer *writer, uint8_t ret_id[16]);
/* From now on blocks are sent to the disk while others are written, and not all at once when the file is synced. */
void image_writer_flush_early(struct image_writer *writer);
void image_writer_free(struct image_writer *writer);

/* A file that appears under @path only when it is complete: O_TMPFILE where the file system has it, else a
 * temporary name beside it. "-" is stdout. Mode 0600. */
struct image_file;
int image_file_create(const char *path, struct image_file **ret_file, struct fault *fault);
int image_file_fd(const struct image_file *file);
/* fsync, link, rename over @path, fsync of the directory. */
int image_file_commit(struct image_file *file, struct fault *fault);
void image_file_free(struct image_file *file); /* without a commit nothing remains */

struct image_record {
	uint32_t tag;
	uint32_t size;
	const uint8_t *data; /* owned by the reader */
};
struct image_block {
	uint64_t offset;  /* in the file */
	uint32_t length;  /* bytes, a multiple of IMAGE_PAGE */
	uint32_t pages;   /* of all chunks */
	uint32_t image;   /* 0: in this one; n: in its n-th ancestor */
};
struct image_place {
	uint32_t space;
	struct page_place at;
};

/* An image whose parent is missing is a fault: parents are looked for beside it, then where they were.
 *
 * Opens "@path" ("-": stdin, taken whole into an unlinked temporary file first, as is any pipe), checks header, trailer, index and all record
 * blocks. Page blocks are checked as they are read. FAULT_IMAGE says what is wrong: not an image,
 * truncated, damaged (with the offset), newer format (with the version or feature bits), not encrypted although there is a @key. FAULT_PERMISSION: encrypted,
 * and no key (ENOKEY), or another one (EKEYREJECTED). */
int image_reader_open(const char *path, const struct image_key *key, struct image_reader **ret_reader, struct fault *fault);
/* The same in two steps, for who has to know something of the file before a byte of it is read: a descriptor (or a negative
 * errno), and the reader, which takes it. */
int image_reader_descriptor(const char *path, struct fault *fault);
/* Does the file begin as an image does? Nothing else of it is looked at. */
bool image_begins(const char *path);
int image_reader_open_fd(int fd, const char *path, const struct image_key *key, struct image_reader **ret_reader, struct fault *fault);
bool image_reader_is_encrypted(const struct image_reader *reader);
size_t image_reader_records(const struct image_reader *reader, const struct image_record **ret_records);
size_t image_reader_blocks(const struct image_reader *reader, const struct image_block **ret_blocks);
/* The map: ascending by space and address, without overlaps. */
size_t image_reader_places(const struct image_reader *reader, const struct image_place **ret_places);
uint64_t image_reader_size(const struct image_reader *reader); /* bytes of the file */
/* Descriptors that a process that goes on reading has to keep; a new array. */
int *image_reader_fds(const struct image_reader *reader, size_t *ret_count);
/* Itself (0), its parent (1), and so on: id and absolute path. false: there are not so many. */
bool image_reader_lineage(const struct image_reader *reader, size_t index, uint8_t ret_id[16], const char **ret_path);
/* The @index-th ancestor's path and descriptor, 0 the parent; false: there are not so many. */
bool image_reader_ancestor(const struct image_reader *reader, size_t index, const char **ret_path, int *ret_fd);
void image_reader_id(const struct image_reader *reader, uint8_t ret_id[16]);
/* The block in which the page at @address of @space is; false: it is not stored. */
bool image_reader_find(const struct image_reader *reader, uint32_t space, uint64_t address, size_t *ret_index);
/* Reads block @index into @buffer (IMAGE_BUFFER bytes, page-aligned), checks every checksum and number, and hands what the map names of it
 * to @taker (NULL: nobody), in batches of one space each. Thread-safe. */
int image_reader_pages(const struct image_reader *reader, size_t index, void *buffer, const struct page_taker *taker,
		       struct fault *fault);
/* Hands @take each place whose pages lie in this file as they are, with the offset of its first: neither compressed nor encrypted ones, nor an ancestor's. Blocks' first pages
 * are checked, contents are not. Of each block together, blocks in their order. */
typedef void (*image_take_raw)(void *context, const struct image_place *place, uint64_t offset);
int image_reader_raw(const struct image_reader *reader, image_take_raw take, void *context, struct fault *fault);
int image_reader_fd(const struct image_reader *reader); /* borrowed */
void image_reader_free(struct image_reader *reader);

/* Looks for pages that an image has already, one after the other; for one thread. */
struct image_cursor;
struct image_cursor *image_cursor_new(const struct image_reader *reader);
/* Has it the page at @address of @space, with these contents? Then *ret_place is where, for a child of that image. Contents are compared, not
 * checksums. What cannot be read is not there. */
bool image_cursor_same(struct image_cursor *cursor, uint32_t space, uint64_t address, const void *page,
		       struct page_place *ret_place);
void image_cursor_free(struct image_cursor *cursor);
