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
	PAGE_WRITTEN = 1 << 5,  /* since it was protected; only said in a tracked pagemap */
};

struct pagemap {
	int fd;        /* /proc/PID/pagemap */
	bool scan;     /* PAGEMAP_SCAN works */
	bool guards;   /* and knows PAGE_IS_GUARD */
	/* Set by the caller: */
	bool tracked;   /* asks about mappings registered with userfaultfd for asynchronous write protection (Documentation/admin-guide/mm/userfaultfd.rst)
			 * and says PAGE_WRITTEN; any other mapping in the range is -EPERM. Needs scan. */
	bool protect;   /* and protects, in the same moment as it looks, the pages that it says. Guards are then never said */
	bool written;   /* only pages written since they were protected */
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
/* Of a tracked pagemap: the ranges of [@start, @end) whose pages are not as they were when they were protected: written since, given back since, or
 * never there. What lies between them, up to *@ret_next, is there and unwritten. Only of private anonymous memory: of others a page that was given
 * back leaves a marker that looks unwritten (mm/memory.c zap_install_uffd_wp_if_needed, 6.18). The kernel has a short way for this one question
 * (fs/proc/task_mmu.c pagemap_scan_pmd_entry, 6.18): 0.45 ms per GiB of small pages, where pagemap_extents takes 2.8. */
int pagemap_changed(const struct pagemap *pagemap, uint64_t start, uint64_t end, struct page_extent *ret_extents,
		    int space, uint64_t *ret_next, struct fault *fault);
/* The first page at or above @start that is present, swapped or a guard: *ret_address, @end when there is none before it. Cheap over
 * holes with the scan; without it *ret_address is @start. */
int pagemap_next(const struct pagemap *pagemap, uint64_t start, uint64_t end, uint64_t *ret_address, struct fault *fault);
