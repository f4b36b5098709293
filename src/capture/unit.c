/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a unit of extents at once and stores those of its pages that are worth it. */
#include "capture/round.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"

void worker_leave(struct worker *worker)
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

int worker_enter(struct worker *worker, pid_t pid, struct fault *fault)
{
	if (worker->pid == pid)
		return 0;
	worker_leave(worker);
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

bool unit_is_known(const struct snapshot *snapshot, size_t store, void **cursor, uint64_t address, const void *page,
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

static int put_batch(struct worker *worker, size_t store, struct page_batch *batch, struct fault *fault)
{
	const struct page_sink *sink = worker->round->snapshot->sink;
	if (worker->round->snapshot->hold.size && hold_batch(worker->round, store, batch)) {
		batch->count = 0;
		return 0;
	}
	int rc = sink->put(sink->context, batch, &worker->fresh, fault);
	batch->count = 0;
	return rc;
}

/* Cuts what was read into chunks of pages worth storing. */
static int store_unit(struct worker *worker, const struct snapshot_source *source, struct fault *fault)
{
	const struct map *map = source->map;
	int file = original_of(worker, map), rc = 0;
	bool zeros = map && map->inode && !map_is_huge_anonymous(map); /* what lies below them is not zero */
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
			    (!held && unit_is_known(snapshot, source->store, &worker->cursor, address, page, &worker->fresh))) {
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

int unit_flush(struct worker *worker, const struct snapshot_source *source, struct fault *fault)
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
		progress_add(worker->round->snapshot->progress, (uint64_t)worker->unit.pages * PAGE);
	}
	worker->unit.count = worker->unit.pages = 0;
	return rc;
}

int unit_add(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end,
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
			rc = unit_flush(worker, source, fault);
	}
	return rc;
}
