/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed mappings (mseal(2), 6.10; VmFlags "sl" in /proc/PID/smaps): nobody can change them any more, Cairn included, so that this is the last thing
 * that is done to an address space. */
#include <errno.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

#ifndef __NR_mseal
#define __NR_mseal 462
#endif

static void add_space(struct harvest *harvest, const struct frozen_space *space)
{
	Cairn__Seals *message = NULL;
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (!(map->flags & MAP_FLAG_SEALED) || !map_is_program(map))
			continue;
		if (!message) {
			message = HARVEST_MESSAGE(harvest, Cairn__Seals, cairn__seals__init);
			message->space = space->id;
			message->ranges = ARENA_ARRAY(&harvest->arena, uint64_t, 2 * space->maps.maps.count);
			harvest_add(harvest, &kind_seals, &message->base);
		}
		message->ranges[message->n_ranges++] = map->start;
		message->ranges[message->n_ranges++] = map->end;
	}
}

/* Behind all other records of each space. */
static int capture_late(struct harvest *harvest, struct fault *fault)
{
	(void)fault;
	for (size_t i = 0; i < harvest->spaces.count; i++)
		add_space(harvest, harvest->spaces.at[i]);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Seals *message = (const Cairn__Seals *)base;
	for (size_t i = 0; i + 1 < message->n_ranges; i += 2)
		if (message->ranges[i] >= message->ranges[i + 1] || (message->ranges[i] | message->ranges[i + 1]) & 4095)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "a seal has impossible addresses");
	return message->n_ranges % 2 ? fault_set(fault, FAULT_IMAGE, EINVAL, "a seal has no end") : 0;
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__Seals *message = (const Cairn__Seals *)base;
	(void)thread, (void)fd, (void)fault;
	for (size_t i = 0; i + 1 < message->n_ranges; i += 2)
		batch_call(batch, mseal, message->ranges[i], message->ranges[i + 1] - message->ranges[i], 0);
	return 0;
}

const struct kind kind_seals = {
	.name = "sealed mappings",
	.tag = 84,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__seals__descriptor,
	.owner_field = "space",
	.capture_late = capture_late,
	.check = check,
	.connect = connect_,
};
