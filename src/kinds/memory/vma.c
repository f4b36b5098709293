/* SPDX-License-Identifier: Apache-2.0 */
/* A mapping: range, protection, flags and name from /proc/PID/smaps; the object behind it is a record of its own. Put back by
 * mmap(2) and madvise(2) with the protection it had; contents are written from outside, through protections
 * where need be. What the kernel made by itself ([vdso], [vvar]) belongs to space.c. Refused: memory of devices,
 * huge-page files, protection keys, userfaultfd ranges, AIO rings. Segments of System V shared memory are mapped by sysv_shm.c. */
#include <errno.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/memory/hidden.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

#ifndef __NR_mseal
#define __NR_mseal 462
#endif

/* Vma.kind */
enum vma_kind { VMA_MAPPED, VMA_ATTACHED };

static bool is_kernel_made(const struct map *map)
{
	return !strcmp(map->name, "[vdso]") || !strncmp(map->name, "[vvar", 5) || !strcmp(map->name, "[vsyscall]");
}

/* Ways in which a mapping cannot be carried. */
static const struct refusal {
	uint32_t flag;
	const char *prefix;
	const char *why;
} refusals[] = {
	{ 0, "/[aio]", "an AIO ring, which this version cannot carry" },
	{ 0, "anon_inode:[io_uring]", "an io_uring, which this version cannot carry" },
	{ 0, "/secretmem", "secret memory, which the kernel shows to nobody" },
	{ 0, "[uprobes]", "under a probe (uprobes)" },
	{ MAP_FLAG_HUGETLB, NULL, "memory of hugetlbfs, which this version cannot carry" },
	{ MAP_FLAG_UFFD_WP | MAP_FLAG_UFFD_MINOR, NULL,
	  "registered with userfaultfd, which this version cannot carry" },
	{ MAP_FLAG_SHADOW_STACK, NULL, "a shadow stack, which this version cannot carry" },
	{ MAP_FLAG_DROPPABLE, NULL, "droppable memory, which this version cannot carry" },
	{ MAP_FLAG_IO | MAP_FLAG_PFN, NULL, "memory of a device" },
};

/* @ours: registered with a userfaultfd of Cairn's own, maybe. */
static int refuse_map(const struct map *map, bool ours, struct fault *fault)
{
	uint32_t flags = map->flags & ~(ours ? (uint32_t)MAP_FLAG_UFFD_WP : 0);
	if (flags & MAP_FLAG_UFFD_MISSING)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY,
					   "mapping 0x%llx-0x%llx %s: is still being loaded by a userfaultfd, as after cairn restore --lazy; "
					   "try again later, or a longer --timeout", (unsigned long long)map->start,
					   (unsigned long long)map->end, map->name);
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		const struct refusal *refusal = &refusals[i];
		if ((flags & refusal->flag) ||
		    (refusal->prefix && map->inode && !strncmp(map->name, refusal->prefix, strlen(refusal->prefix))))
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "mapping 0x%llx-0x%llx %s: %s; try to checkpoint when the program has unmapped it",
					 (unsigned long long)map->start, (unsigned long long)map->end, map->name,
					 refusal->why);
	}
	if (map->protection_key)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "mapping 0x%llx-0x%llx has protection key %d, which this version cannot carry; try to run "
				 "the program without protection keys", (unsigned long long)map->start,
				 (unsigned long long)map->end, map->protection_key);
	return 0;
}

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	(void)harvest;
	for (size_t i = 0; process->space && i < process->space->maps.maps.count; i++) {
		const struct map *map = &process->space->maps.maps.at[i];
		int rc = is_kernel_made(map) ? 0 : refuse_map(map, process->space->tracked, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* "[anon:NAME]" */
static const char *anonymous_name(struct harvest *harvest, const struct map *map)
{
	static const char prefix[] = "[anon:";
	size_t length = strlen(map->name);
	if (map->inode || strncmp(map->name, prefix, sizeof prefix - 1) || map->name[length - 1] != ']')
		return "";
	char *name = arena_string(&harvest->arena, map->name + sizeof prefix - 1);
	name[strlen(name) - 1] = 0;
	return name;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_space *space = thread->process->space;
	(void)batch, (void)note, (void)fault;
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (is_kernel_made(map))
			continue;
		Cairn__Vma *message = HARVEST_MESSAGE(harvest, Cairn__Vma, cairn__vma__init);
		message->space = space->id;
		message->start = map->start;
		message->end = map->end;
		message->protection = map->protection;
		message->shared = map->shared;
		message->offset = map->inode ? map->offset : 0;
		message->file = space->objects[i];
		message->kind = map->sysv ? VMA_ATTACHED : VMA_MAPPED;
		message->flags = map->flags;
		message->name = (char *)anonymous_name(harvest, map);
		harvest_add(harvest, &kind_vma, &message->base);
	}
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	const uint64_t user_end = UINT64_C(1) << 47;
	if (message->start >= message->end || message->end > user_end || (message->start | message->end) & 4095 ||
	    message->offset & 4095 || message->protection > 7 || message->kind > VMA_ATTACHED || (message->shared && !message->file))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "mapping 0x%llx-0x%llx has impossible values",
				 (unsigned long long)message->start, (unsigned long long)message->end);
	return 0;
}

static uint32_t needs(const ProtobufCMessage *base)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	return message->kind == VMA_ATTACHED ? 0 : message->file;
}

static const struct advice {
	uint32_t flag;
	int advice;
} advices[] = {
	{ MAP_FLAG_SEQUENTIAL, MADV_SEQUENTIAL }, { MAP_FLAG_RANDOM, MADV_RANDOM },
	{ MAP_FLAG_DONT_COPY, MADV_DONTFORK },    { MAP_FLAG_WIPE_ON_FORK, MADV_WIPEONFORK },
	{ MAP_FLAG_DONT_DUMP, MADV_DONTDUMP },    { MAP_FLAG_HUGE, MADV_HUGEPAGE },
	{ MAP_FLAG_NO_HUGE, MADV_NOHUGEPAGE },    { MAP_FLAG_MERGEABLE, MADV_MERGEABLE },
};

static void add_name(const Cairn__Vma *message, struct batch *batch)
{
	struct batch_place place = batch_data(batch, message->name, strnlen(message->name, 79) + 1);
	batch_try(batch, prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, message->start, message->end - message->start,
		  place.address);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	uint64_t flags = MAP_FIXED | (message->shared ? MAP_SHARED : MAP_PRIVATE), fd = UINT64_MAX;
	uint64_t size = message->end - message->start;
	bool attached = message->kind == VMA_ATTACHED;
	if (message->file && !attached) {
		int loan = newborn_loan(thread->process, message->file);
		if (loan < 0)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "mapping 0x%llx refers to object %u, which is missing",
					 (unsigned long long)message->start, message->file);
		fd = (uint64_t)loan;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	flags |= message->flags & MAP_FLAG_GROWS_DOWN ? MAP_GROWSDOWN | MAP_STACK : 0;
	flags |= message->flags & MAP_FLAG_NO_RESERVE ? MAP_NORESERVE : 0;
	batch_group(batch, 16, 256);
	if (attached)
		batch_call(batch, mprotect, message->start, size, message->protection);
	else
		batch_call(batch, mmap, message->start, size, message->protection, flags, fd, message->offset);
	for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
		if (message->flags & advices[i].flag)
			batch_try(batch, madvise, message->start, size, (uint64_t)advices[i].advice);
	if (message->name[0])
		add_name(message, batch);
	return 0;
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch,
		    struct fault *fault)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	(void)thread, (void)fd, (void)fault;
	uint64_t size = message->end - message->start;
	batch_group(batch, 2, 0);
	if (message->flags & MAP_FLAG_LOCKED)
		batch_call(batch, mlock2, message->start, size,
			   message->flags & MAP_FLAG_LOCK_ON_FAULT ? MLOCK_ONFAULT : 0);
	if (message->flags & MAP_FLAG_SEALED)
		batch_call(batch, mseal, message->start, size, 0);
	return 0;
}

const struct kind kind_vma = {
	.name = "mapping",
	.tag = 31,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__vma__descriptor,
	.owner_field = "space",
	.refuse = refuse,
	.capture = capture,
	.visit = hidden_visit,
	.check = check,
	.needs = needs,
	.rebuild = rebuild,
	.connect = connect_,
};
