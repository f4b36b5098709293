/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Contents of pages on their way from one world to another: the only thing that crosses in bulk. */
#include <stdint.h>

#include "base/fault.h"

enum {
	PAGES_SIZE = 4096,         /* bytes of a page in an image */
	PAGES_MOST_CHUNKS = 126,   /* in a batch */
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
	uint32_t count; /* at most PAGES_MOST_CHUNKS chunks, together at most PAGES_MOST pages */
	struct page_chunk chunks[PAGES_MOST_CHUNKS];
};

/* Who takes them. put is called by several threads at once; the data may be reused after its return. */
struct page_sink {
	int (*put)(void *context, const struct page_batch *batch, struct fault *fault);
	void *context;
};
