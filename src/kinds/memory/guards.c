/* SPDX-License-Identifier: Apache-2.0 */
/* Guard regions: ranges of a mapping that fault when touched (madvise(2) MADV_GUARD_INSTALL, 6.13). They are not in
 * /proc/PID/smaps but among the pages (PAGE_IS_GUARD, 6.15; before that they look like pages swapped out that cannot be read, and the
 * checkpoint fails). Put back by the same advice, after the contents. */
#include <errno.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

enum { MADV_GUARD_INSTALL_ = 102 }; /* include/uapi/asm-generic/mman-common.h, 6.13 */

/* They were met in the order of spaces: one record for each. */
static int capture_late(struct harvest *harvest, struct fault *fault)
{
	(void)fault;
	for (size_t i = 0; i < harvest->guards.count;) {
		Cairn__Guards *message = HARVEST_MESSAGE(harvest, Cairn__Guards, cairn__guards__init);
		size_t end = i;
		message->space = harvest->guards.at[i].space;
		while (end < harvest->guards.count && harvest->guards.at[end].space == message->space)
			end++;
		message->ranges = ARENA_ARRAY(&harvest->arena, uint64_t, 2 * (end - i));
		for (; i < end; i++) {
			message->ranges[message->n_ranges++] = harvest->guards.at[i].start;
			message->ranges[message->n_ranges++] = harvest->guards.at[i].end;
		}
		harvest_add(harvest, &kind_guards, &message->base);
	}
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Guards *message = (const Cairn__Guards *)base;
	for (size_t i = 0; i + 1 < message->n_ranges; i += 2)
		if (message->ranges[i] >= message->ranges[i + 1] || (message->ranges[i] | message->ranges[i + 1]) & 4095)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "a guard region has impossible addresses");
	return message->n_ranges % 2 ? fault_set(fault, FAULT_IMAGE, EINVAL, "a guard region has no end") : 0;
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch,
		    struct fault *fault)
{
	const Cairn__Guards *message = (const Cairn__Guards *)base;
	(void)thread, (void)fd, (void)fault;
	for (size_t i = 0; i + 1 < message->n_ranges; i += 2)
		batch_call(batch, madvise, message->ranges[i], message->ranges[i + 1] - message->ranges[i],
			   MADV_GUARD_INSTALL_);
	return 0;
}

const struct kind kind_guards = {
	.name = "guard regions",
	.tag = 36,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__guards__descriptor,
	.owner_field = "space",
	.capture_late = capture_late,
	.check = check,
	.connect = connect_,
};
