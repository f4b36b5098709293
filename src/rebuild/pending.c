/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/pending.h"

void pending_add(struct pending *pending, uint64_t start, uint64_t end, uint64_t old)
{
	if (start < end)
		*vec_add(&pending->parts) = (struct pending_part){ start, end, old };
}

/* Cuts [@start, @end) out; what was there is added to @ret_cut (may be NULL). */
static void cut(struct pending *pending, uint64_t start, uint64_t end, struct pending *ret_cut)
{
	for (size_t i = 0; i < pending->parts.count; i++) {
		struct pending_part part = pending->parts.at[i];
		uint64_t from = part.start > start ? part.start : start, to = part.end < end ? part.end : end;
		if (from >= to)
			continue;
		pending->parts.at[i] = pending->parts.at[--pending->parts.count];
		if (ret_cut)
			pending_add(ret_cut, from, to, part.old + (from - part.start));
		pending_add(pending, part.start, from, part.old);
		pending_add(pending, to, part.end, part.old + (to - part.start));
		i--; /* another is in its place now; what was added lies outside */
	}
}

void pending_remove(struct pending *pending, uint64_t start, uint64_t end)
{
	cut(pending, start, end, NULL);
}

void pending_move(struct pending *pending, uint64_t from, uint64_t to, uint64_t size)
{
	struct pending moved = { 0 };
	cut(pending, from, from + size, &moved);
	cut(pending, to, to + size, NULL);
	for (size_t i = 0; i < moved.parts.count; i++) {
		const struct pending_part *part = &moved.parts.at[i];
		pending_add(pending, part->start - from + to, part->end - from + to, part->old);
	}
	vec_finish(&moved.parts);
}

bool pending_old(const struct pending *pending, uint64_t address, uint64_t *ret_old)
{
	for (size_t i = 0; i < pending->parts.count; i++) {
		const struct pending_part *part = &pending->parts.at[i];
		if (address < part->start || address >= part->end)
			continue;
		*ret_old = part->old + (address - part->start);
		return true;
	}
	return false;
}

void pending_copy(const struct pending *pending, struct pending *ret_copy)
{
	*ret_copy = (struct pending){ 0 };
	for (size_t i = 0; i < pending->parts.count; i++)
		*vec_add(&ret_copy->parts) = pending->parts.at[i];
}
