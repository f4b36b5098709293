/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Finds runs of pages that an image which is being written holds already, wherever they belong: copies that a program makes of its data, or several
 * programs of the same. Contents are compared, byte by byte, with what is read back from the file.
 *
 * Only runs of REPEATS_LEAST pages count: a page by itself would cost a restore more (a call of its own) than it saves. So it is enough to know one page
 * in sixteen, an *anchor*, which is chosen by what is in it: the same pages have their anchors at the same places. */
#include "image/image.h"

enum {
	REPEATS_LEAST = 16,   /* pages */
	REPEATS_ANCHORS = 32, /* most of a batch, twice as many as there should be: of odd contents, every page might be one */
};

struct crypt;
struct repeats;
/* @fd: the image, which can be read at any offset of which page blocks are noted here. @seed, @crypt: as its blocks are written. */
struct repeats *repeats_new(int fd, uint64_t seed, struct crypt *crypt);
void repeats_free(struct repeats *repeats); /* NULL too */

struct anchor {
	uint64_t hash;
	uint16_t chunk, page; /* of the batch */
};
struct anchors {
	uint32_t count;
	struct anchor at[REPEATS_ANCHORS];
};
/* Ascending. */
void anchors_find(const struct page_batch *batch, struct anchors *ret_anchors);

/* A part of a chunk of a batch: its pages are stored at @place. */
struct repeat {
	uint16_t chunk, page;
	struct page_place place;
};
/* Those of @batch that are stored, ascending and apart; their number. Thread-safe, as is repeats_note. */
uint32_t repeats_find(struct repeats *repeats, const struct page_batch *batch, const struct anchors *anchors, struct repeat ret_repeats[REPEATS_ANCHORS]);
/* The page of @anchor, which belongs to @address, is stored in page @first of a chunk. */
void repeats_note(struct repeats *repeats, const struct anchor *anchor, const struct page_place *place);
