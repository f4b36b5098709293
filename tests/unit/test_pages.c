/* SPDX-License-Identifier: Apache-2.0 */
/* Which copy of a page counts (capture/places), and what of an image is still to be loaded (rebuild/pending): against simple models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "capture/places.h"
#include "rebuild/pending.h"

enum { PAGES = 200, ROUNDS = 300 };

static uint64_t random_state = 88172645463325252u;
static uint64_t random_next(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

static struct page_range random_range(void)
{
	uint64_t start = random_next(PAGES), size = 1 + random_next(PAGES - start < 9 ? PAGES - start : 9);
	return (struct page_range){ start * PAGES_SIZE, (start + size) * PAGES_SIZE };
}

/* Block of each page, as the list says; 0: none. Also that it is sorted and without overlaps. */
static void places_read(const page_places *places, uint64_t *ret_blocks, uint64_t *ret_firsts)
{
	uint64_t end = 0;
	memset(ret_blocks, 0, PAGES * sizeof *ret_blocks);
	for (size_t i = 0; i < places->count; i++) {
		const struct page_place *place = &places->at[i];
		assert_true(place->address >= end && place->pages > 0);
		for (uint32_t p = 0; p < place->pages; p++) {
			ret_blocks[place->address / PAGES_SIZE + p] = place->block;
			ret_firsts[place->address / PAGES_SIZE + p] = place->first + p;
		}
		end = place->address + (uint64_t)place->pages * PAGES_SIZE;
	}
	assert_true(end <= (uint64_t)PAGES * PAGES_SIZE);
}

static void the_newest_copy_of_a_page_counts(void **state)
{
	page_places places = { 0 };
	uint64_t model[PAGES] = { 0 }, firsts[PAGES], got[PAGES], got_firsts[PAGES];
	(void)state;
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		page_ranges ranges = { 0 };
		page_places fresh = { 0 };
		bool keep = random_next(4) == 0, in[PAGES] = { false };
		for (uint64_t i = 0; i < 1 + random_next(12); i++) {
			struct page_range range = random_range();
			*vec_add(&ranges) = range;
			for (uint64_t p = range.start / PAGES_SIZE; p < range.end / PAGES_SIZE; p++)
				in[p] = true;
		}
		ranges_settle(&ranges);
		if (keep)
			places_intersect(&places, &ranges);
		else
			places_subtract(&places, &ranges);
		for (uint64_t p = 0; p < PAGES; p++)
			if (in[p] != keep)
				model[p] = 0;
		/* Of what is gone, some is stored again. */
		for (uint64_t p = 0; p < PAGES; p++)
			if (!model[p] && random_next(3) == 0) {
				*vec_add(&fresh) = (struct page_place){
					.address = p * PAGES_SIZE, .pages = 1, .block = round, .first = (uint16_t)p };
				model[p] = round;
				firsts[p] = p;
			}
		places_settle(&fresh);
		places_merge(&places, &fresh);
		places_read(&places, got, got_firsts);
		uint64_t count = 0;
		for (uint64_t p = 0; p < PAGES; p++) {
			assert_int_equal(got[p], model[p]);
			if (model[p])
				assert_int_equal(got_firsts[p], firsts[p]);
			count += model[p] != 0;
		}
		assert_int_equal(places_count(&places), count);
		vec_finish(&ranges);
		vec_finish(&fresh);
	}
	vec_finish(&places);
}

static void parts_of_longer_runs_keep_their_pages(void **state)
{
	page_places places = { 0 };
	page_ranges gone = { 0 };
	uint64_t blocks[PAGES], firsts[PAGES];
	(void)state;
	*vec_add(&places) = (struct page_place){ .address = 0, .pages = 100, .block = 7, .first = 5 };
	*vec_add(&gone) = (struct page_range){ 10 * PAGES_SIZE, 12 * PAGES_SIZE };
	*vec_add(&gone) = (struct page_range){ 50 * PAGES_SIZE, 200 * PAGES_SIZE };
	places_subtract(&places, &gone);
	places_read(&places, blocks, firsts);
	for (uint64_t p = 0; p < PAGES; p++) {
		bool there = p < 50 && p != 10 && p != 11;
		assert_int_equal(blocks[p], there ? 7 : 0);
		if (there)
			assert_int_equal(firsts[p], p + 5);
	}
	vec_finish(&places);
	vec_finish(&gone);
}

static void pending_memory_is_followed(void **state)
{
	struct pending pending = { 0 };
	uint64_t model[PAGES] = { 0 }; /* what each page was, 0: nothing pending */
	(void)state;
	pending_add(&pending, PAGES_SIZE, (uint64_t)PAGES * PAGES_SIZE, PAGES_SIZE);
	for (uint64_t p = 1; p < PAGES; p++)
		model[p] = p * PAGES_SIZE;
	for (int round = 0; round < ROUNDS; round++) {
		struct page_range range = random_range();
		uint64_t first = range.start / PAGES_SIZE, count = (range.end - range.start) / PAGES_SIZE;
		uint64_t to = random_next(PAGES - count);
		if (round % 3 == 0) {
			pending_remove(&pending, range.start, range.end);
			memset(model + first, 0, count * sizeof *model);
		} else if (to >= first + count || first >= to + count) { /* mremap(2) refuses to move over itself */
			pending_move(&pending, range.start, to * PAGES_SIZE, range.end - range.start);
			memcpy(model + to, model + first, count * sizeof *model);
			memset(model + first, 0, count * sizeof *model);
		}
		struct pending copy;
		pending_copy(&pending, &copy);
		for (uint64_t p = 0; p < PAGES; p++) {
			uint64_t old = 0;
			bool there = pending_old(&copy, p * PAGES_SIZE + 8, &old);
			assert_int_equal(there, model[p] != 0);
			assert_int_equal(there ? old - 8 : 0, model[p]);
		}
		vec_finish(&copy.parts);
	}
	vec_finish(&pending.parts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_copy_of_a_page_counts), cmocka_unit_test(parts_of_longer_runs_keep_their_pages),
		cmocka_unit_test(pending_memory_is_followed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
