/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/mapped.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/mapped.h"
#include "kernel/maps.h"
#include "kernel/probe.h"

enum {
	LEAST_PAGES = 16, /* of a run: as many as one fault maps of a file (mm/memory.c do_fault_around); below that, loading costs no more than a mapping */
};

struct raw_run {
	uint32_t space;
	struct mapped_run run;
};
typedef VEC(struct raw_run) raw_runs;

static void take_run(void *context, const struct image_place *place, uint64_t offset)
{
	raw_runs *runs = context;
	*vec_add(runs) = (struct raw_run){
		place->space, { place->at.address, place->at.address + (uint64_t)place->at.pages * IMAGE_PAGE, offset } };
}

static int compare_runs(const void *a, const void *b)
{
	const struct raw_run *x = a, *y = b;
	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	return (x->run.start > y->run.start) - (x->run.start < y->run.start);
}

static bool may_be_mapped(const Cairn__Vma *vma, bool executable)
{
	const uint64_t never = MAP_FLAG_GROWS_DOWN | MAP_FLAG_LOCKED | MAP_FLAG_LOCK_ON_FAULT | MAP_FLAG_WIPE_ON_FORK | MAP_FLAG_DROPPABLE |
			       MAP_FLAG_HUGETLB | MAP_FLAG_SYNC | MAP_FLAG_MERGEABLE;
	return !vma->shared && !vma->file && !vma->kind && !vma->name[0] && !(vma->flags & never) && (executable || !(vma->protection & PROT_EXEC));
}

/* @first: of those of one mapping, which are made with it. */
static void add_run(mapped_runs *runs, size_t first, uint64_t start, uint64_t end, uint64_t offset)
{
	struct mapped_run *last = runs->count > first ? &runs->at[runs->count - 1] : NULL;
	if (last && last->end == start && last->offset + (last->end - last->start) == offset)
		last->end = end;
	else
		*vec_add(runs) = (struct mapped_run){ start, end, offset };
}

/* [@first, @end) of @all are the space's, ascending, as its mappings are. */
static void find_runs(struct rebuild_process *process, const struct raw_run *first, const struct raw_run *end, bool executable)
{
	const struct plan_space *space = process->plan->space;
	for (size_t i = 0; i < space->records.count; i++) {
		const Cairn__Vma *vma = (const Cairn__Vma *)space->records.at[i].message;
		if (vma->base.descriptor != &cairn__vma__descriptor || !may_be_mapped(vma, executable))
			continue;
		const size_t before = process->mapped.runs.count;
		while (first < end && first->run.end <= vma->start)
			first++;
		for (const struct raw_run *raw = first; raw < end && raw->run.start < vma->end; raw++) {
			uint64_t from = raw->run.start > vma->start ? raw->run.start : vma->start, to = raw->run.end < vma->end ? raw->run.end : vma->end;
			add_run(&process->mapped.runs, before, from, to, raw->run.offset + (from - raw->run.start));
		}
	}
}

static uint64_t pages_of(const struct mapped_run *run)
{
	return (run->end - run->start) / IMAGE_PAGE;
}

/* A program may have vm.max_map_count mappings, and each run is one more, and parts one in two. It gets half of what is left: it goes on mapping by
 * itself. So the shortest runs are loaded. */
static uint64_t least_pages(const struct rebuild_process *process, uint64_t most_runs)
{
	uint64_t least = LEAST_PAGES, count;
	for (;; least *= 2) {
		count = 0;
		for (size_t i = 0; i < process->mapped.runs.count; i++)
			count += pages_of(&process->mapped.runs.at[i]) >= least;
		if (count <= most_runs)
			return least;
	}
}

static uint64_t keep_runs(struct rebuild_process *process, long most_maps)
{
	mapped_runs *runs = &process->mapped.runs;
	long left = most_maps - (long)process->plan->space->records.count;
	uint64_t least = least_pages(process, left > 0 ? (uint64_t)left / 4 : 0), pages = 0;
	size_t kept = 0;
	for (size_t i = 0; i < runs->count; i++) {
		struct mapped_run run = runs->at[i];
		if (pages_of(&run) < least)
			continue;
		heritage_ranges *ranges = &process->mapped.ranges;
		struct heritage_range *last = ranges->count ? &ranges->at[ranges->count - 1] : NULL;
		if (last && last->end == run.start)
			last->end = run.end;
		else
			*vec_add(ranges) = (struct heritage_range){ run.start, run.end };
		pages += pages_of(&run);
		runs->at[kept++] = run;
	}
	runs->count = kept;
	return pages;
}

static void forget(struct rebuild_process *process)
{
	vec_finish(&process->mapped.runs);
	vec_finish(&process->mapped.ranges);
}

/* Pages of address spaces that the image has, wherever. */
static uint64_t count_private(const struct rebuild *rebuild)
{
	const struct image_place *places;
	size_t count = image_reader_places(rebuild->reader, &places);
	uint64_t pages = 0;
	bool is_space = false;
	for (size_t i = 0; i < count; i++) {
		if (!i || places[i].space != places[i - 1].space) {
			is_space = false;
			for (size_t s = 0; s < rebuild->plan->spaces.count && !is_space; s++)
				is_space = rebuild->plan->spaces.at[s]->id == places[i].space;
		}
		pages += is_space ? places[i].at.pages : 0;
	}
	return pages;
}

int mapped_find(struct rebuild *rebuild, struct fault *fault)
{
	raw_runs all = { 0 };
	struct statvfs system = { 0 };
	uint64_t mapped = 0, every = count_private(rebuild);
	size_t pieces = 0;
	const long most_maps = sysctl_number("/proc/sys/vm/max_map_count", 65530);
	int rc = image_reader_raw(rebuild->reader, take_run, &all, fault);
	if (rc == 0 && all.count)
		qsort(all.at, all.count, sizeof *all.at, compare_runs);
	/* What is mapped from a file system that allows no programs can never be made executable (mm/mmap.c do_mmap). */
	bool executable = fstatvfs(image_reader_fd(rebuild->reader), &system) == 0 && !(system.f_flag & ST_NOEXEC);
	for (size_t i = 0; rc == 0 && i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		const struct plan_space *space = process->plan->space;
		if (!space || space->owner != process->plan)
			continue;
		size_t low = 0, high = all.count;
		while (low < high) {
			size_t middle = (low + high) / 2;
			if (all.at[middle].space < space->id)
				low = middle + 1;
			else
				high = middle;
		}
		for (high = low; high < all.count && all.at[high].space == space->id; high++)
			;
		if (low < high)
			find_runs(process, &all.at[low], &all.at[low] + (high - low), executable);
		mapped += keep_runs(process, most_maps);
		pieces += process->mapped.runs.count;
	}
	vec_finish(&all);
	rebuild->is_mapped = rc == 0 && mapped > every / 2;
	for (size_t i = 0; !rebuild->is_mapped && i < rebuild->processes.count; i++)
		forget(rebuild->processes.at[i]);
	if (rc == 0 && rebuild->is_mapped)
		log_info("restore: %llu pages are mapped from the image, in %zu pieces; the other %llu are loaded first", (unsigned long long)mapped,
			 pieces, (unsigned long long)(every - mapped));
	else if (rc == 0)
		log_warn("only %llu of %llu pages can be mapped from the image (try one that was made with --compress none, without a key and without a parent); "
			 "continuing with --eager", (unsigned long long)mapped, (unsigned long long)every);
	rebuild->pages += rebuild->is_mapped ? mapped : 0;
	return rc;
}

int mapped_map(struct rebuild_process *process, const struct plan_record *record, struct batch *batch, struct fault *fault)
{
	const Cairn__Vma *vma = (const Cairn__Vma *)record->message;
	struct mapped *mapped = &process->mapped;
	int rc = 0;
	if (vma->base.descriptor != &cairn__vma__descriptor)
		return 0;
	/* Both ascend. */
	for (; rc == 0 && mapped->next < mapped->runs.count && mapped->runs.at[mapped->next].start < vma->end; mapped->next++) {
		const struct mapped_run *run = &mapped->runs.at[mapped->next];
		Cairn__Vma part = *vma;
		part.start = run->start;
		part.end = run->end;
		part.file = MAPPED_OBJECT;
		part.offset = run->offset;
		rc = record->kind->rebuild(newborn_leader(process), &part.base, batch, fault);
	}
	return rc;
}

void mapped_mark(const struct rebuild *rebuild, const struct rebuild_process *process, struct batch *batch)
{
	if (!process->mapped.runs.count)
		return;
	batch_group(batch, 1, 0);
	batch_call(batch, mmap, rebuild->mark, MAPPED_MARK_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE,
		   (uint64_t)newborn_loan(&process->newborn, MAPPED_OBJECT), 0);
}
