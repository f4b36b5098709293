/* SPDX-License-Identifier: Apache-2.0 */
/* --pids any: tasks get the numbers that come, and what the libraries in a program remember of their own is put right. What is looked for:
 *   - where the kernel clears a thread's id at its end (set_tid_address) glibc keeps it (struct pthread, tid);
 *   - musl keeps it in the thread's descriptor, which the thread pointer points to and which begins with a pointer to itself
 *     (src/internal/pthread_impl.h);
 *   - Go keeps it in m.procid, found through the g of the thread (runtime/runtime2.go);
 *   - held mutexes name their owner: those on the kernel's robust list, and glibc's recursive and error-checking ones, which are found by
 *     their whole pattern of 40 bytes (struct __pthread_mutex_s); with musl all that have an owner lie on a list of the thread's, and so each
 *     is found by what points to it (src/thread/pthread_mutex_trylock.c).
 * Every place is written only if the old number stands there. What a program itself remembers (a shell its children) nobody can know. */
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "kernel/pagemap.h"
#include "rebuild/newborn.h"

#if defined(__x86_64__)
/* musl: self, dtv, prev, next, sysinfo, canary, tid (1.2); one word more before it (1.1). Go: g below the thread pointer; g.m; m.procid. */
static const uint64_t musl_places[] = { 48, 56 };
enum { GO_G_BELOW = 8, GO_M = 48, GO_PROCID = 72 };
static uint64_t thread_pointer(const struct registers *registers)
{
	return registers->raw.fs_base;
}
#else
#error "where do this architecture's libraries keep thread ids?"
#endif

/* A file of a process's own directory in /proc is another's, or nobody's, under its old number. */
void plan_check_numbers(const struct plan *plan, struct fault_list *refusals)
{
	for (size_t i = 0; i < plan->records.count; i++) {
		const struct plan_record *record = &plan->records.at[i];
		const ProtobufCFieldDescriptor *field = record->kind->path_field ?
			protobuf_c_message_descriptor_get_field_by_name(record->kind->descriptor, record->kind->path_field) : NULL;
		const char *path = field ? *(char *const *)(const void *)((const char *)record->message + field->offset) : "";
		unsigned number;
		struct fault fault;
		if (sscanf(path, "/proc/%u/", &number) != 1)
			continue;
		fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP, "%s \"%s\": belongs to a PID, which --pids any changes; try --pids private, or "
			  "--map-path", record->kind->name, path);
		fault_list_add(refusals, &fault);
	}
}

void numbers_note(struct rebuild_process *process, size_t thread, uint32_t old_id, pid_t new_id)
{
	struct newborn_thread *newborn = &process->threads.at[thread]->newborn;
	newborn->tid = new_id;
	if (thread == 0)
		process->newborn.pid = new_id;
	if (process->newborn.workshop->renumber)
		*vec_add(&process->newborn.workshop->numbers) = (struct workshop_number){ old_id, new_id };
}

/* A number at @address: the old one becomes the new one. @mask: the bits of it that are a number. */
static bool replace(const struct rebuild_thread *thread, uint64_t address, uint32_t mask)
{
	uint32_t value;
	pid_t pid = thread->newborn.process->pid;
	if (memory_read(pid, address, &value, sizeof value, NULL) < 0 || (value & mask) != thread->plan->tid)
		return false;
	value = (value & ~mask) | (uint32_t)thread->newborn.tid;
	return memory_write(pid, address, &value, sizeof value, NULL) == 0;
}

static bool pointer_at(const struct rebuild_thread *thread, uint64_t address, uint64_t *ret_pointer)
{
	return address && memory_read(thread->newborn.process->pid, address, ret_pointer, sizeof *ret_pointer, NULL) == 0;
}

static const Cairn__ThreadPointers *pointers_of(const struct rebuild_thread *thread)
{
	for (size_t i = 0; i < thread->plan->records.count; i++)
		if (thread->plan->records.at[i].kind->descriptor == &cairn__thread_pointers__descriptor)
			return (const Cairn__ThreadPointers *)thread->plan->records.at[i].message;
	return NULL;
}

/* The id itself. Is it known where the library keeps it? */
static bool settle_own(const struct rebuild_thread *thread, const Cairn__ThreadPointers *pointers)
{
	struct registers registers;
	uint64_t pointer;
	memcpy(&registers.raw, thread->plan->thread->registers.data, sizeof registers.raw);
	uint64_t self = thread_pointer(&registers);
	bool found = pointers && pointers->clear_child_tid && replace(thread, pointers->clear_child_tid, UINT32_MAX);
	if (pointer_at(thread, self, &pointer) && pointer == self)
		for (size_t i = 0; !found && i < sizeof musl_places / sizeof *musl_places; i++)
			found = replace(thread, self + musl_places[i], UINT32_MAX);
	if (self && pointer_at(thread, self - GO_G_BELOW, &pointer) && pointer_at(thread, pointer + GO_M, &pointer) && pointer)
		found |= replace(thread, pointer + GO_PROCID, UINT32_MAX);
	return found;
}

/* glibc: the owner stands 8 bytes behind the futex as well. */
static void settle_mutex(const struct rebuild_thread *thread, uint64_t futex)
{
	if (replace(thread, futex, FUTEX_TID_MASK))
		replace(thread, futex + 8, UINT32_MAX);
}

static void settle_robust(const struct rebuild_thread *thread, const Cairn__ThreadPointers *pointers)
{
	enum { MOST = 1 << 16 }; /* a list may be damaged by the program itself (the kernel takes 2048) */
	struct robust_list_head head;
	if (!pointers || !pointers->robust_list ||
	    memory_read(thread->newborn.process->pid, pointers->robust_list, &head, sizeof head, NULL) < 0)
		return;
	uint64_t entry = (uint64_t)(uintptr_t)head.list.next & ~UINT64_C(1), pending = (uint64_t)(uintptr_t)head.list_op_pending & ~UINT64_C(1);
	for (int i = 0; i < MOST && entry && entry != pointers->robust_list; i++) {
		settle_mutex(thread, entry + (uint64_t)head.futex_offset);
		if (!pointer_at(thread, entry, &entry))
			break;
		entry &= ~UINT64_C(1);
	}
	if (pending)
		settle_mutex(thread, pending + (uint64_t)head.futex_offset);
}

/* ---- glibc's mutexes with an owner ---- */

struct glibc_mutex {
	int32_t lock;
	uint32_t count;
	int32_t owner;
	uint32_t users;
	int32_t kind;
	int16_t spins, elision;
	uint64_t previous, next;
};
_Static_assert(sizeof(struct glibc_mutex) == 40, "as glibc has it on 64-bit architectures");

/* Held, recursive (1) or error-checking (2), private or shared (128), on no list. */
static bool is_held(const struct glibc_mutex *mutex)
{
	enum { SHARED = 128, MANY = 1 << 16 };
	int32_t kind = mutex->kind & ~SHARED;
	return (mutex->lock == 1 || mutex->lock == 2) && mutex->owner > 0 && (kind == 1 || kind == 2) && mutex->count < MANY &&
	       (kind == 2 || mutex->count > 0) && mutex->users > 0 && mutex->users < MANY && !mutex->elision && !mutex->previous && !mutex->next;
}

static const struct rebuild_thread *thread_by_old(const struct rebuild_process *process, int32_t old_id)
{
	for (size_t i = 0; i < process->threads.count; i++)
		if (process->threads.at[i]->plan->tid == (uint32_t)old_id)
			return process->threads.at[i];
	return NULL;
}

struct musl_mutex {
	int32_t type;
	uint32_t lock; /* the owner, and bit 31: there are waiters */
	int32_t waiters, unused[2], count;
	uint64_t previous, next; /* of the thread's list: `next` of this one is what `previous` points to */
};
_Static_assert(sizeof(struct musl_mutex) == 40, "as musl has it on 64-bit architectures");

/* Recursive, error-checking or robust, and held by a thread of the process: its owner, or NULL. */
static const struct rebuild_thread *musl_owner(const struct rebuild_process *process, const struct musl_mutex *mutex, uint64_t address)
{
	enum { TYPES = 3, ROBUST = 4, SHARED = 128 };
	uint64_t back;
	if (!(mutex->type & (TYPES | ROBUST)) || (mutex->type & ~(TYPES | ROBUST | SHARED)) || mutex->waiters < 0 || !mutex->previous ||
	    !mutex->next || (mutex->previous | mutex->next) & 7)
		return NULL;
	const struct rebuild_thread *owner = thread_by_old(process, (int32_t)(mutex->lock & FUTEX_TID_MASK));
	return owner && pointer_at(owner, mutex->previous, &back) && back == address + offsetof(struct musl_mutex, next) ? owner : NULL;
}

static void settle_piece(const struct rebuild_process *process, uint64_t address, const uint8_t *bytes, size_t size)
{
	for (size_t at = 0; at + sizeof(struct glibc_mutex) <= size; at += 8) {
		struct glibc_mutex mutex;
		memcpy(&mutex, bytes + at, sizeof mutex);
		const struct rebuild_thread *owner = is_held(&mutex) ? thread_by_old(process, mutex.owner) : NULL;
		if (owner && replace(owner, address + at + offsetof(struct glibc_mutex, owner), UINT32_MAX))
			log_debug("process %d: mutex at 0x%llx: its owner %d is thread %d now", process->newborn.pid,
				  (unsigned long long)(address + at), mutex.owner, owner->newborn.tid);
		struct musl_mutex other;
		memcpy(&other, bytes + at, sizeof other);
		owner = musl_owner(process, &other, address + at);
		if (owner)
			replace(owner, address + at + offsetof(struct musl_mutex, lock), FUTEX_TID_MASK);
	}
}

/* Pieces overlap by one mutex less 8 bytes, so that none is missed at their borders. */
static void settle_extent(const struct rebuild_process *process, uint64_t start, uint64_t end, uint8_t *buffer, size_t room)
{
	const size_t overlap = sizeof(struct glibc_mutex) - 8;
	for (uint64_t at = start; at < end;) {
		size_t size = end - at < room ? end - at : room;
		if (memory_read(process->newborn.pid, at, buffer, size, NULL) == 0)
			settle_piece(process, at, buffer, size);
		at += size == room && at + size < end ? size - overlap : size;
	}
}

static int settle_owners(const struct rebuild_process *process, struct fault *fault)
{
	enum { ROOM = 1 << 20, EXTENTS = 64 };
	struct pagemap pagemap;
	_free_ uint8_t *buffer = memory_new(ROOM);
	int rc = pagemap_open(process->newborn.pid, &pagemap, fault);
	for (size_t i = 0; rc == 0 && i < process->plan->space->records.count; i++) {
		const ProtobufCMessage *message = process->plan->space->records.at[i].message;
		const Cairn__Vma *vma = (const Cairn__Vma *)message;
		if (message->descriptor != &cairn__vma__descriptor || !(vma->protection & 2 /* PROT_WRITE */))
			continue;
		for (uint64_t at = vma->start; rc == 0 && at < vma->end;) {
			struct page_extent extents[EXTENTS];
			int count = pagemap_extents(&pagemap, at, vma->end, extents, EXTENTS, &at, fault);
			for (int e = 0; e < count; e++)
				if (extents[e].categories & (PAGE_PRESENT | PAGE_SWAPPED))
					settle_extent(process, extents[e].start, extents[e].end, buffer, ROOM);
			rc = count < 0 ? count : 0;
		}
	}
	pagemap_close(&pagemap);
	return rc;
}

int numbers_settle(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	if (!rebuild->options.any_pids)
		return 0;
	size_t unknown = 0;
	for (size_t i = 0; i < process->threads.count; i++) {
		const struct rebuild_thread *thread = process->threads.at[i];
		const Cairn__ThreadPointers *pointers = pointers_of(thread);
		if (thread->plan->thread->ended)
			continue;
		unknown += !settle_own(thread, pointers);
		settle_robust(thread, pointers);
	}
	if (unknown)
		log_warn("process %d (%s): %zu of its threads keep their ids where no known library does; continuing without putting those right",
			 process->newborn.pid, process->plan->process->command, unknown);
	return settle_owners(process, fault);
}
