/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings whose place the kernel chooses. What can be moved then is made and moved by its kind (`place`). Nothing of an io_uring can: mmap(2) and mremap(2) refuse every address for it (io_uring/memmap.c
 * io_uring_get_unmapped_area, 6.18; tests/kernel/uring_has_no_address.c). The kernel chooses a hole that is large enough. So when all else is mapped, every hole is filled, and then
 * there is but one: the place where the mapping was. The filling goes again in the same batch. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kernel/maps.h"
#include "rebuild/newborn.h"

#define LOWEST UINT64_C(0x10000)       /* vm.mmap_min_addr; none is chosen below MAP_ABOVE4G */
#define USER_END UINT64_C(0x7ffffffff000)
enum { MAP_ABOVE4G_ = 0x80 }; /* arch/x86/include/uapi/asm/mman.h, 6.6 */

struct range {
	uint64_t start, end;
};

struct placement {
	VEC(const struct plan_record *) records; /* ascending */
	VEC(struct range) holes;
};

static void placement_finish(struct placement *placement)
{
	vec_finish(&placement->records);
	vec_finish(&placement->holes);
}

static const Cairn__Vma *vma_of(const struct plan_record *record)
{
	return (const Cairn__Vma *)record->message;
}

static bool is_of(const struct plan_record *record, enum vma_kind kind)
{
	return record->message->descriptor == &cairn__vma__descriptor && vma_of(record)->kind == kind;
}

bool placement_is_wanted(const struct plan_record *record)
{
	return is_of(record, VMA_PLACED) || is_of(record, VMA_MADE);
}

static int find_holes(const struct rebuild_process *process, struct placement *placement, struct fault *fault)
{
	struct arena arena = { 0 };
	struct map_list list = { 0 };
	uint64_t at = LOWEST;
	int rc = maps_read(process->newborn.pid, MAPS_PLACES, &arena, &list, fault);
	for (size_t i = 0; rc == 0 && i < list.maps.count && list.maps.at[i].start < USER_END; i++) {
		if (list.maps.at[i].start > at)
			*vec_add(&placement->holes) = (struct range){ at, list.maps.at[i].start };
		at = list.maps.at[i].end;
	}
	if (at < USER_END)
		*vec_add(&placement->holes) = (struct range){ at, USER_END };
	maps_finish(&list);
	arena_finish(&arena);
	return rc;
}

static void add_filling(const struct placement *placement, struct batch *batch)
{
	for (size_t i = 0; i < placement->holes.count; i++) {
		const struct range *hole = &placement->holes.at[i];
		batch_group(batch, 1, 0);
		batch_call(batch, mmap, hole->start, hole->end - hole->start, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
			   UINT64_MAX, 0);
	}
}

/* What is left of each hole between the mappings that were placed there. */
static void add_emptying(const struct placement *placement, struct batch *batch)
{
	size_t next = 0;
	for (size_t i = 0; i < placement->holes.count; i++) {
		uint64_t at = placement->holes.at[i].start, end = placement->holes.at[i].end;
		for (; next < placement->records.count && vma_of(placement->records.at[next])->start < end; next++) {
			const Cairn__Vma *vma = vma_of(placement->records.at[next]);
			batch_group(batch, 1, 0);
			if (vma->start > at)
				batch_call(batch, munmap, at, vma->start - at);
			at = vma->end;
		}
		batch_group(batch, 1, 0);
		if (at < end)
			batch_call(batch, munmap, at, end - at);
	}
}

/* Returns the number of the call that maps it. */
static size_t add_mapping(const struct newborn_process *newborn, const Cairn__Vma *vma, struct batch *batch)
{
	uint64_t flags = MAP_SHARED | (vma->start >> 32 ? MAP_ABOVE4G_ : 0), size = vma->end - vma->start;
	batch_group(batch, 2, 0);
	batch_call(batch, munmap, vma->start, size);
	return batch_call(batch, mmap, 0, size, vma->protection, flags, (uint64_t)newborn_loan(newborn, vma->file), vma->offset);
}

static int place(struct rebuild_process *process, const struct placement *placement, struct batch *batch, struct fault *fault)
{
	_free_ size_t *calls = memory_new(placement->records.count * sizeof *calls);
	add_filling(placement, batch);
	for (size_t i = 0; i < placement->records.count; i++)
		calls[i] = add_mapping(&process->newborn, vma_of(placement->records.at[i]), batch);
	add_emptying(placement, batch);
	int rc = newborn_run(newborn_leader(process), batch, fault);
	if (rc < 0 && fault->error == ENOMEM)
		rc = fault_set(fault, FAULT_FAILED, ENOMEM, "process %d: to map its io_uring, each of %zu holes between its mappings has to be filled for a moment: %s; try a "
			       "larger sysctl vm.max_map_count, or ulimit -v unlimited", process->newborn.pid, placement->holes.count, strerror(ENOMEM));
	for (size_t i = 0; rc == 0 && i < placement->records.count; i++) {
		const Cairn__Vma *vma = vma_of(placement->records.at[i]);
		if ((uint64_t)batch_result(batch, calls[i]) != vma->start)
			rc = fault_set(fault, FAULT_FAILED, EEXIST, "process %d: the kernel does not map its io_uring at 0x%llx, but at 0x%llx", process->newborn.pid,
				       (unsigned long long)vma->start, (unsigned long long)batch_result(batch, calls[i]));
	}
	return rc;
}

/* What is placed by its kind. */
static int make(struct rebuild_process *process, struct fault *fault)
{
	const struct plan_space *space = process->plan->space;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		rc = record->kind->place ? record->kind->place(newborn_leader(process), record->message, fault) : 0;
	}
	return rc;
}

/* What the holes decide. */
static int fill_and_place(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	__attribute__((cleanup(placement_finish))) struct placement placement = { 0 };
	const struct plan_space *space = process->plan->space;
	struct batch batch;
	for (size_t i = 0; i < space->records.count; i++)
		if (is_of(&space->records.at[i], VMA_PLACED))
			*vec_add(&placement.records) = &space->records.at[i];
	if (!placement.records.count)
		return 0;
	newborn_batch(&process->newborn, &batch);
	int rc = newborn_land(&rebuild->workshop, fault);
	if (rc == 0)
		rc = find_holes(process, &placement, fault);
	if (rc == 0)
		rc = place(process, &placement, &batch, fault);
	batch_finish(&batch);
	return rc;
}

int placement_map(struct rebuild *rebuild, struct rebuild_process *process, struct batch *batch, struct fault *fault)
{
	const struct plan_space *space = process->plan->space;
	int rc = make(process, fault);
	if (rc == 0)
		rc = fill_and_place(rebuild, process, fault);
	for (size_t i = 0; rc == 0 && i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		if (placement_is_wanted(record))
			rc = record->kind->rebuild(newborn_leader(process), record->message, batch, fault);
	}
	return rc;
}
