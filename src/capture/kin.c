/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that relatives share copy-on-write since a fork. A process's elders are its parent, and the first of its siblings, which still has what the
 * parent has overwritten. Of the frozen tree, a page at the same address of the same mapping of both is the same page
 *   - where both have the same page frame (or place in the swap), which /proc/PID/pagemap shows with CAP_SYS_ADMIN;
 *   - for everybody else, where both pages are mapped by somebody else as well (bit 56, which it shows everybody), and their contents are the same.
 * Such pages are stored once, with the elder, and a restore bears the child when its parent has them (rebuild/heritage.h). Which copy of the
 * elder's page counts is known when all are stored: until then only the range is noted. */
#include "capture/round.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

enum { LOOK_ENTRIES = PAGES_MOST };

/* Entries of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define ENTRY_EXISTS (UINT64_C(3) << 62) /* present, or swapped */
#define ENTRY_FRAME ((UINT64_C(1) << 55) - 1)
#define ENTRY_EXCLUSIVE (UINT64_C(1) << 56)

/* ---- who ---- */

static bool may_be_inherited(const struct map *map)
{
	const uint32_t others = MAP_FLAG_HUGETLB | MAP_FLAG_DONT_COPY | MAP_FLAG_WIPE_ON_FORK;
	if (map->image_inode)
		return snapshot_is_private(map) && !(map->flags & others);
	return map->pages_shared && (map->anonymous || map->swapped) && snapshot_is_private(map) && !(map->flags & others);
}

static bool is_same_mapping(const struct map *a, const struct map *b)
{
	return may_be_inherited(b) && a->inode == b->inode && a->image_inode == b->image_inode && a->device == b->device && a->deleted == b->deleted &&
	       ((!a->inode && !a->image_inode) || a->offset - a->start == b->offset - b->start);
}

/* The first mapping of @space that overlaps [@start, @end) and may hold the same pages as @map. */
static const struct map *find_overlap(const struct frozen_space *space, const struct map *map, uint64_t start, uint64_t end)
{
	size_t low = 0, high = space->maps.maps.count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (space->maps.maps.at[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < space->maps.maps.count && space->maps.maps.at[low].start < end; low++)
		if (is_same_mapping(map, &space->maps.maps.at[low]))
			return &space->maps.maps.at[low];
	return NULL;
}

static const struct frozen_space *parent_of(const struct frozen_process *process)
{
	const struct frozen_space *space = process->parent ? process->parent->space : NULL;
	return space == process->space ? NULL : space;
}

static const struct frozen_space *first_sibling_of(const struct harvest *harvest, const struct frozen_process *process)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *other = harvest->processes.at[i];
		if (other == process)
			return NULL;
		if (other->parent == process->parent && other->space && other->space != process->space)
			return other->space;
	}
	return NULL;
}

bool kin_is_heir(const struct frozen_process *process, const struct map *map)
{
	const struct frozen_space *parent = parent_of(process);
	return parent && may_be_inherited(map) && map->shared_bytes > map->resident / 2 && find_overlap(parent, map, map->start, map->end);
}

void kin_elders(const struct harvest *harvest, const struct frozen_process *process, const struct frozen_space *ret_elders[SNAPSHOT_ELDERS])
{
	ret_elders[0] = parent_of(process);
	ret_elders[1] = first_sibling_of(harvest, process);
}

void kin_choose(const struct frozen_space *const elders[SNAPSHOT_ELDERS], struct snapshot_source *source)
{
	size_t count = 0;
	if (!may_be_inherited(source->map))
		return;
	for (size_t e = 0; e < SNAPSHOT_ELDERS; e++)
		if (elders[e] && find_overlap(elders[e], source->map, source->start, source->end))
			source->elders[count++] = elders[e];
}

/* ---- which pages ---- */

static int open_of(pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void kin_leave(struct kin_view *view)
{
	if (view->pagemap >= 0)
		close(view->pagemap);
	if (view->memory >= 0)
		close(view->memory);
	*view = (struct kin_view){ .pagemap = -1, .memory = -1 };
}

void kin_finish(struct worker *worker)
{
	for (size_t i = 0; i < KIN_VIEWS; i++)
		if (worker->kin[i].pid)
			kin_leave(&worker->kin[i]);
	free(worker->kin_pages);
	vec_finish(&worker->shares);
}

/* @slot: 0 the process itself, then its elders. */
static struct kin_view *view_of(struct worker *worker, size_t slot, pid_t pid)
{
	struct kin_view *view = &worker->kin[slot];
	if (view->pid == pid)
		return view;
	if (view->pid)
		kin_leave(view);
	*view = (struct kin_view){ .pid = pid, .pagemap = open_of(pid, "pagemap"), .memory = -1 };
	return view;
}

/* false: nothing can be said of these pages. */
static bool read_entries(const struct kin_view *view, uint64_t start, size_t pages, uint64_t *ret_entries)
{
	ssize_t wanted = (ssize_t)(pages * sizeof *ret_entries);
	return view->pagemap >= 0 && pread(view->pagemap, ret_entries, (size_t)wanted, (off_t)(start / PAGE * sizeof *ret_entries)) == wanted;
}

static bool is_same_frame(uint64_t own, uint64_t other)
{
	return (own & ENTRY_EXISTS) && (own & ENTRY_FRAME) && ((own ^ other) & (ENTRY_EXISTS | ENTRY_FRAME)) == 0;
}

/* Neither has written to it: it is the page of the image that both have mapped. */
static bool is_same_in_image(const struct map *map, uint64_t own, uint64_t other)
{
	const uint64_t swapped = UINT64_C(1) << 62, present = UINT64_C(1) << 63, of_file = UINT64_C(1) << 61;
	bool own_copy = (own & swapped) || ((own & present) && !(own & of_file));
	bool other_copy = (other & swapped) || ((other & present) && !(other & of_file));
	return map->image_inode && !own_copy && !other_copy;
}

/* Only to those who may not see page frames. */
static bool may_be_same(uint64_t own, uint64_t other)
{
	return (own & other & (UINT64_C(1) << 63)) && !((own | other) & (ENTRY_EXCLUSIVE | ENTRY_FRAME));
}

static const uint8_t *read_pages(struct worker *worker, size_t slot, uint64_t start, size_t pages)
{
	struct kin_view *view = &worker->kin[slot];
	uint8_t *to = worker->kin_pages + (slot ? UNIT_BYTES : 0);
	if (view->memory < 0)
		view->memory = open_of(view->pid, "mem");
	ssize_t wanted = (ssize_t)(pages * PAGE);
	return view->memory >= 0 && pread(view->memory, to, (size_t)wanted, (off_t)start) == wanted ? to : NULL;
}

/* Of the pages that @same leaves as they are, those with the same contents. */
static void compare_contents(struct worker *worker, size_t slot, uint64_t start, size_t pages, uint8_t *same)
{
	if (!worker->kin_pages)
		worker->kin_pages = aligned_alloc(PAGE, 2 * UNIT_BYTES);
	for (size_t i = 0, run; worker->kin_pages && i < pages; i += run ? run : 1) {
		for (run = 0; i + run < pages && same[i + run]; run++)
			;
		const uint8_t *own = run ? read_pages(worker, 0, start + i * PAGE, run) : NULL;
		const uint8_t *other = own ? read_pages(worker, slot, start + i * PAGE, run) : NULL;
		for (size_t p = 0; p < run; p++)
			same[i + p] = other && !memcmp(own + p * PAGE, other + p * PAGE, PAGE);
	}
	if (!worker->kin_pages)
		memset(same, 0, pages);
}

static pid_t pid_of(const struct frozen_space *space)
{
	return space->twin ? space->twin : space->pid;
}

/* Sets what of @whose is not set yet, where [@start, + @pages) is the same in the @slot-th elder. */
static void ask_elder(struct worker *worker, const struct frozen_space *elder, size_t slot, const struct map *map, const uint64_t *own,
		      uint64_t start, size_t pages, uint8_t *whose)
{
	uint64_t entries[LOOK_ENTRIES];
	uint8_t same[LOOK_ENTRIES];
	bool known = false, unsure = false;
	if (!read_entries(view_of(worker, slot, pid_of(elder)), start, pages, entries))
		return;
	for (size_t i = 0; i < pages; i++) {
		known |= !whose[i] && (is_same_frame(own[i], entries[i]) || is_same_in_image(map, own[i], entries[i]));
		unsure |= (same[i] = !whose[i] && may_be_same(own[i], entries[i]));
	}
	if (unsure)
		compare_contents(worker, slot, start, pages, same);
	for (size_t i = 0; i < pages && (known || unsure); i++)
		if (!whose[i] && (is_same_frame(own[i], entries[i]) || is_same_in_image(map, own[i], entries[i]) || (unsure && same[i])))
			whose[i] = (uint8_t)slot;
}

static void add_share(struct worker *worker, uint64_t start, uint64_t end, size_t store)
{
	struct page_share *last = worker->shares.count ? &worker->shares.at[worker->shares.count - 1] : NULL;
	if (last && last->end == start && last->store == store)
		last->end = end;
	else
		*vec_add(&worker->shares) = (struct page_share){ start, end, store };
}

/* Up to LOOK_ENTRIES pages from @start on. */
static int sift(struct worker *worker, const struct snapshot_source *source, uint64_t start, size_t pages, kin_own own_pages, void *context,
		struct fault *fault)
{
	uint64_t own[LOOK_ENTRIES];
	uint8_t whose[LOOK_ENTRIES] = { 0 };
	bool known = read_entries(view_of(worker, 0, source->pid), start, pages, own);
	for (size_t e = 0; known && e < SNAPSHOT_ELDERS && source->elders[e]; e++) {
		const uint64_t end = start + pages * PAGE;
		const struct map *map;
		for (uint64_t at = start; at < end && (map = find_overlap(source->elders[e], source->map, at, end)); at = map->end) {
			uint64_t from = map->start > at ? map->start : at, to = map->end < end ? map->end : end;
			ask_elder(worker, source->elders[e], e + 1, map, own + (from - start) / PAGE, from, (size_t)((to - from) / PAGE),
				  whose + (from - start) / PAGE);
		}
	}
	for (size_t i = 0, end; i < pages; i = end) {
		for (end = i + 1; end < pages && whose[end] == whose[i]; end++)
			;
		if (whose[i])
			add_share(worker, start + i * PAGE, start + end * PAGE, source->elders[whose[i] - 1]->store);
		int rc = whose[i] ? 0 : own_pages(worker, source, start + i * PAGE, start + end * PAGE, context, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int kin_sift(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end, kin_own own_pages, void *context,
	     struct fault *fault)
{
	if (!source->elders[0])
		return own_pages(worker, source, start, end, context, fault);
	int rc = 0;
	for (uint64_t at = start; rc == 0 && at < end; at += LOOK_ENTRIES * PAGE) {
		uint64_t pages = (end - at) / PAGE;
		rc = sift(worker, source, at, pages < LOOK_ENTRIES ? (size_t)pages : LOOK_ENTRIES, own_pages, context, fault);
	}
	return rc;
}

/* ---- where they are stored ---- */

static int compare_shares(const void *a, const void *b)
{
	uint64_t x = ((const struct page_share *)a)->start, y = ((const struct page_share *)b)->start;
	return (x > y) - (x < y);
}

void kin_settle(struct snapshot *snapshot, const struct harvest *harvest)
{
	uint64_t shared = 0;
	/* Elders come before their heirs. */
	for (size_t i = 0; i < harvest->spaces.count; i++) {
		struct snapshot_store *store = &snapshot->stores.at[harvest->spaces.at[i]->store];
		page_places inherited = { 0 };
		if (store->shares.count)
			qsort(store->shares.at, store->shares.count, sizeof *store->shares.at, compare_shares);
		for (size_t s = 0; s < store->shares.count; s++) {
			const struct page_share *share = &store->shares.at[s];
			places_within(&snapshot->stores.at[share->store].places, share->start, share->end, &inherited);
			shared += (share->end - share->start) / PAGE;
		}
		places_merge(&store->places, &inherited);
		vec_finish(&inherited);
		vec_finish(&store->shares);
	}
	if (shared)
		log_info("checkpoint: %llu pages are shared with relatives, and stored once", (unsigned long long)shared);
}
