/* SPDX-License-Identifier: Apache-2.0 */
/* Protection keys of an address space (pkeys(7)): which are allocated, and the one that the kernel takes for mappings with PROT_EXEC alone. Which
 * mapping has which is the mapping's (vma.c), what a thread may do is in its vector registers.
 *
 * Which are allocated only pkey_mprotect(2) tells without a trace: it looks for the key (EINVAL) before it looks for a mapping (ENOMEM;
 * mm/mprotect.c do_mprotect_pkey, 6.18), so it is asked about each key at an address where no mapping can be. pkey_alloc(2) would change the
 * thread's rights. Put back: all keys are allocated before the mappings are made, as a mapping may have one that was freed meanwhile, and those
 * that were free are freed afterwards. Not to be seen: the key for PROT_EXEC alone when nothing is mapped with it any more.
 * Refused: a thread that may not use memory with key 0, as it could not make Cairn's calls. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/processor.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "memory.pb-c.h"
#include "tracee/arch.h"

enum { KEYS = 16, PAGE = 4096 };

/* In the kernel's half of the address space. */
#define NOWHERE UINT64_C(0xffff800000000000)

static uint32_t mapped_keys(const struct frozen_space *space)
{
	uint32_t mapped = 0;
	for (size_t i = 0; i < space->maps.maps.count; i++)
		mapped |= UINT32_C(1) << (space->maps.maps.at[i].protection_key % KEYS);
	return mapped & ~UINT32_C(1);
}

static int refuse_locked_out(const struct frozen_process *process, struct fault *fault)
{
	struct processor processor;
	processor_read(&processor);
	for (size_t i = 0; i < process->threads.count; i++) {
		const struct frozen_thread *thread = process->threads.at[i];
		if (xstate_key_rights(thread->xstate, thread->xstate_size, &processor) & 3)
			return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY,
						   "thread %d: has no right to use memory with protection key 0, so it cannot be asked for its "
						   "state; try again when it has (PKRU)", thread->tid);
	}
	return 0;
}

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note, struct fault *fault)
{
	size_t *note = ARENA_ARRAY(&harvest->arena, size_t, KEYS);
	*ret_note = note;
	for (uint32_t key = 0; key < KEYS; key++)
		note[key] = batch_try(batch, pkey_mprotect, NOWHERE, PAGE, PROT_NONE, key);
	/* Programs whose mappings all have key 0 cannot lock themselves out. */
	return mapped_keys(thread->process->space) ? refuse_locked_out(thread->process, fault) : 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_, struct fault *fault)
{
	const struct frozen_space *space = thread->process->space;
	const size_t *note = note_;
	uint32_t allocated = 0, mapped = mapped_keys(space);
	(void)fault;
	for (uint32_t key = 0; key < KEYS; key++)
		if (batch_result(batch, note[key]) == -ENOMEM)
			allocated |= UINT32_C(1) << key;
	if (allocated <= 1 && !mapped)
		return 0;
	Cairn__ProtectionKeys *message = HARVEST_MESSAGE(harvest, Cairn__ProtectionKeys, cairn__protection_keys__init);
	message->space = space->id;
	message->allocated = allocated;
	message->mapped = mapped;
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (map->protection == PROT_EXEC && map->protection_key && !(allocated >> map->protection_key & 1))
			message->execute_only = (uint32_t)map->protection_key;
	}
	harvest_add(harvest, &kind_protection_keys, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ProtectionKeys *message = (const Cairn__ProtectionKeys *)base;
	if ((message->allocated | message->mapped) >> KEYS || message->execute_only >= KEYS)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "address space %u has impossible protection keys", message->space);
	if (syscall(SYS_pkey_mprotect, NOWHERE, PAGE, PROT_NONE, 0) < 0 && errno == ENOMEM)
		return 0;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "address space %u has protection keys, which this processor or kernel does not have; try a host whose "
			 "/proc/cpuinfo has the flag ospke", message->space);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__ProtectionKeys *message = (const Cairn__ProtectionKeys *)base;
	const uint64_t place = thread->process->code - PAGE; /* kept free, as the stub is */
	(void)fault;
	batch_group(batch, KEYS + 2, 0);
	for (uint32_t key = 1; key < KEYS; key++) {
		if (key != message->execute_only) {
			batch_try(batch, pkey_alloc, 0, 0);
			continue;
		}
		/* The kernel takes the lowest that is free, once for all. */
		batch_call(batch, mmap, place, PAGE, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, UINT64_MAX, 0);
		batch_call(batch, munmap, place, PAGE);
	}
	return 0;
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__ProtectionKeys *message = (const Cairn__ProtectionKeys *)base;
	(void)thread, (void)fd, (void)fault;
	batch_group(batch, KEYS, 0);
	for (uint32_t key = 0; key < KEYS; key++)
		if (!(message->allocated >> key & 1) && key != message->execute_only)
			batch_try(batch, pkey_free, key);
	return 0;
}

const struct kind kind_protection_keys = {
	.name = "protection keys",
	.tag = 80,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__protection_keys__descriptor,
	.owner_field = "space",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
	.connect = connect_,
};
