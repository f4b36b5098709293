/* SPDX-License-Identifier: Apache-2.0 */
/* What an address space holds in store for mappings that it does not have yet: MCL_FUTURE and MCL_ONFAULT of mlockall(2), PR_SET_MDWE (memory that
 * was writable never becomes executable), PR_SET_MEMORY_MERGE (all of it may be merged by KSM).
 *
 * No file of /proc tells of the first. But the area that Cairn borrows is a new mapping, and so it is locked if new ones are: msync(2) with
 * MS_INVALIDATE says EBUSY of it, and mincore(2) whether it was filled at once. Where the area is a part of an old mapping (tracee/foothold.h), nothing tells:
 * a program that has locked none of its memory is taken for one that will not, one that has is refused. Put back: merging before the mappings are made, which then
 * have it as the old ones had; the others when no mapping will be made any more. */
#include <errno.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
/* include/uapi/linux/prctl.h: 6.3 and 6.4, not in every distribution's headers. */
enum { PR_SET_MDWE_ = 65, PR_GET_MDWE_ = 66, PR_SET_MEMORY_MERGE_ = 67, PR_GET_MEMORY_MERGE_ = 68, MDWE_BITS = 3 };

enum { PAGE = 4096, AREA_PAGES = BATCH_AREA / PAGE };

struct note {
	size_t locked, present, mdwe, merge;
	struct batch_place pages;
};

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note, struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	const uint64_t area = thread->process->space->foothold.area;
	(void)fault;
	note->pages = batch_room(batch, AREA_PAGES);
	note->locked = batch_try(batch, msync, area, PAGE, MS_ASYNC | MS_INVALIDATE);
	note->present = batch_try(batch, mincore, area, BATCH_AREA, note->pages.address);
	note->mdwe = batch_try(batch, prctl, PR_GET_MDWE_, 0, 0, 0, 0);
	note->merge = batch_try(batch, prctl, PR_GET_MEMORY_MERGE_, 0, 0, 0, 0);
	*ret_note = note;
	return 0;
}

/* Calls and data fill the area from both ends of what they need, never all of it. */
static bool was_filled(const struct batch *batch, const struct note *note)
{
	const uint8_t *pages = batch_bytes(batch, note->pages);
	size_t present = 0;
	for (size_t i = 0; i < AREA_PAGES; i++)
		present += pages[i] & 1;
	return batch_result(batch, note->present) == 0 && present == AREA_PAGES;
}

/* MADV_UNMERGEABLE, or not of a kind that can be merged: for those it changes nothing. */
static void add_unmerged(struct harvest *harvest, const struct map_list *list, Cairn__SpaceModes *message)
{
	message->unmerged = ARENA_ARRAY(&harvest->arena, uint64_t, 2 * list->maps.count);
	for (size_t i = 0; i < list->maps.count; i++) {
		const struct map *map = &list->maps.at[i];
		if ((map->flags & MAP_FLAG_MERGEABLE) || map->shared || !map_is_program(map))
			continue;
		message->unmerged[message->n_unmerged++] = map->start;
		message->unmerged[message->n_unmerged++] = map->end;
	}
}

static bool has_locked(const struct map_list *list)
{
	bool found = false;
	for (size_t i = 0; i < list->maps.count; i++)
		found |= list->maps.at[i].flags & MAP_FLAG_LOCKED;
	return found;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_, struct fault *fault)
{
	const struct note *note = note_;
	if (thread->process->space->foothold.grown && has_locked(&thread->process->space->maps))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "has as many mappings as it may (sysctl vm.max_map_count) and locked memory: whether it wants new "
				 "ones locked (mlockall) cannot be asked; try to raise that limit");
	int64_t mdwe = batch_result(batch, note->mdwe);
	bool locked = batch_result(batch, note->locked) == -EBUSY, merge = batch_result(batch, note->merge) > 0;
	if (!locked && !merge && mdwe <= 0)
		return 0;
	Cairn__SpaceModes *message = HARVEST_MESSAGE(harvest, Cairn__SpaceModes, cairn__space_modes__init);
	message->space = thread->process->space->id;
	message->lock_future = locked ? (uint32_t)MCL_FUTURE | (was_filled(batch, note) ? 0 : (uint32_t)MCL_ONFAULT) : 0;
	message->deny_write_execute = mdwe > 0 ? (uint32_t)mdwe : 0;
	message->merge_any = merge;
	if (merge)
		add_unmerged(harvest, &thread->process->space->maps, message);
	harvest_add(harvest, &kind_space_modes, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SpaceModes *message = (const Cairn__SpaceModes *)base;
	bool possible = message->n_unmerged % 2 == 0;
	for (size_t i = 0; possible && i < message->n_unmerged; i += 2)
		possible = message->unmerged[i] < message->unmerged[i + 1] && !((message->unmerged[i] | message->unmerged[i + 1]) & (PAGE - 1));
	if (!possible || (message->lock_future & ~(uint32_t)(MCL_FUTURE | MCL_ONFAULT)) || message->deny_write_execute & ~(uint32_t)MDWE_BITS)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "address space %u has impossible modes", message->space);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__SpaceModes *message = (const Cairn__SpaceModes *)base;
	(void)thread, (void)fault;
	if (message->merge_any)
		batch_call(batch, prctl, PR_SET_MEMORY_MERGE_, 1, 0, 0, 0);
	return 0;
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__SpaceModes *message = (const Cairn__SpaceModes *)base;
	(void)thread, (void)fd, (void)fault;
	for (size_t i = 0; i + 1 < message->n_unmerged; i += 2)
		batch_try(batch, madvise, message->unmerged[i], message->unmerged[i + 1] - message->unmerged[i], MADV_UNMERGEABLE);
	if (message->lock_future)
		batch_call(batch, mlockall, message->lock_future);
	if (message->deny_write_execute)
		batch_call(batch, prctl, PR_SET_MDWE_, message->deny_write_execute, 0, 0, 0);
	return 0;
}

const struct kind kind_space_modes = {
	.name = "address space modes",
	.tag = 81,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__space_modes__descriptor,
	.owner_field = "space",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
	.connect = connect_,
};
