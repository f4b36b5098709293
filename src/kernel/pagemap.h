/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which pages of a range exist: PAGEMAP_SCAN (6.7), else /proc/PID/pagemap entry by entry. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"

/* Categories of a page; both ways give the same answers. */
enum page_category {
	PAGE_PRESENT = 1 << 0,  /* in memory */
	PAGE_SWAPPED = 1 << 1,
	PAGE_FILE = 1 << 2,     /* of a file or shared memory, not a private copy */
	PAGE_ZERO = 1 << 3,     /* the shared zero page (only PAGEMAP_SCAN knows) */
	PAGE_GUARD = 1 << 4,    /* a guard region (6.15; only kernels that say so) */
};

struct pagemap {
	int fd;        /* /proc/PID/pagemap */
	bool scan;     /* PAGEMAP_SCAN works */
	bool guards;   /* and knows PAGE_IS_GUARD */
	bool anonymous; /* set by the caller while it asks about mappings without a file: PAGE_FILE is then never said, and
			 * the scan takes a third of the time (2.9 instead of 9 ms per GiB of small pages) */
};
int pagemap_open(pid_t pid, struct pagemap *ret_pagemap, struct fault *fault);
void pagemap_close(struct pagemap *pagemap);

struct page_extent {
	uint64_t start, end; /* bytes */
	uint32_t categories; /* enum page_category, the same for the whole extent */
};
/* Next extents in [@start, @end) of pages that are present, swapped or guards: at most @space into
 * @ret_extents, ascending, neighbours with the same categories joined; *@ret_next is where to go on, @end when done. Returns
 * their number. Holes are passed over quickly by the scan, so that reserved terabytes cost nothing; without it
 * they cost 1.3 ms per GiB, so do not ask about mappings of which smaps says that nothing is resident or swapped.
 * A process that ended meanwhile has no pages: with the scan this is no fault. */
int pagemap_extents(const struct pagemap *pagemap, uint64_t start, uint64_t end, struct page_extent *ret_extents,
		    int space, uint64_t *ret_next, struct fault *fault);
