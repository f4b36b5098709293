/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kernel/pagemap.h"

enum {
	PAGE = PAGES_SIZE,
	UNIT_BYTES = PAGES_MOST * PAGE,
	EXTENTS = 512,
	SLICE_BYTES = 16 << 20, /* what a thread takes at a time */
	SLICES = 64,            /* of one process, where they are small */
};

/* The work of one round, dealt out in slices under the lock. */
struct round {
	struct snapshot *snapshot;
	struct harvest *harvest; /* NULL: none takes guards */
	const struct snapshot_source *sources;
	size_t count;
	pthread_mutex_t lock;
	/* where it stands */
	size_t source;
	uint64_t at;
	pid_t pid;               /* whose pagemap is open, 0: none */
	struct pagemap pagemap;
	size_t workers;          /* how many have begun */
	uint64_t pages;
	bool failed;
	struct fault fault;
};

struct slice {
	const struct snapshot_source *source;
	uint64_t start, end;
};

/* Extents to be read at once, at most UNIT_BYTES. */
struct unit {
	uint32_t count, pages;
	struct { uint64_t address; uint32_t pages; } extents[PAGES_MOST_CHUNKS];
};

/* What a thread has at hand: the memory of the process that it was last at, its buffer, and what a slice came to. */
struct worker {
	struct round *round;
	uint8_t *buffer;
	pid_t pid;
	struct pagemap pagemap;
	int memory; /* /proc/PID/mem, -1: not open */
	const char *file_name;
	int file;   /* the file of that name, -1 */
	struct unit unit;
	page_places fresh;
	page_ranges seen, kept, spoiled;
	uint64_t pages;
	void *cursor; /* of the sink, for pages that are stored already */
};

size_t snapshot_add_store(struct snapshot *snapshot, pid_t pid)
{
	struct snapshot_store *store = vec_add(&snapshot->stores);
	for (size_t i = 0; pid && i < snapshot->parents.count; i++)
		if (snapshot->parents.at[i].pid == pid)
			store->parent_space = snapshot->parents.at[i].space;
	return snapshot->stores.count - 1;
}

void snapshot_finish(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->stores.count; i++) {
		struct snapshot_store *store = &snapshot->stores.at[i];
		vec_finish(&store->places);
		vec_finish(&store->spoiled);
		vec_finish(&store->fresh);
		vec_finish(&store->seen);
		vec_finish(&store->kept);
	}
	vec_finish(&snapshot->stores);
	vec_finish(&snapshot->parents);
	for (size_t i = 0; i < snapshot->buffers.count; i++)
		munmap(snapshot->buffers.at[i], UNIT_BYTES);
	vec_finish(&snapshot->buffers);
	vec_finish(&snapshot->hold.held);
	if (snapshot->hold.memory)
		munmap(snapshot->hold.memory, snapshot->hold.size);
}

void snapshot_hold_back(struct snapshot *snapshot, size_t bytes)
{
	struct snapshot_hold *hold = &snapshot->hold;
	void *memory = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) : MAP_FAILED;
	if (memory == MAP_FAILED)
		return;
	*hold = (struct snapshot_hold){ .memory = memory, .size = bytes };
}

bool snapshot_needs_force(const struct map *map)
{
	return !(map->protection & PROT_READ) || map->pages_shared;
}

bool snapshot_is_private(const struct map *map)
{
	if (map->shared || (map->flags & (MAP_FLAG_IO | MAP_FLAG_PFN)))
		return false;
	return strcmp(map->name, "[vdso]") && strncmp(map->name, "[vvar", 5) && strcmp(map->name, "[vsyscall]");
}

/* ---- dealing out ---- */

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

/* Large mappings may be mostly holes: slices begin where something is. */
static int next_of_memory(struct round *round, const struct snapshot_source *source, struct slice *slice)
{
	uint64_t start = round->at;
	if (source->end - start > SLICE_BYTES && start <= INT64_MAX) {
		int rc = open_pagemap(round, source->pid);
		if (rc == 0)
			rc = pagemap_next(&round->pagemap, start, source->end, &start, &round->fault);
		if (rc < 0)
			return rc;
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

/* Small mappings of one process go to one thread, which opens its memory once. Returns how many. */
static size_t take_slices(struct round *round, struct slice *slices)
{
	uint64_t bytes = 0;
	size_t count = 0;
	pthread_mutex_lock(&round->lock);
	int rc = round->failed ? 0 : deadline_check(round->snapshot->deadline, &round->fault);
	while (rc == 0 && !round->failed && count < SLICES && bytes < SLICE_BYTES) {
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

static void fail(struct round *round, const struct fault *fault)
{
	pthread_mutex_lock(&round->lock);
	if (!round->failed)
		round->fault = *fault;
	round->failed = true;
	pthread_mutex_unlock(&round->lock);
}

/* ---- reading ---- */

static void leave_process(struct worker *worker)
{
	if (worker->pid)
		pagemap_close(&worker->pagemap);
	if (worker->memory >= 0)
		close(worker->memory);
	if (worker->file >= 0)
		close(worker->file);
	worker->pid = 0;
	worker->memory = worker->file = -1;
	worker->file_name = NULL;
}

static int enter_process(struct worker *worker, pid_t pid, struct fault *fault)
{
	if (worker->pid == pid)
		return 0;
	leave_process(worker);
	int rc = pagemap_open(pid, &worker->pagemap, fault);
	worker->pid = rc == 0 ? pid : 0;
	return rc;
}

static int open_memory(struct worker *worker, struct fault *fault)
{
	char path[64];
	if (worker->memory >= 0)
		return 0;
	snprintf(path, sizeof path, "/proc/%d/mem", worker->pid);
	worker->memory = open(path, O_RDONLY | O_CLOEXEC);
	return worker->memory < 0 ? fault_set(fault, fault_class_of(errno), errno, "open %s: %s", path, strerror(errno)) : 0;
}

/* Through a descriptor. @end: where a file may end within the last page. */
static int read_through(int fd, const struct unit *unit, uint64_t shift, bool is_file, uint8_t *buffer, struct fault *fault)
{
	for (uint32_t i = 0; i < unit->count; i++) {
		size_t size = (size_t)unit->extents[i].pages * PAGE, done = 0;
		while (done < size) {
			ssize_t n = pread(fd, buffer + done, size - done,
					  (off_t)(unit->extents[i].address + shift + done));
			if (n < 0 && errno != EINTR)
				return fault_set(fault, fault_class_of(errno), errno, "read memory at 0x%llx: %s",
						 (unsigned long long)(unit->extents[i].address + done), strerror(errno));
			if (n == 0 && !is_file)
				return fault_set(fault, FAULT_FAILED, EIO, "memory at 0x%llx is gone",
						 (unsigned long long)(unit->extents[i].address + done));
			if (n == 0) { /* the last page of a file is not full */
				memset(buffer + done, 0, size - done);
				break;
			}
			done += n > 0 ? (size_t)n : 0;
		}
		buffer += size;
	}
	return 0;
}

static int read_memory(pid_t pid, const struct unit *unit, uint64_t shift, uint8_t *buffer, struct fault *fault)
{
	struct iovec remote[PAGES_MOST_CHUNKS];
	size_t total = 0;
	for (uint32_t i = 0; i < unit->count; i++) {
		remote[i].iov_base = (void *)(uintptr_t)(unit->extents[i].address + shift);
		remote[i].iov_len = (size_t)unit->extents[i].pages * PAGE;
		total += remote[i].iov_len;
	}
	struct iovec local = { buffer, total };
	ssize_t n = process_vm_readv(pid, &local, 1, remote, unit->count, 0);
	if (n == (ssize_t)total)
		return 0;
	int error = n < 0 ? errno : EFAULT;
	return fault_set(fault, fault_class_of(error), error, "process %d: read memory at 0x%llx: %s", pid,
			 (unsigned long long)unit->extents[0].address, strerror(error));
}

static int read_unit(struct worker *worker, const struct snapshot_source *source, struct fault *fault)
{
	if (!source->pid)
		return read_through(source->fd, &worker->unit, 0, true, worker->buffer, fault);
	if (!source->by_force)
		return read_memory(source->pid, &worker->unit, source->shift, worker->buffer, fault);
	int rc = open_memory(worker, fault);
	return rc < 0 ? rc : read_through(worker->memory, &worker->unit, source->shift, false, worker->buffer, fault);
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)page;
	if (words[0] | words[1])
		return false;
	return !memcmp(page, page + 8, PAGE - 8);
}

/* Text that was written to and put back (by debuggers, by Cairn's own foothold) is its file's again: that file, or -1. */
static int original_of(struct worker *worker, const struct map *map)
{
	if (!map || !map->inode || map->deleted || !(map->protection & PROT_EXEC) || (map->protection & PROT_WRITE))
		return -1;
	if (worker->file_name == map->name)
		return worker->file;
	if (worker->file >= 0)
		close(worker->file);
	worker->file = open(map->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	worker->file_name = map->name;
	return worker->file;
}

static bool is_same(const struct map *map, int file, uint64_t address, const uint8_t *page)
{
	uint8_t original[PAGE] = { 0 };
	ssize_t n = pread(file, original, PAGE, (off_t)(address - map->start + map->offset));
	return n > 0 && !memcmp(original, page, PAGE);
}

/* Adds one page, to the run before it if it goes on. */
static void add_known(page_places *places, const struct page_place *page)
{
	struct page_place *last = places->count ? &places->at[places->count - 1] : NULL;
	bool goes_on = last && last->image == page->image && last->block == page->block && last->chunk == page->chunk &&
		       last->first + last->pages == page->first &&
		       last->address + (uint64_t)last->pages * PAGE == page->address;
	if (goes_on)
		last->pages++;
	else
		*vec_add(places) = *page;
}

/* Has the parent this page? Then it is named, and not stored again. */
static bool is_known(const struct snapshot *snapshot, size_t store, void **cursor, uint64_t address, const void *page,
		     page_places *fresh)
{
	const struct page_sink *sink = snapshot->sink;
	uint32_t space = snapshot->stores.at[store].parent_space;
	struct page_place place;
	if (!space || !sink->known || !sink->known(sink->context, cursor, space, address, page, &place))
		return false;
	add_known(fresh, &place);
	return true;
}

/* The whole batch, or nothing: there is no more room. */
static bool hold_batch(struct worker *worker, size_t store, const struct page_batch *batch)
{
	struct round *round = worker->round;
	struct snapshot_hold *hold = &round->snapshot->hold;
	size_t bytes = 0, at;
	for (uint32_t i = 0; i < batch->count; i++)
		bytes += (size_t)batch->chunks[i].pages * PAGE;
	pthread_mutex_lock(&round->lock);
	bool fits = bytes <= hold->size - hold->used;
	at = hold->used;
	hold->used += fits ? bytes : 0;
	for (uint32_t i = 0; fits && i < batch->count; i++) {
		*vec_add(&hold->held) = (struct snapshot_held){ store, batch->chunks[i].address, batch->chunks[i].pages, at };
		at += (size_t)batch->chunks[i].pages * PAGE;
	}
	pthread_mutex_unlock(&round->lock);
	for (uint32_t i = batch->count; fits && i-- > 0;) {
		size_t size = (size_t)batch->chunks[i].pages * PAGE;
		at -= size;
		memcpy(hold->memory + at, batch->chunks[i].data, size);
	}
	return fits;
}

static int put_batch(struct worker *worker, size_t store, struct page_batch *batch, struct fault *fault)
{
	const struct page_sink *sink = worker->round->snapshot->sink;
	uint64_t block;
	if (worker->round->snapshot->hold.size && hold_batch(worker, store, batch)) {
		batch->count = 0;
		return 0;
	}
	int rc = sink->put(sink->context, batch, &block, fault);
	for (uint32_t i = 0; rc == 0 && i < batch->count; i++)
		*vec_add(&worker->fresh) = (struct page_place){
			.address = batch->chunks[i].address, .pages = batch->chunks[i].pages, .block = block, .chunk = (uint16_t)i };
	batch->count = 0;
	return rc;
}

/* Cuts what was read into chunks of pages worth storing. */
static int store_unit(struct worker *worker, const struct snapshot_source *source, struct fault *fault)
{
	const struct map *map = source->map;
	int file = original_of(worker, map), rc = 0;
	bool zeros = map && map->inode; /* what lies below them is not zero */
	const struct snapshot *snapshot = worker->round->snapshot;
	bool held = snapshot->hold.size > 0; /* compared when the program runs again */
	const uint8_t *page = worker->buffer;
	struct page_batch batch;
	batch.count = batch.space = 0;
	for (uint32_t i = 0; rc == 0 && i < worker->unit.count; i++) {
		struct page_chunk *chunk = NULL;
		for (uint32_t p = 0; rc == 0 && p < worker->unit.extents[i].pages; p++, page += PAGE) {
			uint64_t address = worker->unit.extents[i].address + (uint64_t)p * PAGE;
			if ((!zeros && is_zero(page)) || (file >= 0 && is_same(map, file, address, page)) ||
			    (!held && is_known(snapshot, source->store, &worker->cursor, address, page, &worker->fresh))) {
				chunk = NULL;
				continue;
			}
			if (!chunk && batch.count == PAGES_MOST_CHUNKS)
				rc = put_batch(worker, source->store, &batch, fault);
			if (!chunk) {
				chunk = &batch.chunks[batch.count++];
				*chunk = (struct page_chunk){ address, 0, page };
			}
			chunk->pages++;
		}
	}
	return rc == 0 && batch.count ? put_batch(worker, source->store, &batch, fault) : rc;
}

/* A running program may have unmapped what was to be read: that is left to the last round. */
static int flush_unit(struct worker *worker, const struct snapshot_source *source, struct fault *fault)
{
	bool running = source->look == LOOK_PROTECT || source->look == LOOK_WRITTEN;
	if (!worker->unit.count)
		return 0;
	int rc = read_unit(worker, source, fault);
	if (rc < 0 && running) {
		for (uint32_t i = 0; i < worker->unit.count; i++) {
			uint64_t address = worker->unit.extents[i].address;
			*vec_add(&worker->spoiled) = (struct page_range){
				address, address + (uint64_t)worker->unit.extents[i].pages * PAGE };
		}
		rc = 0;
	} else if (rc == 0) {
		rc = store_unit(worker, source, fault);
		worker->pages += worker->unit.pages;
	}
	worker->unit.count = worker->unit.pages = 0;
	return rc;
}

/* ---- looking ---- */

static int add_extent(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end,
		      struct fault *fault)
{
	struct unit *unit = &worker->unit;
	int rc = 0;
	while (rc == 0 && start < end) {
		uint64_t take = (end - start + PAGE - 1) / PAGE;
		if (take > PAGES_MOST - unit->pages)
			take = PAGES_MOST - unit->pages;
		unit->extents[unit->count].address = start;
		unit->extents[unit->count++].pages = (uint32_t)take;
		unit->pages += (uint32_t)take;
		start += take * PAGE;
		if (unit->pages == PAGES_MOST || unit->count == PAGES_MOST_CHUNKS)
			rc = flush_unit(worker, source, fault);
	}
	return rc;
}

static bool is_wanted(const struct map *map, uint32_t categories)
{
	return !(categories & (PAGE_ZERO | PAGE_GUARD)) && !(map->inode && (categories & PAGE_FILE));
}

static int take_extent(struct worker *worker, const struct snapshot_source *source, enum snapshot_look look,
		       const struct page_extent *extent, struct fault *fault)
{
	struct round *round = worker->round;
	if ((extent->categories & PAGE_GUARD) && round->harvest) {
		pthread_mutex_lock(&round->lock);
		*vec_add(&round->harvest->guards) = (struct frozen_guard){ source->space, extent->start, extent->end };
		pthread_mutex_unlock(&round->lock);
	}
	if (look == LOOK_PROTECT || look == LOOK_WRITTEN)
		*vec_add(&worker->seen) = (struct page_range){ extent->start, extent->end };
	if (!is_wanted(source->map, extent->categories))
		return 0;
	if (look == LOOK_LAST && !(extent->categories & PAGE_WRITTEN)) {
		*vec_add(&worker->kept) = (struct page_range){ extent->start, extent->end };
		return 0;
	}
	return add_extent(worker, source, extent->start, extent->end, fault);
}

static int look_through(struct worker *worker, const struct slice *slice, enum snapshot_look look, struct fault *fault)
{
	const struct snapshot_source *source = slice->source;
	struct pagemap *pagemap = &worker->pagemap;
	struct page_extent extents[EXTENTS];
	pagemap->anonymous = !source->map->inode;
	pagemap->tracked = look != LOOK_ALL;
	pagemap->written = look == LOOK_WRITTEN;
	pagemap->protect = look == LOOK_PROTECT || look == LOOK_WRITTEN;
	for (uint64_t at = slice->start; at < slice->end;) {
		int count = pagemap_extents(pagemap, at, slice->end, extents, EXTENTS, &at, fault);
		int rc = count < 0 ? count : 0;
		for (int i = 0; rc == 0 && i < count; i++)
			rc = take_extent(worker, source, look, &extents[i], fault);
		if (rc < 0)
			return rc;
	}
	return flush_unit(worker, source, fault);
}

/* Was something in this slice protected, and then not stored? */
static bool is_spoiled(const struct snapshot_store *store, const struct slice *slice)
{
	for (size_t i = 0; i < store->spoiled.count; i++)
		if (store->spoiled.at[i].start < slice->end && store->spoiled.at[i].end > slice->start)
			return true;
	return false;
}

/* How far the lists were when a slice began. */
struct mark {
	size_t fresh, seen, kept, spoiled;
};
static struct mark mark_of(const struct worker *worker)
{
	return (struct mark){ worker->fresh.count, worker->seen.count, worker->kept.count, worker->spoiled.count };
}

/* Nothing that has been said since counts. */
static void forget(struct worker *worker, struct mark mark)
{
	worker->unit.count = worker->unit.pages = 0;
	worker->fresh.count = mark.fresh;
	worker->seen.count = mark.seen;
	worker->kept.count = mark.kept;
	worker->spoiled.count = mark.spoiled;
}

static int look_at_memory(struct worker *worker, const struct slice *slice, struct fault *fault)
{
	const struct snapshot_source *source = slice->source;
	enum snapshot_look look = source->look;
	const struct mark mark = mark_of(worker);
	int rc = enter_process(worker, source->pid, fault);
	if (look == LOOK_LAST && is_spoiled(&worker->round->snapshot->stores.at[source->store], slice))
		look = LOOK_ALL;
	if (rc == 0)
		rc = look_through(worker, slice, look, fault);
	if (rc == 0 || look == LOOK_ALL)
		return rc;
	/* Not under tracking (any more): the program mapped it anew, moved it, or is another by now. */
	forget(worker, mark);
	if (look == LOOK_LAST)
		return rc == -EPERM ? look_through(worker, slice, LOOK_ALL, fault) : rc;
	*vec_add(&worker->spoiled) = (struct page_range){ slice->start, slice->end };
	return rc == -EPERM || rc == -ESRCH || rc == -ENOENT ? 0 : rc;
}

static int look_at_contents(struct worker *worker, const struct slice *slice, struct fault *fault)
{
	int rc = slice->source->pid ? enter_process(worker, slice->source->pid, fault) : 0;
	if (rc == 0)
		rc = add_extent(worker, slice->source, slice->start, slice->end, fault);
	return rc < 0 ? rc : flush_unit(worker, slice->source, fault);
}

#define VEC_APPEND(to, from)                                             \
	for (size_t append_ = 0; append_ < (from)->count; append_++)     \
		*vec_add(to) = (from)->at[append_]

static void hand_in(struct worker *worker, size_t index)
{
	struct round *round = worker->round;
	pthread_mutex_lock(&round->lock);
	struct snapshot_store *store = &round->snapshot->stores.at[index];
	VEC_APPEND(&store->fresh, &worker->fresh);
	VEC_APPEND(&store->seen, &worker->seen);
	VEC_APPEND(&store->kept, &worker->kept);
	VEC_APPEND(&store->spoiled, &worker->spoiled);
	pthread_mutex_unlock(&round->lock);
	forget(worker, (struct mark){ 0 });
}

/* Each worker has one of its own; NULL: there is no memory. */
static uint8_t *take_buffer(struct round *round)
{
	struct snapshot *snapshot = round->snapshot;
	pthread_mutex_lock(&round->lock);
	size_t index = round->workers++;
	if (index == snapshot->buffers.count) {
		void *memory = mmap(NULL, UNIT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (memory != MAP_FAILED)
			*vec_add(&snapshot->buffers) = memory;
	}
	uint8_t *buffer = index < snapshot->buffers.count ? snapshot->buffers.at[index] : NULL;
	pthread_mutex_unlock(&round->lock);
	return buffer;
}

static void *work(void *context)
{
	struct round *round = context;
	struct worker worker = { .round = round, .memory = -1, .file = -1, .buffer = take_buffer(round) };
	struct slice slices[SLICES];
	size_t count;
	if (!worker.buffer) {
		struct fault fault;
		fault_set(&fault, FAULT_FAILED, ENOMEM, "no memory to copy pages with; try to free some");
		fail(round, &fault);
		return NULL;
	}
	while ((count = take_slices(round, slices)) > 0)
		for (size_t i = 0; i < count; i++) {
			struct fault fault;
			int rc = slices[i].source->map ? look_at_memory(&worker, &slices[i], &fault) :
							 look_at_contents(&worker, &slices[i], &fault);
			if (rc < 0)
				fail(round, &fault);
			if (i + 1 == count || slices[i + 1].source->store != slices[i].source->store)
				hand_in(&worker, slices[i].source->store);
		}
	pthread_mutex_lock(&round->lock);
	round->pages += worker.pages;
	pthread_mutex_unlock(&round->lock);
	leave_process(&worker);
	vec_finish(&worker.fresh);
	vec_finish(&worker.seen);
	vec_finish(&worker.kept);
	vec_finish(&worker.spoiled);
	if (worker.cursor)
		round->snapshot->sink->forget(worker.cursor);
	return NULL;
}

/* What a round came to becomes the store's state. */
static void settle_store(struct snapshot_store *store)
{
	places_settle(&store->fresh);
	if (store->last) {
		ranges_settle(&store->kept);
		places_intersect(&store->places, &store->kept);
	} else {
		ranges_settle(&store->seen);
		places_subtract(&store->places, &store->seen);
	}
	places_merge(&store->places, &store->fresh);
	ranges_settle(&store->spoiled);
	vec_finish(&store->fresh);
	vec_finish(&store->seen);
	vec_finish(&store->kept);
}

int snapshot_round(struct snapshot *snapshot, const struct snapshot_source *sources, size_t count,
		   struct harvest *harvest, uint64_t *ret_pages, struct fault *fault)
{
	enum { MOST_THREADS = 16 };
	struct round round = {
		.snapshot = snapshot, .harvest = harvest, .sources = sources, .count = count, .lock = PTHREAD_MUTEX_INITIALIZER,
	};
	pthread_t workers[MOST_THREADS];
	unsigned started = 0, threads = snapshot->threads > MOST_THREADS ? MOST_THREADS : snapshot->threads;
	while (started + 1 < threads && pthread_create(&workers[started], NULL, work, &round) == 0)
		started++;
	work(&round);
	for (unsigned i = 0; i < started; i++)
		pthread_join(workers[i], NULL);
	if (round.pid)
		pagemap_close(&round.pagemap);
	*ret_pages = round.pages;
	if (round.failed) {
		*fault = round.fault;
		return fault->error ? -fault->error : -EIO;
	}
	for (size_t i = 0; i < snapshot->stores.count; i++)
		settle_store(&snapshot->stores.at[i]);
	return 0;
}

/* ---- the frozen tree ---- */

typedef VEC(struct snapshot_source) source_list;

static void add_space(struct snapshot *snapshot, struct frozen_space *space, source_list *sources)
{
	if (!space->tracked)
		space->store = snapshot_add_store(snapshot, space->pid);
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (snapshot_is_private(map))
			*vec_add(sources) = (struct snapshot_source){
				.store = space->store, .pid = space->pid, .fd = -1, .space = space->id, .start = map->start,
				.end = map->end, .map = map, .by_force = snapshot_needs_force(map),
				.look = space->tracked && !map->inode ? LOOK_LAST : LOOK_ALL };
	}
}

static void add_contents(struct snapshot *snapshot, struct contents *contents, source_list *sources)
{
	contents->store = snapshot_add_store(snapshot, 0);
	for (size_t v = 0; v < contents->views.count; v++) {
		const struct contents_view *view = &contents->views.at[v];
		*vec_add(sources) = (struct snapshot_source){
			.store = contents->store, .pid = view->pid, .fd = -1, .start = view->offset, .end = view->offset + view->size,
			.shift = view->address - view->offset, .by_force = view->force, .look = LOOK_ALL };
	}
	if (contents->fd >= 0)
		*vec_add(sources) = (struct snapshot_source){
			.store = contents->store, .fd = contents->fd, .end = contents->size, .look = LOOK_ALL };
}

static int compare_guards(const void *a, const void *b)
{
	const struct frozen_guard *left = a, *right = b;
	if (left->space != right->space)
		return left->space < right->space ? -1 : 1;
	return left->start < right->start ? -1 : left->start > right->start;
}

int snapshot_tree(struct snapshot *snapshot, struct harvest *harvest, struct fault *fault)
{
	source_list sources = { 0 };
	uint64_t pages;
	for (size_t i = 0; i < harvest->spaces.count; i++)
		add_space(snapshot, harvest->spaces.at[i], &sources);
	for (size_t i = 0; i < harvest->contents.count; i++)
		add_contents(snapshot, &harvest->contents.at[i], &sources);
	for (size_t i = 0; i < snapshot->stores.count; i++)
		snapshot->stores.at[i].last = true;
	int rc = snapshot_round(snapshot, sources.at, sources.count, harvest, &pages, fault);
	vec_finish(&sources);
	if (rc == 0 && harvest->guards.count)
		qsort(harvest->guards.at, harvest->guards.count, sizeof *harvest->guards.at, compare_guards);
	return rc;
}

/* A batch of what was held back, and whose each chunk is. */
struct giving {
	struct snapshot *snapshot;
	struct page_batch batch;
	size_t stores[PAGES_MOST];
	uint32_t pages;
};

static int give_batch(struct giving *giving, struct fault *fault)
{
	const struct page_sink *sink = giving->snapshot->sink;
	uint64_t block;
	int rc = giving->batch.count ? sink->put(sink->context, &giving->batch, &block, fault) : 0;
	for (uint32_t c = 0; rc == 0 && c < giving->batch.count; c++)
		*vec_add(&giving->snapshot->stores.at[giving->stores[c]].fresh) = (struct page_place){
			.address = giving->batch.chunks[c].address, .pages = giving->batch.chunks[c].pages, .block = block,
			.chunk = (uint16_t)c };
	giving->batch.count = giving->pages = 0;
	return rc;
}

/* @goes_on: it follows the one before it in the same mapping. */
static int give_page(struct giving *giving, size_t store, uint64_t address, const uint8_t *page, bool goes_on, struct fault *fault)
{
	struct page_batch *batch = &giving->batch;
	struct page_chunk *last = batch->count ? &batch->chunks[batch->count - 1] : NULL;
	int rc = 0;
	if (goes_on && last && giving->pages < PAGES_MOST && last->address + (uint64_t)last->pages * PAGE == address) {
		last->pages++;
		giving->pages++;
		return 0;
	}
	if (giving->pages == PAGES_MOST || batch->count == PAGES_MOST_CHUNKS)
		rc = give_batch(giving, fault);
	giving->stores[batch->count] = store;
	batch->chunks[batch->count++] = (struct page_chunk){ address, 1, page };
	giving->pages++;
	return rc;
}

int snapshot_give_out(struct snapshot *snapshot, struct fault *fault)
{
	struct snapshot_hold *hold = &snapshot->hold;
	struct giving *giving = memory_new(sizeof *giving);
	void *cursor = NULL;
	int rc = 0;
	giving->snapshot = snapshot;
	for (size_t i = 0; rc == 0 && i < hold->held.count; i++) {
		const struct snapshot_held *held = &hold->held.at[i];
		page_places *fresh = &snapshot->stores.at[held->store].fresh;
		for (uint32_t p = 0; rc == 0 && p < held->pages; p++) {
			const uint8_t *page = hold->memory + held->at + (size_t)p * PAGE;
			uint64_t address = held->address + (uint64_t)p * PAGE;
			if (!is_known(snapshot, held->store, &cursor, address, page, fresh))
				rc = give_page(giving, held->store, address, page, p > 0, fault);
		}
	}
	if (rc == 0)
		rc = give_batch(giving, fault);
	for (size_t i = 0; rc == 0 && i < snapshot->stores.count; i++) {
		struct snapshot_store *store = &snapshot->stores.at[i];
		places_settle(&store->fresh);
		places_merge(&store->places, &store->fresh);
		vec_finish(&store->fresh);
	}
	if (cursor)
		snapshot->sink->forget(cursor);
	free(giving);
	hold->held.count = hold->used = 0;
	return rc;
}

int snapshot_late_records(struct harvest *harvest, struct fault *fault)
{
	int rc = 0;
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++)
		rc = (*kind)->capture_late ? (*kind)->capture_late(harvest, fault) : 0;
	return rc;
}
