/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The bytes of an image, as FORMAT.md describes them: only writer.c, reader.c and tests may include this.
 * All numbers are little-endian; every part ends up under exactly one XXH3-64. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "base/mapped.h"
#include "image/crypt.h"
#include "image/image.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structs below are the file's bytes as they are");

/* As PNG's: the high bit and the line ends show what a text-mode transfer did to the file. */
#define LAYOUT_MAGIC MAPPED_MARK
#define LAYOUT_END_MAGIC "CAIRNEND"

enum {
	LAYOUT_BLOCK_MAGIC = 0x4b4c4243, /* "CBLK" */
	LAYOUT_SEALED_MAGIC = 0x4c455343, /* "CSEL" */
	LAYOUT_RECORD_MAX = 256 << 20,   /* bytes of one packed record */
	LAYOUT_RECORDS_GOAL = 1 << 20,   /* bytes of a record block, unless one record is larger */
	LAYOUT_RECORDS_MAX = LAYOUT_RECORD_MAX + 2 * IMAGE_PAGE, /* bytes of any record block */
	LAYOUT_MAP_PLACES = 1 << 20,     /* places in a map block */
	LAYOUT_CHUNK_ALIGN = 64,         /* bytes, of a compressed chunk in its block; a raw one is at a page */
};

/* Feature bits that this version knows. */
#define LAYOUT_HAS_PARENT UINT64_C(1) /* some pages are in other images */
#define LAYOUT_ENCRYPTED UINT64_C(2)  /* blocks and trailer are sealed */
#define LAYOUT_INCOMPATIBLE (LAYOUT_HAS_PARENT | LAYOUT_ENCRYPTED)

/* The first page. `hash` covers the bytes before it. Place and meaning of magic, version and hash never change. */
struct layout_header {
	uint8_t magic[8];
	uint32_t version;
	uint32_t page_size;
	uint64_t incompatible; /* a reader that does not know a bit refuses */
	uint64_t compatible;   /* a reader ignores the bits that it does not know */
	uint8_t id[16];        /* random */
	uint8_t parent[16];    /* image that this one is the changes of; zero: none */
	uint64_t file_length;  /* bytes; 0: written to a pipe, nobody knew */
	/* Encrypted images, otherwise zero: */
	uint8_t salt[CRYPT_SALT];
	uint8_t key_check[CRYPT_CHECK];
	uint8_t mark[CRYPT_MARK]; /* of this page, with `mark` and `hash` taken as 0 */
	uint8_t zero[3920];
	uint64_t hash;
};
_Static_assert(sizeof(struct layout_header) == IMAGE_PAGE && offsetof(struct layout_header, hash) == 4088, "");

/* The last page. `hash` covers the bytes before it. */
struct layout_trailer {
	uint8_t magic[8];
	uint8_t id[16]; /* as in the header */
	uint64_t file_length;
	uint64_t index_offset;
	uint64_t index_length; /* of the whole index block */
	uint64_t blocks;       /* entries of the index */
	uint64_t records;
	uint64_t pages;        /* stored in the page blocks */
	uint64_t places;       /* entries of the map */
	uint8_t zero[3992];
	uint8_t tag[CRYPT_TAG]; /* encrypted images: of all before it, from index_offset on encrypted. Otherwise zero */
	uint64_t hash;
};
_Static_assert(sizeof(struct layout_trailer) == IMAGE_PAGE && offsetof(struct layout_trailer, hash) == 4088, "");

enum layout_type { LAYOUT_RECORDS = 1, LAYOUT_PAGES = 2, LAYOUT_INDEX = 3, LAYOUT_MAP = 4, LAYOUT_ANCESTORS = 5 };

/* At the start of every block. */
struct layout_block {
	uint32_t magic;
	uint32_t type;
	uint64_t length;       /* bytes of the block, a multiple of IMAGE_PAGE */
	uint64_t offset;       /* of this header in the file: a block in a wrong place is damage */
	uint32_t zero;
	uint32_t count;        /* chunks, records, places or index entries */
	uint64_t used;         /* all but PAGES: bytes after the header that are not padding */
	uint64_t payload_hash; /* all but PAGES: of all bytes after the header, padding too */
	uint32_t pages;        /* PAGES: of all chunks */
	uint32_t zero2;
	uint64_t hash;         /* of the header with this field 0; for PAGES of the whole first page */
};
_Static_assert(sizeof(struct layout_block) == 64 && offsetof(struct layout_block, hash) == 56, "");

/* The same of an encrypted image. From `pages` on all of the block is encrypted, and all of it is authenticated: so there are no checksums. */
struct layout_sealed {
	uint32_t magic;
	uint32_t type;
	uint64_t length, offset; /* as in layout_block */
	uint8_t tag[CRYPT_TAG];
	uint32_t pages, count;
	uint64_t used;
	uint64_t zero;
};
_Static_assert(sizeof(struct layout_sealed) == sizeof(struct layout_block), "");
enum {
	LAYOUT_SEALED_OPEN = offsetof(struct layout_sealed, tag),     /* bytes at the start that are authenticated and not encrypted */
	LAYOUT_SEALED_INNER = sizeof(struct layout_sealed) - offsetof(struct layout_sealed, pages), /* bytes, encrypted, of the header */
	LAYOUT_TRAILER_OPEN = offsetof(struct layout_trailer, index_offset),
	LAYOUT_TRAILER_INNER = offsetof(struct layout_trailer, tag) - LAYOUT_TRAILER_OPEN,
};

struct layout_chunk {
	uint64_t zero;
	uint32_t pages;
	uint16_t codec;   /* enum image_codec */
	uint16_t flags;   /* 0 */
	uint32_t offset;  /* bytes, of the stored bytes in the block */
	uint32_t stored;  /* bytes */
	uint64_t hash;    /* of the stored bytes, unseeded: the same contents have the same hash in every image; 0 in an encrypted one */
};
_Static_assert(sizeof(struct layout_chunk) == 32, "");

/* The first page of a page block; the chunks follow in the order of the table. Whose pages they are the map says. */
struct layout_pages {
	struct layout_block block;
	struct layout_chunk chunks[IMAGE_CHUNKS];
};
_Static_assert(sizeof(struct layout_pages) == IMAGE_PAGE, "");

/* Before every record of a record block. No alignment. */
struct layout_record {
	uint32_t tag;
	uint32_t length;
};
_Static_assert(sizeof(struct layout_record) == 8, "");

/* The index: one per block, ascending by offset, without gaps from the header page to the index. */
struct layout_entry {
	uint64_t offset;
	uint32_t length;
	uint32_t type;    /* enum layout_type */
	uint32_t pages;
	uint32_t zero;
	uint64_t zero2;
};
_Static_assert(sizeof(struct layout_entry) == 32, "");

/* The map: which pages of which space are where; ascending by space and address. */
struct layout_place {
	uint64_t address;
	uint64_t block;   /* offset */
	uint32_t space;
	uint32_t pages;
	uint32_t image;   /* 0: this file; n: the n-th ancestor */
	uint16_t chunk;   /* in the block */
	uint16_t first;   /* page of the chunk */
};
_Static_assert(sizeof(struct layout_place) == 32, "");

/* An image that has pages of this one; the nearest first. */
struct layout_ancestor {
	uint8_t id[16];
	char path[4080]; /* as it was then: absolute, ends with 0 */
};
_Static_assert(sizeof(struct layout_ancestor) == IMAGE_PAGE, "");
enum { LAYOUT_ANCESTORS_MOST = 1000 };

static inline uint64_t layout_align(uint64_t size)
{
	return (size + IMAGE_PAGE - 1) & ~(uint64_t)(IMAGE_PAGE - 1);
}

/* Seeds the hashes of blocks, so that a block of another image is damage and not data. */
static inline uint64_t layout_seed(const uint8_t id[16])
{
	uint64_t half[2];
	memcpy(half, id, sizeof half);
	return half[0] ^ half[1];
}

/* Of header and trailer pages. */
static inline uint64_t layout_page_hash(const void *page)
{
	return XXH3_64bits(page, IMAGE_PAGE - sizeof(uint64_t));
}

static inline uint64_t layout_chunk_hash(const void *data, size_t size)
{
	return XXH3_64bits(data, size);
}

static inline uint64_t layout_payload_hash(const void *data, size_t size, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, size, seed);
}

/* @block is followed by its chunk table when it is a page block. Its hash field is 0 afterwards. */
static inline uint64_t layout_block_hash(struct layout_block *block, uint64_t seed)
{
	block->hash = 0;
	size_t size = block->type == LAYOUT_PAGES ? sizeof(struct layout_pages) : sizeof *block;
	return XXH3_64bits_withSeed(block, size, seed);
}
