/* SPDX-License-Identifier: Apache-2.0 */
/* Deals out the work of a round in slices. */
#include "capture/round.h"

#include <errno.h>
#include <unistd.h>

static int open_pagemap(struct round *round, pid_t pid)
{
	if (round->pid == pid)
		return 0;
	if (round->pid)
		pagemap_close(&round->pagemap);
	round->pid = 0;
	int rc = pagemap_open(pid, &round->pagemap, &round->fault);
	round->pid = rc == 0 ? pid : 0;
	return rc;
}

/* 1: a slice; 0: no more of this source. */
static int next_of_contents(struct round *round, const struct snapshot_source *source, struct slice *slice)
{
	off_t data = lseek(source->fd, (off_t)round->at, SEEK_DATA);
	if (data < 0 || (uint64_t)data >= source->end)
		return 0;
	off_t hole = lseek(source->fd, data, SEEK_HOLE);
	slice->start = (uint64_t)data & ~(uint64_t)(PAGE - 1);
	slice->end = hole < 0 || (uint64_t)hole > source->end ? source->end : (uint64_t)hole;
	return 1;
}

/* What the views name is there. */
static int next_of_view(const struct round *round, const struct snapshot_source *source, struct slice *slice)
{
	slice->start = round->at;
	slice->end = source->end;
	return 1;
}

/* Large mappings may be mostly holes: slices begin where something is. Of a program that runs and has just ended, they begin anywhere: who takes them sees it. */
static int next_of_memory(struct round *round, const struct snapshot_source *source, struct slice *slice)
{
	uint64_t start = round->at;
	if (source->end - start > SLICE_BYTES && start <= INT64_MAX && !source->map->image_inode) {
		int rc = open_pagemap(round, source->pid);
		if (rc == 0)
			rc = pagemap_next(&round->pagemap, round->at, source->end, &start, &round->fault);
		if (rc < 0 && !source_has_ended(source, rc))
			return rc;
		start = rc < 0 ? round->at : start;
	}
	slice->start = start;
	slice->end = source->end;
	return start < source->end;
}

static int next_slice(struct round *round, struct slice *slice)
{
	for (; round->sources && round->source < round->count; round->source++, round->at = 0) {
		const struct snapshot_source *source = &round->sources[round->source];
		if (round->at < source->start)
			round->at = source->start;
		if (round->at >= source->end)
			continue;
		slice->source = source;
		int rc = source->map ? next_of_memory(round, source, slice) :
			 source->pid ? next_of_view(round, source, slice) : next_of_contents(round, source, slice);
		if (rc == 0)
			continue;
		if (slice->end - slice->start > SLICE_BYTES)
			slice->end = slice->start + SLICE_BYTES;
		round->at = (slice->end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
		return rc;
	}
	return 0;
}

size_t round_take_slices(struct round *round, struct slice *slices)
{
	uint64_t bytes = 0;
	size_t count = 0;
	pthread_mutex_lock(&round->lock);
	int rc = round->failed ? 0 : deadline_check(round->snapshot->deadline, &round->fault);
	while (rc == 0 && !round->failed && count < ROUND_SLICES && bytes < SLICE_BYTES) {
		rc = next_slice(round, &slices[count]);
		if (rc <= 0)
			break;
		bytes += slices[count].end - slices[count].start;
		rc = 0;
		count++;
		const struct snapshot_source *next = round->source < round->count ? &round->sources[round->source] : NULL;
		/* The source that was at work may be at its end: the one behind it is the next. */
		if (next && round->at >= next->end)
			next = round->source + 1 < round->count ? next + 1 : NULL;
		if (next && next->pid != slices[0].source->pid)
			break;
	}
	if (rc < 0)
		round->failed = true;
	pthread_mutex_unlock(&round->lock);
	return rc < 0 ? 0 : count;
}
