/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/places.h"

#include <stdlib.h>
#include <string.h>

static int compare_ranges(const void *a, const void *b)
{
	uint64_t x = ((const struct page_range *)a)->start, y = ((const struct page_range *)b)->start;
	return (x > y) - (x < y);
}

static int compare_places(const void *a, const void *b)
{
	uint64_t x = ((const struct page_place *)a)->address, y = ((const struct page_place *)b)->address;
	return (x > y) - (x < y);
}

void ranges_settle(page_ranges *ranges)
{
	size_t kept = 0;
	if (!ranges->count)
		return;
	qsort(ranges->at, ranges->count, sizeof *ranges->at, compare_ranges);
	for (size_t i = 1; i < ranges->count; i++) {
		struct page_range *last = &ranges->at[kept];
		if (ranges->at[i].start > last->end)
			ranges->at[++kept] = ranges->at[i];
		else if (ranges->at[i].end > last->end)
			last->end = ranges->at[i].end;
	}
	ranges->count = kept + 1;
}

void places_settle(page_places *places)
{
	if (places->count)
		qsort(places->at, places->count, sizeof *places->at, compare_places);
}

static uint64_t end_of(const struct page_place *place)
{
	return place->address + (uint64_t)place->pages * PAGES_SIZE;
}

/* The part of @place in [@start, @end), which is within it. */
static void add_part(page_places *to, const struct page_place *place, uint64_t start, uint64_t end)
{
	struct page_place *part = vec_add(to);
	*part = *place;
	part->address = start;
	part->pages = (uint32_t)((end - start) / PAGES_SIZE);
	part->first = (uint16_t)(place->first + (start - place->address) / PAGES_SIZE);
}

static void become(page_places *places, page_places *result)
{
	vec_finish(places);
	places->at = result->at;
	places->count = result->count;
	places->space = result->space;
}

void places_subtract(page_places *places, const page_ranges *gone)
{
	page_places result = { 0 };
	size_t g = 0;
	if (!gone->count || !places->count)
		return;
	for (size_t i = 0; i < places->count; i++) {
		const struct page_place *place = &places->at[i];
		uint64_t at = place->address, end = end_of(place);
		while (g < gone->count && gone->at[g].end <= at)
			g++;
		for (size_t h = g; h < gone->count && gone->at[h].start < end; h++) {
			if (gone->at[h].start > at)
				add_part(&result, place, at, gone->at[h].start);
			at = gone->at[h].end;
		}
		if (at < end)
			add_part(&result, place, at, end);
	}
	become(places, &result);
}

void places_intersect(page_places *places, const page_ranges *kept)
{
	page_places result = { 0 };
	size_t k = 0;
	for (size_t i = 0; i < places->count; i++) {
		const struct page_place *place = &places->at[i];
		uint64_t end = end_of(place);
		while (k < kept->count && kept->at[k].end <= place->address)
			k++;
		for (size_t h = k; h < kept->count && kept->at[h].start < end; h++) {
			uint64_t from = kept->at[h].start > place->address ? kept->at[h].start : place->address;
			uint64_t to = kept->at[h].end < end ? kept->at[h].end : end;
			add_part(&result, place, from, to);
		}
	}
	become(places, &result);
}

void places_merge(page_places *places, const page_places *more)
{
	page_places result = { 0 };
	size_t a = 0, b = 0;
	if (!more->count)
		return;
	while (a < places->count || b < more->count) {
		bool first = b == more->count || (a < places->count && places->at[a].address < more->at[b].address);
		*vec_add(&result) = first ? places->at[a++] : more->at[b++];
	}
	become(places, &result);
}

void places_within(const page_places *places, uint64_t start, uint64_t end, page_places *ret_parts)
{
	size_t low = 0, high = places->count;
	while (low < high) { /* the first that ends behind @start */
		size_t middle = (low + high) / 2;
		if (end_of(&places->at[middle]) <= start)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < places->count && places->at[low].address < end; low++) {
		const struct page_place *place = &places->at[low];
		uint64_t from = place->address > start ? place->address : start, to = end_of(place) < end ? end_of(place) : end;
		add_part(ret_parts, place, from, to);
	}
}

uint64_t places_count(const page_places *places)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < places->count; i++)
		pages += places->at[i].pages;
	return pages;
}
