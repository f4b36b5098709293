/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/heritage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "kernel/maps.h"
#include "rebuild/template.h"

enum { LEAST_PAGES = 256 /* from which it is worth another order of things */ };

static const Cairn__Vma *vma_of(const struct plan_record *record)
{
	return record->message->descriptor == &cairn__vma__descriptor ? (const Cairn__Vma *)record->message : NULL;
}

/* ---- who ---- */

/* What says something of a space as a whole would be inherited with it. */
static bool is_plain(const struct plan_space *space)
{
	for (size_t i = 0; i < space->records.count; i++) {
		const ProtobufCMessage *message = space->records.at[i].message;
		if (message->descriptor == &cairn__protection_keys__descriptor || message->descriptor == &cairn__memory_policies__descriptor ||
		    (message->descriptor == &cairn__space_modes__descriptor && ((const Cairn__SpaceModes *)message)->merge_any))
			return false;
	}
	return true;
}

/* May pages of @a be @b's too? Locks and seals come later, rights are given anew; advice cannot be taken back. */
static bool is_same_mapping(const Cairn__Vma *a, const Cairn__Vma *b)
{
	const uint64_t later = MAP_FLAG_ACCOUNT | MAP_FLAG_LOCKED | MAP_FLAG_LOCK_ON_FAULT | MAP_FLAG_SEALED | MAP_FLAG_MAY_WRITE | MAP_FLAG_UFFD_WP;
	const uint64_t never = MAP_FLAG_DONT_COPY | MAP_FLAG_WIPE_ON_FORK | MAP_FLAG_DROPPABLE | MAP_FLAG_HUGETLB;
	return !a->shared && !b->shared && !a->kind && !b->kind && a->file == b->file && !((a->flags | b->flags) & never) &&
	       !((a->flags ^ b->flags) & ~later) && !strcmp(a->name, b->name) && (!a->file || a->offset - a->start == b->offset - b->start);
}

static void add_range(heritage_ranges *ranges, uint64_t start, uint64_t end)
{
	struct heritage_range *last = ranges->count ? &ranges->at[ranges->count - 1] : NULL;
	if (last && last->end == start)
		last->end = end;
	else if (start < end)
		*vec_add(ranges) = (struct heritage_range){ start, end };
}

/* Where both have the same mapping. */
static void find_common(const struct plan_space *parent, const struct plan_space *child, heritage_ranges *ret_ranges)
{
	size_t p = 0;
	for (size_t c = 0; c < child->records.count; c++) {
		const Cairn__Vma *own = vma_of(&child->records.at[c]);
		const Cairn__Vma *other;
		while (own && p < parent->records.count && (!(other = vma_of(&parent->records.at[p])) || other->end <= own->start))
			p++;
		for (size_t i = p; own && i < parent->records.count && (other = vma_of(&parent->records.at[i])) && other->start < own->end; i++)
			if (is_same_mapping(other, own))
				/* Not joined: each is one mapping of the child. */
				*vec_add(ret_ranges) = (struct heritage_range){ other->start > own->start ? other->start : own->start,
										other->end < own->end ? other->end : own->end };
	}
}

/* The pages of a space. */
static void places_of(const struct image_reader *reader, uint32_t space, page_places *ret_places)
{
	const struct image_place *places;
	size_t count = image_reader_places(reader, &places), low = 0, high = count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (places[middle].space < space)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < count && places[low].space == space; low++)
		*vec_add(ret_places) = places[low].at;
}

static uint64_t end_of(const struct page_place *place)
{
	return place->address + (uint64_t)place->pages * IMAGE_PAGE;
}

/* Is what overlaps of the two the same stored page? */
static bool is_same_page(const struct page_place *a, const struct page_place *b)
{
	return a->image == b->image && a->block == b->block && a->chunk == b->chunk &&
	       a->address - (uint64_t)a->first * IMAGE_PAGE == b->address - (uint64_t)b->first * IMAGE_PAGE;
}

/* [@start, @end) as far as it lies in @common, from the @at-th on. */
static void add_within(heritage_ranges *ranges, const heritage_ranges *common, size_t *at, uint64_t start, uint64_t end)
{
	while (*at < common->count && common->at[*at].end <= start)
		++*at;
	for (size_t i = *at; i < common->count && common->at[i].start < end; i++)
		add_range(ranges, common->at[i].start > start ? common->at[i].start : start, common->at[i].end < end ? common->at[i].end : end);
}

/* What of @others is the same page in @own, as far as it lies in @common, and (NULL: not wanted) what is not. */
static void compare_places(const page_places *own, const page_places *others, const heritage_ranges *common, heritage_ranges *ret_same,
			   heritage_ranges *ret_other)
{
	size_t o = 0, same_at = 0, other_at = 0;
	for (size_t p = 0; p < others->count; p++) {
		const struct page_place *other = &others->at[p];
		uint64_t left = other->address, end = end_of(other);
		while (o < own->count && end_of(&own->at[o]) <= left)
			o++;
		for (size_t i = o; i < own->count && own->at[i].address < end; i++) {
			uint64_t from = own->at[i].address > left ? own->at[i].address : left, to = end_of(&own->at[i]) < end ? end_of(&own->at[i]) : end;
			if (!is_same_page(&own->at[i], other))
				continue;
			add_within(ret_same, common, &same_at, from, to);
			if (ret_other)
				add_within(ret_other, common, &other_at, left, from);
			left = to;
		}
		if (ret_other && left < end)
			add_within(ret_other, common, &other_at, left, end);
	}
}

static uint64_t count_pages(const heritage_ranges *ranges)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < ranges->count; i++)
		bytes += ranges->at[i].end - ranges->at[i].start;
	return bytes / IMAGE_PAGE;
}

/* Of the common mappings those with pages that are inherited. */
static void keep_mappings(const heritage_ranges *common, struct heritage *heritage)
{
	size_t p = 0;
	for (size_t i = 0; i < common->count; i++) {
		while (p < heritage->pages.count && heritage->pages.at[p].end <= common->at[i].start)
			p++;
		if (p < heritage->pages.count && heritage->pages.at[p].start < common->at[i].end)
			*vec_add(&heritage->mappings) = common->at[i];
	}
}

/* What of the parent's other pages lies in mappings that are not kept goes with those. */
static void drop_elsewhere(struct heritage *heritage)
{
	heritage_ranges all = heritage->foreign;
	size_t at = 0;
	heritage->foreign = (heritage_ranges){ 0 };
	for (size_t i = 0; i < all.count; i++)
		add_within(&heritage->foreign, &heritage->mappings, &at, all.at[i].start, all.at[i].end);
	vec_finish(&all);
}

void heritage_finish(struct heritage *heritage)
{
	vec_finish(&heritage->pages);
	vec_finish(&heritage->foreign);
	vec_finish(&heritage->mappings);
	vec_finish(&heritage->seeds);
}

/* ---- seeds ---- */

static int compare_ranges(const void *a, const void *b)
{
	uint64_t x = ((const struct heritage_range *)a)->start, y = ((const struct heritage_range *)b)->start;
	return (x > y) - (x < y);
}

static void settle(heritage_ranges *ranges)
{
	size_t kept = 0;
	if (!ranges->count)
		return;
	qsort(ranges->at, ranges->count, sizeof *ranges->at, compare_ranges);
	for (size_t i = 1; i < ranges->count; i++) {
		struct heritage_range *last = &ranges->at[kept];
		if (ranges->at[i].start > last->end)
			ranges->at[++kept] = ranges->at[i];
		else if (ranges->at[i].end > last->end)
			last->end = ranges->at[i].end;
	}
	ranges->count = kept + 1;
}

/* What of @ranges lies in none of @gone; both settled. */
void heritage_subtract(heritage_ranges *ranges, const heritage_ranges *gone)
{
	heritage_ranges left = { 0 };
	for (size_t i = 0; i < ranges->count; i++)
		for (uint64_t at = ranges->at[i].start, edge; at < ranges->at[i].end; at = edge) {
			bool within;
			edge = heritage_stretch(gone, at, ranges->at[i].end, &within);
			if (!within)
				add_range(&left, at, edge);
		}
	vec_finish(ranges);
	ranges->at = left.at;
	ranges->count = left.count;
	ranges->space = left.space;
}

static bool may_share(const struct rebuild_process *a, const struct rebuild_process *b)
{
	const struct plan_space *one = a->plan->space, *other = b->plan->space;
	/* One that several processes have (clone(2)) is made at its time. */
	return one && other && one != other && !one->is_shared && !other->is_shared && is_plain(one) && is_plain(other);
}

static void find_seeds(struct rebuild *rebuild, struct rebuild_process *parent, const page_places *own)
{
	struct rebuild_process *first = parent->first_child;
	page_places eldest = { 0 };
	heritage_ranges common = { 0 }, parents = { 0 };
	while (first && !may_share(parent, first))
		first = first->next_sibling;
	if (!first || !first->next_sibling)
		return;
	find_common(parent->plan->space, first->plan->space, &common);
	places_of(rebuild->reader, first->plan->space->id, &eldest);
	for (struct rebuild_process *other = first->next_sibling; common.count && other; other = other->next_sibling) {
		page_places places = { 0 };
		if (!may_share(parent, other))
			continue;
		places_of(rebuild->reader, other->plan->space->id, &places);
		compare_places(&places, &eldest, &common, &parent->heritage.seeds, NULL);
		vec_finish(&places);
	}
	settle(&parent->heritage.seeds);
	compare_places(own, &eldest, &common, &parents, NULL);
	heritage_subtract(&parent->heritage.seeds, &parents);
	/* What the parent has from its own parent stays. */
	heritage_subtract(&parent->heritage.seeds, &parent->heritage.pages);
	parent->heritage.seeds_of = parent->heritage.seeds.count ? first->plan->space->id : 0;
	vec_finish(&eldest);
	vec_finish(&common);
	vec_finish(&parents);
}

/* @places in @ranges, or all but those. */
static void cut_places(const page_places *places, const heritage_ranges *ranges, bool inside, page_places *ret_places)
{
	for (size_t i = 0; i < places->count; i++) {
		uint64_t end = end_of(&places->at[i]);
		for (uint64_t at = places->at[i].address, edge; at < end; at = edge) {
			bool within;
			edge = heritage_stretch(ranges, at, end, &within);
			if (within != inside)
				continue;
			struct page_place *part = vec_add(ret_places);
			*part = places->at[i];
			part->address = at;
			part->pages = (uint32_t)((edge - at) / IMAGE_PAGE);
			part->first = (uint16_t)(part->first + (at - places->at[i].address) / IMAGE_PAGE);
		}
	}
}

static int compare_addresses(const void *a, const void *b)
{
	uint64_t x = ((const struct page_place *)a)->address, y = ((const struct page_place *)b)->address;
	return (x > y) - (x < y);
}

/* The pages that @parent has when it bears. */
static void find_birth_places(struct rebuild *rebuild, struct rebuild_process *parent, page_places *ret_places)
{
	page_places own = { 0 }, eldest = { 0 };
	places_of(rebuild->reader, parent->plan->space->id, &own);
	find_seeds(rebuild, parent, &own);
	cut_places(&own, &parent->heritage.seeds, false, ret_places);
	if (parent->heritage.seeds_of) {
		places_of(rebuild->reader, parent->heritage.seeds_of, &eldest);
		cut_places(&eldest, &parent->heritage.seeds, true, ret_places);
		if (ret_places->count)
			qsort(ret_places->at, ret_places->count, sizeof *ret_places->at, compare_addresses);
	}
	vec_finish(&own);
	vec_finish(&eldest);
}

static void find_one(struct rebuild *rebuild, struct rebuild_process *child, const page_places *birth_places)
{
	heritage_ranges common = { 0 };
	page_places own = { 0 };
	if (!may_share(child->parent, child))
		return;
	find_common(child->parent->plan->space, child->plan->space, &common);
	if (common.count) {
		places_of(rebuild->reader, child->plan->space->id, &own);
		compare_places(&own, birth_places, &common, &child->heritage.pages, &child->heritage.foreign);
	}
	if (count_pages(&child->heritage.pages) < LEAST_PAGES) {
		vec_finish(&child->heritage.pages);
		vec_finish(&child->heritage.foreign);
	} else {
		keep_mappings(&common, &child->heritage);
		drop_elsewhere(&child->heritage);
		child->is_heir = true;
		child->parent->bears_heirs = true;
	}
	vec_finish(&common);
	vec_finish(&own);
}

static void find_heirs_of(struct rebuild *rebuild, struct rebuild_process *parent)
{
	page_places places = { 0 };
	find_birth_places(rebuild, parent, &places);
	for (struct rebuild_process *child = parent->first_child; child; child = child->next_sibling)
		find_one(rebuild, child, &places);
	vec_finish(&places);
}

void heritage_find(struct rebuild *rebuild)
{
	uint64_t pages = 0;
	size_t heirs = 0;
	/* What an exec makes is born with nothing. */
	for (size_t i = 0; !rebuild->workshop.by_exec && i < rebuild->processes.count; i++)
		if (rebuild->processes.at[i]->first_child && rebuild->processes.at[i]->plan->space)
			find_heirs_of(rebuild, rebuild->processes.at[i]);
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		pages += count_pages(&rebuild->processes.at[i]->heritage.pages);
		heirs += rebuild->processes.at[i]->is_heir;
	}
	if (heirs)
		log_info("restore: %zu processes share %llu pages with their parents", heirs, (unsigned long long)pages);
}

uint64_t heritage_stretch(const heritage_ranges *ranges, uint64_t start, uint64_t end, bool *ret_within)
{
	size_t low = 0, high = ranges->count;
	while (low < high) { /* the first that ends behind @start */
		size_t middle = (low + high) / 2;
		if (ranges->at[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	const struct heritage_range *range = low < ranges->count ? &ranges->at[low] : NULL;
	*ret_within = range && range->start <= start;
	uint64_t edge = !range ? end : *ret_within ? range->end : range->start;
	return edge < end ? edge : end;
}

/* ---- the parent ---- */

int heritage_load(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	struct batch batch;
	int rc = space_map(rebuild, process, fault);
	if (rc == 0)
		rc = newborn_land(&rebuild->workshop, fault);
	if (rc == 0)
		rc = fill_process(rebuild, process, fault);
	/* Children would have the descriptors that it was lent; it gets them again when it needs them. */
	newborn_batch(&process->newborn, &batch);
	batch_call(&batch, close_range, 0, (uint64_t)rebuild->inbox_number - 1, 0);
	if (rc == 0)
		rc = newborn_run(newborn_leader(process), &batch, fault);
	batch_finish(&batch);
	process->newborn.table->loans.count = 0;
	process->is_loaded = true;
	return rc;
}

int heritage_end(struct rebuild_process *process, struct fault *fault)
{
	const heritage_ranges *seeds = &process->heritage.seeds;
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	for (size_t i = 0; i < seeds->count; i++)
		batch_call(&batch, madvise, seeds->at[i].start, seeds->at[i].end - seeds->at[i].start, MADV_DONTNEED);
	int rc = newborn_run(newborn_leader(process), &batch, fault);
	batch_finish(&batch);
	return rc;
}

/* ---- the child ---- */

static void add_gap(struct batch *batch, uint64_t start, uint64_t end)
{
	if (start < end)
		batch_call(batch, munmap, start, end - start);
}

void heritage_unmap_rest(const struct rebuild_process *child, struct batch *batch)
{
	heritage_ranges kept = { 0 };
	uint64_t at = 0, start, end;
	*vec_add(&kept) = (struct heritage_range){ child->newborn.code, child->newborn.area + BATCH_AREA };
	if (template_place(child->template, &start, &end))
		*vec_add(&kept) = (struct heritage_range){ start, end };
	for (size_t i = 0; i < child->heritage.mappings.count; i++)
		*vec_add(&kept) = child->heritage.mappings.at[i];
	*vec_add(&kept) = (struct heritage_range){ (UINT64_C(1) << 47) - 4096, UINT64_MAX };
	settle(&kept);
	for (size_t i = 0; i < kept.count; at = kept.at[i++].end)
		add_gap(batch, at, kept.at[i].start);
	vec_finish(&kept);
}

int heritage_take(struct rebuild_process *child, struct fault *fault)
{
	const heritage_ranges *foreign = &child->heritage.foreign;
	struct batch batch;
	newborn_batch(&child->newborn, &batch);
	heritage_unmap_rest(child, &batch);
	for (size_t i = 0; i < foreign->count; i++)
		batch_call(&batch, madvise, foreign->at[i].start, foreign->at[i].end - foreign->at[i].start, MADV_DONTNEED);
	int rc = newborn_run(newborn_leader(child), &batch, fault);
	batch_finish(&batch);
	return rc;
}

static int map_part(struct rebuild_process *process, const struct plan_record *record, uint64_t start, uint64_t end, struct batch *batch,
		    struct fault *fault)
{
	Cairn__Vma part = *vma_of(record);
	if (start >= end)
		return 0;
	part.offset += part.file ? start - part.start : 0;
	part.start = start;
	part.end = end;
	return record->kind->rebuild(newborn_leader(process), &part.base, batch, fault);
}

int heritage_map(struct rebuild_process *process, const struct plan_record *record, struct batch *batch, struct fault *fault)
{
	const Cairn__Vma *vma = vma_of(record);
	const heritage_ranges *kept = &process->heritage.mappings;
	uint64_t at = vma ? vma->start : 0;
	int rc = 0;
	if (!vma || !kept->count)
		return record->kind->rebuild(newborn_leader(process), record->message, batch, fault);
	for (size_t i = 0; rc == 0 && i < kept->count; i++) {
		const struct heritage_range *range = &kept->at[i];
		if (range->end <= vma->start || range->start >= vma->end)
			continue;
		rc = map_part(process, record, at, range->start, batch, fault);
		batch_group(batch, 1, 0);
		batch_call(batch, mprotect, range->start, range->end - range->start, vma->protection);
		at = range->end;
	}
	return rc < 0 ? rc : map_part(process, record, at, vma->end, batch, fault);
}
