/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Where the pages of one address space have been stored so far, over several rounds of a live save: sorted lists, the newest
 * copy of a page wins. Pure: no process, no file. */
#include <stdbool.h>

#include "base/pages.h"

struct page_range {
	uint64_t start, end; /* bytes */
};
typedef VEC(struct page_range) page_ranges;

/* Sorts and joins. */
void ranges_settle(page_ranges *ranges);
/* Sorts; each page may occur once. */
void places_settle(page_places *places);
/* Takes out what lies in @gone (settled). */
void places_subtract(page_places *places, const page_ranges *gone);
/* Leaves only what lies in @kept (settled). */
void places_intersect(page_places *places, const page_ranges *kept);
/* Adds @more, none of whose pages is in @places; both settled. */
void places_merge(page_places *places, const page_places *more);
/* Adds to @ret_parts what of @places (settled) lies in [@start, @end). */
void places_within(const page_places *places, uint64_t start, uint64_t end, page_places *ret_parts);
uint64_t places_count(const page_places *places); /* pages */
