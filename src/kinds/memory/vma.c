/* SPDX-License-Identifier: Apache-2.0 */
/* A mapping: range, protection, flags and name from /proc/PID/smaps; the object behind it is a record of its own. Put back by
 * mmap(2) and madvise(2) with the protection it had; contents are written from outside, through protections
 * where need be. Private memory of hugetlbfs has no object: it is anonymous memory with larger pages. What may be dropped at any time
 * (MAP_DROPPABLE) comes back dropped. What the kernel made by itself ([vdso], [vvar]) belongs to space.c. Refused: memory of devices, userfaultfd
 * ranges, flags that this version does not know. Segments of System V shared memory are mapped by sysv_shm.c, rings of asynchronous I/O by aio.c. */
#include <errno.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/memory/hidden.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

enum { MAP_DROPPABLE_ = 0x08, MAP_SYNC_ = 0x80000 }; /* include/uapi/linux/mman.h, 6.11; asm-generic/mman.h, 4.15 */

/* Ways in which a mapping cannot be carried. */
static const struct refusal {
	uint32_t flag;
	const char *prefix;
	const char *why;
} refusals[] = {
	{ 0, "/secretmem", "secret memory, which the kernel shows to nobody" },
	{ 0, "[uprobes]", "under a probe (uprobes)" },
	{ MAP_FLAG_SHADOW_STACK, NULL, "a shadow stack, which this version cannot carry" },
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
	/* If it is the program's own, its descriptor is refused. */
	if (flags & (MAP_FLAG_UFFD_WP | MAP_FLAG_UFFD_MINOR))
		return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY,
					   "mapping 0x%llx-0x%llx %s: is registered with a userfaultfd, of another program if none of this one is named, such as a Cairn that "
					   "was just killed; try again when that has closed it", (unsigned long long)map->start, (unsigned long long)map->end, map->name);
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		const struct refusal *refusal = &refusals[i];
		if ((flags & refusal->flag) ||
		    (refusal->prefix && map->inode && !strncmp(map->name, refusal->prefix, strlen(refusal->prefix))))
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "mapping 0x%llx-0x%llx %s: %s; try to checkpoint when the program has unmapped it",
					 (unsigned long long)map->start, (unsigned long long)map->end, map->name,
					 refusal->why);
	}
	if (map->flags & MAP_FLAG_OTHER)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "mapping 0x%llx-0x%llx %s: has the flag \"%s\" (VmFlags in smaps), which this version does not know; try a newer "
				 "Cairn", (unsigned long long)map->start, (unsigned long long)map->end, map->name, map->unknown);
	return 0;
}

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	(void)harvest;
	for (size_t i = 0; process->space && i < process->space->maps.maps.count; i++) {
		const struct map *map = &process->space->maps.maps.at[i];
		int rc = !map_is_program(map) ? 0 : refuse_map(map, process->space->tracked, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* "[anon:NAME]", "[anon_shmem:NAME]" */
static const char *anonymous_name(struct harvest *harvest, const struct map *map)
{
	const char *prefix = map->inode ? "[anon_shmem:" : "[anon:";
	size_t length = strlen(map->name);
	if (strncmp(map->name, prefix, strlen(prefix)) || map->name[length - 1] != ']')
		return "";
	char *name = arena_string(&harvest->arena, map->name + strlen(prefix));
	name[strlen(name) - 1] = 0;
	return name;
}

/* A restore that maps memory from an image cuts it into pieces (base/mapped.h): they were one, and are to be one again. */
static bool joins(const struct map *before, const struct map *map, const Cairn__Vma *message)
{
	return message && (before->image_inode || map->image_inode) && message->end == map->start && !before->inode && !map->inode && !before->shared &&
	       !map->shared && message->protection == map->protection && message->flags == map->flags && !message->name[0] && strncmp(map->name, "[anon", 5) &&
	       message->protection_key == (uint32_t)map->protection_key;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_space *space = thread->process->space;
	Cairn__Vma *message = NULL;
	(void)batch, (void)note, (void)fault;
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (!map_is_program(map))
			continue;
		if (i && joins(map - 1, map, message)) {
			message->end = map->end;
			continue;
		}
		message = HARVEST_MESSAGE(harvest, Cairn__Vma, cairn__vma__init);
		message->space = space->id;
		message->start = map->start;
		message->end = map->end;
		message->protection = map->protection;
		message->shared = map->shared;
		message->offset = map->inode ? map->offset : 0;
		message->file = space->objects[i];
		message->kind = map->sysv ? VMA_ATTACHED : map_is_placed(map) ? VMA_PLACED : map_is_aio(map) ? VMA_MADE : VMA_MAPPED;
		message->flags = map->flags;
		message->protection_key = (uint32_t)map->protection_key;
		message->huge_page_size = map->flags & MAP_FLAG_HUGETLB ? map->page_size : 0;
		message->name = (char *)anonymous_name(harvest, map);
		harvest_add(harvest, &kind_vma, &message->base);
	}
	return 0;
}

static bool is_huge(const Cairn__Vma *message)
{
	return message->flags & MAP_FLAG_HUGETLB;
}

/* Linux 6.11. */
static bool droppable_works(void)
{
	void *memory = mmap(NULL, 4096, PROT_NONE, MAP_DROPPABLE_ | MAP_ANONYMOUS, -1, 0);
	if (memory != MAP_FAILED)
		munmap(memory, 4096);
	return memory != MAP_FAILED;
}

static int check_huge(const Cairn__Vma *message, struct fault *fault)
{
	uint64_t page = message->huge_page_size;
	if (page < 65536 || page & (page - 1) || (message->start | message->end | message->offset) & (page - 1))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "mapping 0x%llx-0x%llx has impossible huge pages",
				 (unsigned long long)message->start, (unsigned long long)message->end);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	const uint64_t user_end = UINT64_C(1) << 47;
	if (message->protection_key > 15 || message->start >= message->end || message->end > user_end || (message->start | message->end) & 4095 ||
	    message->offset & 4095 || message->protection > 7 || message->kind > VMA_MADE || (message->shared && !message->file) ||
	    (message->kind >= VMA_PLACED && (!message->shared || is_huge(message) || message->start < 65536)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "mapping 0x%llx-0x%llx has impossible values",
				 (unsigned long long)message->start, (unsigned long long)message->end);
	if ((message->flags & MAP_FLAG_DROPPABLE) && !droppable_works())
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "mapping 0x%llx-0x%llx: may be dropped at any time (MAP_DROPPABLE), which this kernel does not know; try "
				 "Linux 6.11 or later", (unsigned long long)message->start, (unsigned long long)message->end);
	return is_huge(message) ? check_huge(message, fault) : 0;
}

static uint32_t needs(const ProtobufCMessage *base)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	return message->kind == VMA_ATTACHED || message->kind == VMA_MADE ? 0 : message->file;
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

/* Flags of mmap(2), but for what lies behind. */
static uint64_t map_flags(const Cairn__Vma *message)
{
	uint64_t flags = MAP_FIXED;
	if (message->flags & MAP_FLAG_DROPPABLE)
		flags |= MAP_DROPPABLE_;
	else if (message->flags & MAP_FLAG_SYNC)
		flags |= MAP_SHARED_VALIDATE | MAP_SYNC_;
	else
		flags |= message->shared ? MAP_SHARED : MAP_PRIVATE;
	flags |= message->flags & MAP_FLAG_GROWS_DOWN ? MAP_GROWSDOWN | MAP_STACK : 0;
	flags |= message->flags & MAP_FLAG_NO_RESERVE ? MAP_NORESERVE : 0;
	if (!message->file && is_huge(message))
		flags |= MAP_HUGETLB | (uint64_t)__builtin_ctzll(message->huge_page_size) << MAP_HUGE_SHIFT;
	return flags;
}

/* mmap(2) chooses a key for PROT_EXEC alone by itself, and nobody may name that one. */
static void add_protection(const Cairn__Vma *message, struct batch *batch)
{
	uint64_t size = message->end - message->start;
	bool may_fail = message->protection == PROT_EXEC;
	if (message->protection_key)
		batch_call_raw(batch, "pkey_mprotect", may_fail, __NR_pkey_mprotect,
			       BATCH_ARGS(message->start, size, message->protection, message->protection_key));
	else
		batch_call(batch, mprotect, message->start, size, message->protection);
}

/* Nobody can write to huge pages through a protection (mm/gup.c check_vma_flags): they get theirs when they are filled. */
static bool is_protected_late(const Cairn__Vma *message)
{
	return is_huge(message) && !message->shared && !(message->protection & PROT_WRITE);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Vma *message = (const Cairn__Vma *)base;
	uint64_t flags = map_flags(message), fd = UINT64_MAX;
	uint64_t size = message->end - message->start;
	bool attached = message->kind != VMA_MAPPED;
	if (message->file && !attached) {
		int loan = newborn_loan(thread->process, message->file);
		if (loan < 0)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "mapping 0x%llx refers to object %u, which is missing",
					 (unsigned long long)message->start, message->file);
		fd = (uint64_t)loan;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	batch_group(batch, 16, 256);
	if (!attached)
		batch_call(batch, mmap, message->start, size, is_protected_late(message) ? PROT_READ | PROT_WRITE : message->protection,
			   flags, fd, message->offset);
	if (attached || (message->protection_key && !is_protected_late(message)))
		add_protection(message, batch);
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
	if (is_protected_late(message))
		add_protection(message, batch);
	bool on_fault = message->flags & MAP_FLAG_LOCK_ON_FAULT, no_access = !(message->protection & (PROT_READ | PROT_WRITE | PROT_EXEC));
	if (message->flags & MAP_FLAG_LOCKED)
		batch_call(batch, mlock2, message->start, size, on_fault || no_access ? MLOCK_ONFAULT : 0);
	/* Locked, then forbidden: it is marked as locked, and only then the kernel finds that it cannot be filled (mm/mlock.c do_mlock). */
	if (message->flags & MAP_FLAG_LOCKED && no_access && !on_fault)
		batch_try(batch, mlock2, message->start, size, 0);
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
