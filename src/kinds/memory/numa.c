/* SPDX-License-Identifier: Apache-2.0 */
/* Memory policies (numa(7)): of mappings (mbind(2)) and of threads (set_mempolicy(2)), asked by get_mempolicy(2), put back before memory is filled, or
 * before the thread runs. Nodes that this host does not have are left out; where none is left, memory comes from anywhere, with a warning.
 * Not to be seen, and not put back: the home node (set_mempolicy_home_node(2)); not asked: thousands of mappings where memory has only one node. /proc/PID/numa_maps would tell the rest as well, but it counts every
 * page. */
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

enum { NODES = 1024, WORDS = NODES / 64 };

/* As get_mempolicy(2) answers. */
struct policy {
	int32_t mode, zero;
	uint64_t nodes[WORDS];
};

static struct batch_place add_question(struct batch *batch, uint64_t address, uint64_t flags)
{
	batch_group(batch, 1, sizeof(struct policy) + 16);
	struct batch_place place = batch_room(batch, sizeof(struct policy));
	batch_try(batch, get_mempolicy, place.address + offsetof(struct policy, mode), place.address + offsetof(struct policy, nodes),
		  NODES, address, flags);
	return place;
}

static struct policy answer(const struct batch *batch, struct batch_place place)
{
	struct policy policy;
	memcpy(&policy, batch_bytes(batch, place), sizeof policy);
	return policy;
}

/* Of @policy, without the zeros at its end. */
static ProtobufCBinaryData nodes_of(struct harvest *harvest, const struct policy *policy)
{
	size_t words = WORDS;
	while (words && !policy->nodes[words - 1])
		words--;
	return (ProtobufCBinaryData){ words * sizeof *policy->nodes, arena_copy(&harvest->arena, policy->nodes, words * sizeof *policy->nodes) };
}

static bool is_possible(uint32_t mode, const ProtobufCBinaryData *nodes)
{
	return (mode & ~(uint32_t)MPOL_MODE_FLAGS) < 64 && nodes->len <= sizeof(uint64_t[WORDS]) && nodes->len % sizeof(uint64_t) == 0;
}

/* The nodes of an image that are here. Which number is which node may have changed: what is asked for is only where memory should come from. */
static struct policy policy_here(uint32_t mode, const ProtobufCBinaryData *nodes, const char *whose)
{
	struct policy policy = { .mode = (int32_t)mode };
	uint64_t here[WORDS] = { 0 }, wanted = 0, found = 0;
	if (nodes->len)
		memcpy(policy.nodes, nodes->data, nodes->len);
	if (syscall(SYS_get_mempolicy, NULL, here, NODES, 0, MPOL_F_MEMS_ALLOWED) < 0)
		return policy;
	/* With MPOL_F_RELATIVE_NODES the numbers are no nodes. */
	for (size_t i = 0; i < WORDS && !(mode & MPOL_F_RELATIVE_NODES); i++) {
		wanted |= policy.nodes[i];
		policy.nodes[i] &= here[i];
		found |= policy.nodes[i];
	}
	if (wanted && !found) {
		log_warn("%s: its memory policy names only nodes that this host does not have; continuing without it", whose);
		policy.mode = MPOL_DEFAULT;
	}
	return policy;
}

/* ---- of mappings ---- */

/* Memory of its own, or of a shared object: a file's pages are where they are. */
static bool has_policy(const struct map *map)
{
	return map_is_program(map) && (!map->inode || (map->flags & MAP_FLAG_MAY_WRITE));
}

/* A call for each mapping takes 4 us and more: where there are very many, and only one node that memory could come from, the answers would change
 * nothing. */
static bool is_worth_asking(const struct map_list *list)
{
	enum { MANY = 4096 };
	uint64_t here[WORDS] = { 0 };
	unsigned count = 0;
	if (list->maps.count <= MANY || syscall(SYS_get_mempolicy, NULL, here, NODES, 0, MPOL_F_MEMS_ALLOWED) < 0)
		return true;
	for (size_t i = 0; i < WORDS; i++)
		count += (unsigned)__builtin_popcountll(here[i]);
	return count > 1;
}

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note, struct fault *fault)
{
	const struct map_list *list = &thread->process->space->maps;
	struct batch_place *note = ARENA_ARRAY(&harvest->arena, struct batch_place, list->maps.count + 1);
	bool asks = is_worth_asking(list);
	(void)fault;
	for (size_t i = 0; asks && i < list->maps.count; i++)
		if (has_policy(&list->maps.at[i]))
			note[i] = add_question(batch, list->maps.at[i].start, MPOL_F_ADDR);
	*ret_note = note;
	return 0;
}

static void add_range(struct harvest *harvest, Cairn__MemoryPolicies *message, const struct map *map, const struct policy *policy)
{
	Cairn__MemoryPolicies__Range *range = HARVEST_MESSAGE(harvest, Cairn__MemoryPolicies__Range, cairn__memory_policies__range__init);
	range->start = map->start;
	range->end = map->end;
	range->mode = (uint32_t)policy->mode;
	range->nodes = nodes_of(harvest, policy);
	message->ranges[message->n_ranges++] = range;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_, struct fault *fault)
{
	const struct map_list *list = &thread->process->space->maps;
	const struct batch_place *note = note_;
	Cairn__MemoryPolicies *message = NULL;
	(void)fault;
	for (size_t i = 0; i < list->maps.count; i++) {
		struct policy policy = note[i].address ? answer(batch, note[i]) : (struct policy){ 0 };
		if (policy.mode == MPOL_DEFAULT)
			continue;
		if (!message) {
			message = HARVEST_MESSAGE(harvest, Cairn__MemoryPolicies, cairn__memory_policies__init);
			message->space = thread->process->space->id;
			message->ranges = ARENA_ARRAY(&harvest->arena, Cairn__MemoryPolicies__Range *, list->maps.count);
			harvest_add(harvest, &kind_memory_policies, &message->base);
		}
		add_range(harvest, message, &list->maps.at[i], &policy);
	}
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__MemoryPolicies *message = (const Cairn__MemoryPolicies *)base;
	for (size_t i = 0; i < message->n_ranges; i++) {
		const Cairn__MemoryPolicies__Range *range = message->ranges[i];
		if (range->start >= range->end || (range->start | range->end) & 4095 || !is_possible(range->mode, &range->nodes))
			return fault_set(fault, FAULT_IMAGE, EINVAL, "the memory policy of 0x%llx has impossible values",
					 (unsigned long long)range->start);
	}
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__MemoryPolicies *message = (const Cairn__MemoryPolicies *)base;
	(void)thread, (void)fault;
	for (size_t i = 0; i < message->n_ranges; i++) {
		const Cairn__MemoryPolicies__Range *range = message->ranges[i];
		char whose[64];
		snprintf(whose, sizeof whose, "mapping 0x%llx", (unsigned long long)range->start);
		struct policy policy = policy_here(range->mode, &range->nodes, whose);
		batch_group(batch, 1, sizeof policy.nodes + 16);
		struct batch_place nodes = batch_data(batch, policy.nodes, sizeof policy.nodes);
		if (policy.mode)
			batch_try(batch, mbind, range->start, range->end - range->start, (uint64_t)policy.mode, nodes.address, NODES, 0);
	}
	return 0;
}

const struct kind kind_memory_policies = {
	.name = "memory policies",
	.tag = 82,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__memory_policies__descriptor,
	.owner_field = "space",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};

/* ---- of a thread ---- */

static int ask_thread(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note, struct fault *fault)
{
	struct batch_place *note = ARENA_NEW(&harvest->arena, struct batch_place);
	(void)thread, (void)fault;
	*note = add_question(batch, 0, 0);
	*ret_note = note;
	return 0;
}

static int capture_thread(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note, struct fault *fault)
{
	struct policy policy = answer(batch, *(const struct batch_place *)note);
	(void)fault;
	if (policy.mode == MPOL_DEFAULT)
		return 0;
	Cairn__ThreadMemoryPolicy *message = HARVEST_MESSAGE(harvest, Cairn__ThreadMemoryPolicy, cairn__thread_memory_policy__init);
	message->tid = (uint32_t)thread->tid;
	message->mode = (uint32_t)policy.mode;
	message->nodes = nodes_of(harvest, &policy);
	harvest_add(harvest, &kind_thread_memory_policy, &message->base);
	return 0;
}

static int check_thread(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ThreadMemoryPolicy *message = (const Cairn__ThreadMemoryPolicy *)base;
	return is_possible(message->mode, &message->nodes) ? 0 :
	       fault_set(fault, FAULT_IMAGE, EINVAL, "the memory policy of thread %u has impossible values", message->tid);
}

static int rebuild_thread(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__ThreadMemoryPolicy *message = (const Cairn__ThreadMemoryPolicy *)base;
	char whose[64];
	(void)thread, (void)fault;
	snprintf(whose, sizeof whose, "thread %u", message->tid);
	struct policy policy = policy_here(message->mode, &message->nodes, whose);
	struct batch_place nodes = batch_data(batch, policy.nodes, sizeof policy.nodes);
	if (policy.mode)
		batch_try(batch, set_mempolicy, (uint64_t)policy.mode, nodes.address, NODES);
	return 0;
}

const struct kind kind_thread_memory_policy = {
	.name = "memory policy of a thread",
	.tag = 83,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__thread_memory_policy__descriptor,
	.owner_field = "tid",
	.ask = ask_thread,
	.capture = capture_thread,
	.check = check_thread,
	.rebuild = rebuild_thread,
};
