/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/heritage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "kernel/maps.h"

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

/* The places of a space. */
static size_t places_of(const struct image_reader *reader, uint32_t space, const struct image_place **ret_places)
{
	const struct image_place *places;
	size_t count = image_reader_places(reader, &places), low = 0, high = count, end;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (places[middle].space < space)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < count && places[end].space == space; end++)
		;
	*ret_places = places + low;
	return end - low;
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

/* The pages that both have, and those that only the parent has where the child has the mapping. */
static void find_pages(const struct image_reader *reader, const struct plan_space *parent, const struct plan_space *child,
		       const heritage_ranges *common, struct heritage *heritage)
{
	const struct image_place *own, *other;
	size_t own_count = places_of(reader, child->id, &own), count = places_of(reader, parent->id, &other), o = 0, at = 0, foreign_at = 0;
	for (size_t p = 0; p < count; p++) {
		uint64_t left = other[p].at.address, end = end_of(&other[p].at);
		while (o < own_count && end_of(&own[o].at) <= left)
			o++;
		for (size_t i = o; i < own_count && own[i].at.address < end; i++) {
			uint64_t from = own[i].at.address > left ? own[i].at.address : left, to = end_of(&own[i].at) < end ? end_of(&own[i].at) : end;
			if (!is_same_page(&own[i].at, &other[p].at))
				continue;
			add_within(&heritage->pages, common, &at, from, to);
			add_within(&heritage->foreign, common, &foreign_at, left, from);
			left = to;
		}
		if (left < end)
			add_within(&heritage->foreign, common, &foreign_at, left, end);
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
}

static void find_one(struct rebuild *rebuild, struct rebuild_process *child)
{
	const struct rebuild_process *parent = child->parent;
	const struct plan_space *own = child->plan->space, *other = parent ? parent->plan->space : NULL;
	heritage_ranges common = { 0 };
	if (!own || !other || own == other || !is_plain(own) || !is_plain(other))
		return;
	find_common(other, own, &common);
	if (common.count)
		find_pages(rebuild->reader, other, own, &common, &child->heritage);
	if (count_pages(&child->heritage.pages) < LEAST_PAGES) {
		heritage_finish(&child->heritage);
	} else {
		keep_mappings(&common, &child->heritage);
		drop_elsewhere(&child->heritage);
		child->is_heir = true;
		child->parent->bears_heirs = true;
	}
	vec_finish(&common);
}

void heritage_find(struct rebuild *rebuild)
{
	uint64_t pages = 0;
	size_t heirs = 0;
	/* What an exec makes is born with nothing. */
	for (size_t i = 0; !rebuild->workshop.by_exec && i < rebuild->processes.count; i++) {
		find_one(rebuild, rebuild->processes.at[i]);
		pages += count_pages(&rebuild->processes.at[i]->heritage.pages);
		heirs += rebuild->processes.at[i]->is_heir;
	}
	if (heirs)
		log_info("restore: %zu processes share %llu pages with their parents", heirs, (unsigned long long)pages);
}

uint64_t heritage_stretch(const struct heritage *heritage, uint64_t start, uint64_t end, bool *ret_inherited)
{
	size_t low = 0, high = heritage->pages.count;
	while (low < high) { /* the first that ends behind @start */
		size_t middle = (low + high) / 2;
		if (heritage->pages.at[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	const struct heritage_range *range = low < heritage->pages.count ? &heritage->pages.at[low] : NULL;
	*ret_inherited = range && range->start <= start;
	uint64_t edge = !range ? end : *ret_inherited ? range->end : range->start;
	return edge < end ? edge : end;
}

/* ---- the parent ---- */

int heritage_load(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	struct batch batch;
	int rc = space_map(rebuild, process, fault);
	if (rc == 0)
		rc = fill_process(rebuild, process, fault);
	/* Children would have the descriptors that it was lent; it gets them again when it needs them. */
	newborn_batch(&process->newborn, &batch);
	batch_call(&batch, close_range, 0, (uint64_t)rebuild->inbox_number - 1, 0);
	if (rc == 0)
		rc = newborn_run(newborn_leader(process), &batch, fault);
	batch_finish(&batch);
	process->newborn.loans.count = 0;
	process->is_loaded = true;
	return rc;
}

/* ---- the child ---- */

static void add_gap(struct batch *batch, uint64_t start, uint64_t end)
{
	if (start < end)
		batch_call(batch, munmap, start, end - start);
}

/* Everything but the stub and what is kept. */
static void unmap_rest(const struct rebuild_process *child, struct batch *batch)
{
	const heritage_ranges *kept = &child->heritage.mappings;
	const uint64_t stub = child->newborn.code, stub_end_ = child->newborn.area + BATCH_AREA, user_end = (UINT64_C(1) << 47) - 4096;
	uint64_t at = 0;
	bool passed = false;
	for (size_t i = 0; i <= kept->count; i++) {
		uint64_t next = i < kept->count ? kept->at[i].start : user_end;
		if (!passed && stub < next) {
			add_gap(batch, at, stub);
			at = stub_end_;
			passed = true;
		}
		add_gap(batch, at, next);
		at = i < kept->count ? kept->at[i].end : at;
	}
}

int heritage_take(struct rebuild_process *child, struct fault *fault)
{
	const heritage_ranges *foreign = &child->heritage.foreign;
	struct batch batch;
	newborn_batch(&child->newborn, &batch);
	unmap_rest(child, &batch);
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
