/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Contents of pages on their way from one world to another: the only thing that crosses in bulk. */
#include <stdbool.h>
#include <stdint.h>

#include "base/fault.h"
#include "base/memory.h"

enum {
	PAGES_SIZE = 4096,         /* bytes of a page in an image */
	PAGES_MOST_CHUNKS = 126,   /* in a batch that is written */
	PAGES_MOST = 256,          /* pages in a batch: 1 MiB */
};

/* Neighbouring pages of one space. */
struct page_chunk {
	uint64_t address; /* of the first page, in bytes; a multiple of PAGES_SIZE */
	uint32_t pages;
	const void *data; /* pages * PAGES_SIZE bytes, owned by the caller */
};
struct page_batch {
	uint32_t space; /* id of an address space or shared object */
	uint32_t count; /* chunks, together at most PAGES_MOST pages */
	struct page_chunk chunks[PAGES_MOST];
};

/* Where neighbouring pages of one space are stored: from page @first on of chunk @chunk of the block at @block. */
struct page_place {
	uint64_t address; /* of the first page, in bytes */
	uint64_t block;   /* offset of the block in its file, in bytes */
	uint32_t pages;
	uint32_t image;   /* 0: this image; n: its n-th ancestor */
	uint16_t chunk, first;
};
typedef VEC(struct page_place) page_places;

/* Who takes pages that are written. put is called by several threads at once; the data may be reused after its return. It adds to @places where
 * they are stored by now: one place or several for each chunk, in their order. */
struct page_sink {
	int (*put)(void *context, const struct page_batch *batch, page_places *places, struct fault *fault);
	/* Is a page with these contents stored already, in an image before? NULL: there is none. @cursor: the calling thread's, made
	 * by the first call, given back by forget. @space: what the space was there. */
	bool (*known)(void *context, void **cursor, uint32_t space, uint64_t address, const void *page,
		      struct page_place *ret_place);
	void (*forget)(void *cursor);
	void *context;
};

/* Who takes pages that are read. */
struct page_taker {
	int (*take)(void *context, const struct page_batch *batch, struct fault *fault);
	void *context;
};
