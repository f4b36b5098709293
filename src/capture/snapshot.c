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
};

/* Work for one thread: extents of one source, together at most UNIT_BYTES and PAGES_MOST_CHUNKS extents. */
struct unit {
	uint32_t space;
	pid_t pid;         /* 0: contents */
	int fd;            /* of contents; or /proc/PID/mem where reading needs force (no PROT_READ); or -1 */
	bool zeros;        /* pages full of zeros are stored as well: what lies below them is not zero */
	const char *same_as; /* a file: pages equal to it are not stored */
	uint64_t shift;    /* from the addresses of the extents to where they are read */
	uint64_t same_address, same_offset; /* address of the mapping, and where that lies in the file */
	uint32_t count;
	struct { uint64_t address; uint32_t pages; } extents[PAGES_MOST_CHUNKS];
};

/* Walks spaces, mappings and extents; gives out units under a lock. */
struct producer {
	struct harvest *harvest;
	pthread_mutex_t lock;
	const struct page_sink *sink;
	const struct deadline *deadline;
	bool failed;
	struct fault fault;
	/* where it stands */
	size_t space, map, contents, view;
	uint64_t at;             /* in the mapping or contents */
	struct pagemap pagemap;
	bool pagemap_open;
	int memory;              /* /proc/PID/mem of the space, -1 */
	struct page_extent extents[EXTENTS];
	int extent_count, extent;
	uint64_t scanned_to;
};

/* Are pages of this mapping to be stored? Everything shared is an object of its own. */
static bool is_source(const struct map *map)
{
	if (map->shared || (map->flags & (MAP_FLAG_IO | MAP_FLAG_PFN)))
		return false;
	return strcmp(map->name, "[vdso]") && strncmp(map->name, "[vvar", 5) && strcmp(map->name, "[vsyscall]");
}

static bool is_wanted(const struct map *map, uint32_t categories)
{
	if (categories & (PAGE_ZERO | PAGE_GUARD))
		return false;
	return !(map->inode && (categories & PAGE_FILE));
}

static int next_extents(struct producer *producer, const struct frozen_space *space, const struct map *map)
{
	producer->extent = producer->extent_count = 0;
	if (!producer->pagemap_open) {
		int rc = pagemap_open(space->pid, &producer->pagemap, &producer->fault);
		if (rc < 0)
			return rc;
		producer->pagemap_open = true;
	}
	producer->pagemap.anonymous = !map->inode;
	int count = pagemap_extents(&producer->pagemap, producer->at, map->end, producer->extents, EXTENTS,
				    &producer->at, &producer->fault);
	if (count < 0)
		return count;
	producer->extent_count = count;
	return 0;
}

static void leave_space(struct producer *producer)
{
	if (producer->pagemap_open)
		pagemap_close(&producer->pagemap);
	producer->pagemap_open = false;
	if (producer->memory >= 0)
		close(producer->memory);
	producer->memory = -1;
}

/* Text that was written to and put back (by debuggers, by Cairn's own foothold) is its file's again. */
static void compare_with_file(struct unit *unit, const struct map *map)
{
	if (!map->inode || map->deleted || !(map->protection & PROT_EXEC) || (map->protection & PROT_WRITE))
		return;
	unit->same_as = map->name;
	unit->same_address = map->start;
	unit->same_offset = map->offset;
}

static int open_memory(struct producer *producer, pid_t pid, int *ret_fd)
{
	if (producer->memory < 0) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/mem", pid);
		producer->memory = open(path, O_RDONLY | O_CLOEXEC);
		if (producer->memory < 0)
			return fault_set(&producer->fault, fault_class_of(errno), errno, "open %s: %s", path,
					 strerror(errno));
	}
	/* The unit outlives the producer's stay in this space. */
	*ret_fd = fcntl(producer->memory, F_DUPFD_CLOEXEC, 0);
	return *ret_fd < 0 ? fault_set(&producer->fault, FAULT_FAILED, errno, "dup: %s", strerror(errno)) : 0;
}

/* Takes as much of the current extents as fits. */
static uint32_t fill_unit(struct producer *producer, const struct map *map, struct unit *unit)
{
	uint32_t pages = 0;
	while (producer->extent < producer->extent_count && unit->count < PAGES_MOST_CHUNKS && pages < PAGES_MOST) {
		struct page_extent *extent = &producer->extents[producer->extent];
		if (extent->categories & PAGE_GUARD)
			*vec_add(&producer->harvest->guards) = (struct frozen_guard){ unit->space, extent->start, extent->end };
		if (!is_wanted(map, extent->categories)) {
			producer->extent++;
			continue;
		}
		uint64_t take = (extent->end - extent->start) / PAGE;
		if (take > PAGES_MOST - pages)
			take = PAGES_MOST - pages;
		unit->extents[unit->count].address = extent->start;
		unit->extents[unit->count++].pages = (uint32_t)take;
		pages += (uint32_t)take;
		extent->start += take * PAGE;
		if (extent->start == extent->end)
			producer->extent++;
	}
	return pages;
}

/* 1: a unit; 0: no more of memory. */
static int next_memory_unit(struct producer *producer, struct unit *unit)
{
	const struct harvest *harvest = producer->harvest;
	for (; producer->space < harvest->spaces.count; producer->space++, producer->map = 0, leave_space(producer)) {
		const struct frozen_space *space = harvest->spaces.at[producer->space];
		for (; producer->map < space->maps.maps.count; producer->map++, producer->at = 0) {
			const struct map *map = &space->maps.maps.at[producer->map];
			if (!is_source(map))
				continue;
			if (producer->at < map->start) {
				producer->at = map->start;
				producer->extent = producer->extent_count = 0;
			}
			for (;;) {
				*unit = (struct unit){ .space = space->id, .pid = space->pid, .fd = -1 };
				if (fill_unit(producer, map, unit)) {
					unit->zeros = map->inode != 0;
					compare_with_file(unit, map);
					if (map->protection & PROT_READ)
						return 1;
					int rc = open_memory(producer, space->pid, &unit->fd);
					return rc < 0 ? rc : 1;
				}
				if (producer->at >= map->end)
					break;
				int rc = next_extents(producer, space, map);
				if (rc < 0)
					return rc;
			}
		}
	}
	return 0;
}

/* As many views as can be read by one call: through one mapping. @scanned_to: how much of the first was taken before. */
static int next_view_unit(struct producer *producer, const struct contents *contents, struct unit *unit)
{
	uint32_t pages = 0;
	*unit = (struct unit){ .space = contents->space, .fd = -1 };
	while (producer->view < contents->views.count && unit->count < PAGES_MOST_CHUNKS && pages < PAGES_MOST) {
		const struct contents_view *view = &contents->views.at[producer->view];
		uint64_t shift = view->address - view->offset, take = (view->size - producer->scanned_to) / PAGE;
		if (unit->count && (unit->pid != view->pid || unit->shift != shift || (unit->fd >= 0) != view->force))
			break;
		if (!unit->count && view->force) {
			int rc = open_memory(producer, view->pid, &unit->fd);
			leave_space(producer);
			if (rc < 0)
				return rc;
		}
		if (take > PAGES_MOST - pages)
			take = PAGES_MOST - pages;
		unit->pid = view->pid;
		unit->shift = shift;
		unit->extents[unit->count].address = view->offset + producer->scanned_to;
		unit->extents[unit->count++].pages = (uint32_t)take;
		pages += (uint32_t)take;
		producer->scanned_to += take * PAGE;
		if (producer->scanned_to == view->size) {
			producer->view++;
			producer->scanned_to = 0;
		}
	}
	return 1;
}

static int next_contents_unit(struct producer *producer, struct unit *unit)
{
	const struct harvest *harvest = producer->harvest;
	for (; producer->contents < harvest->contents.count;
	     producer->contents++, producer->scanned_to = 0, producer->view = 0) {
		const struct contents *contents = &harvest->contents.at[producer->contents];
		if (producer->view < contents->views.count)
			return next_view_unit(producer, contents, unit);
		if (contents->fd < 0)
			continue;
		off_t data = lseek(contents->fd, (off_t)producer->scanned_to, SEEK_DATA);
		if (data < 0 || (uint64_t)data >= contents->size)
			continue;
		off_t hole = lseek(contents->fd, data, SEEK_HOLE);
		uint64_t start = (uint64_t)data & ~(uint64_t)(PAGE - 1);
		uint64_t end = hole < 0 ? contents->size : (uint64_t)hole;
		if (end > start + UNIT_BYTES)
			end = start + UNIT_BYTES;
		*unit = (struct unit){ .space = contents->space, .fd = contents->fd, .count = 1 };
		unit->extents[0].address = start;
		unit->extents[0].pages = (uint32_t)((end - start + PAGE - 1) / PAGE);
		producer->scanned_to = start + (uint64_t)unit->extents[0].pages * PAGE;
		return 1;
	}
	return 0;
}

static bool take_unit(struct producer *producer, struct unit *unit)
{
	pthread_mutex_lock(&producer->lock);
	int rc = producer->failed ? 0 : deadline_check(producer->deadline, &producer->fault);
	if (rc == 0 && !producer->failed)
		rc = next_memory_unit(producer, unit);
	if (rc == 0 && !producer->failed)
		rc = next_contents_unit(producer, unit);
	if (rc < 0)
		producer->failed = true;
	pthread_mutex_unlock(&producer->lock);
	return rc > 0;
}

static int read_through(const struct unit *unit, uint8_t *buffer, struct fault *fault)
{
	for (uint32_t i = 0; i < unit->count; i++) {
		size_t size = (size_t)unit->extents[i].pages * PAGE, done = 0;
		while (done < size) {
			ssize_t n = pread(unit->fd, buffer + done, size - done,
					  (off_t)(unit->extents[i].address + unit->shift + done));
			if (n < 0 && errno != EINTR)
				return fault_set(fault, fault_class_of(errno), errno, "read memory at 0x%llx: %s",
						 (unsigned long long)(unit->extents[i].address + done), strerror(errno));
			if (n == 0 && unit->pid)
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

static int read_memory(const struct unit *unit, uint8_t *buffer, struct fault *fault)
{
	struct iovec remote[PAGES_MOST_CHUNKS];
	size_t total = 0;
	for (uint32_t i = 0; i < unit->count; i++) {
		remote[i].iov_base = (void *)(uintptr_t)(unit->extents[i].address + unit->shift);
		remote[i].iov_len = (size_t)unit->extents[i].pages * PAGE;
		total += remote[i].iov_len;
	}
	struct iovec local = { buffer, total };
	ssize_t n = process_vm_readv(unit->pid, &local, 1, remote, unit->count, 0);
	if (n == (ssize_t)total)
		return 0;
	int error = n < 0 ? errno : EFAULT;
	return fault_set(fault, fault_class_of(error), error, "process %d: read memory at 0x%llx: %s", unit->pid,
			 (unsigned long long)unit->extents[0].address, strerror(error));
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)page;
	if (words[0] | words[1])
		return false;
	return !memcmp(page, page + 8, PAGE - 8);
}

static bool is_same(const struct unit *unit, int file, uint64_t address, const uint8_t *page)
{
	uint8_t original[PAGE] = { 0 };
	ssize_t n = pread(file, original, PAGE, (off_t)(address - unit->same_address + unit->same_offset));
	return n > 0 && !memcmp(original, page, PAGE);
}

/* Cuts what was read into chunks of pages worth storing. */
static void cut_chunks(const struct unit *unit, const uint8_t *buffer, int file, const struct page_sink *sink,
		       int *rc, struct fault *fault)
{
	struct page_batch batch = { .space = unit->space };
	for (uint32_t i = 0; *rc == 0 && i < unit->count; i++) {
		struct page_chunk *chunk = NULL;
		for (uint32_t p = 0; *rc == 0 && p < unit->extents[i].pages; p++, buffer += PAGE) {
			uint64_t address = unit->extents[i].address + (uint64_t)p * PAGE;
			if ((!unit->zeros && is_zero(buffer)) || (file >= 0 && is_same(unit, file, address, buffer))) {
				chunk = NULL;
				continue;
			}
			if (!chunk && batch.count == PAGES_MOST_CHUNKS) {
				*rc = sink->put(sink->context, &batch, fault);
				batch.count = 0;
			}
			if (!chunk) {
				chunk = &batch.chunks[batch.count++];
				*chunk = (struct page_chunk){ address, 0, buffer };
			}
			chunk->pages++;
		}
	}
	if (*rc == 0 && batch.count)
		*rc = sink->put(sink->context, &batch, fault);
}

static int do_unit(struct producer *producer, const struct unit *unit, uint8_t *buffer, struct fault *fault)
{
	_close_ int file = unit->same_as ? open(unit->same_as, O_RDONLY | O_CLOEXEC) : -1;
	int rc = unit->fd >= 0 ? read_through(unit, buffer, fault) : read_memory(unit, buffer, fault);
	cut_chunks(unit, buffer, file, producer->sink, &rc, fault);
	if (unit->pid && unit->fd >= 0)
		close(unit->fd);
	return rc;
}

static void *work(void *context)
{
	struct producer *producer = context;
	struct unit unit = { 0 };
	uint8_t *buffer = mmap(NULL, UNIT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED) {
		pthread_mutex_lock(&producer->lock);
		if (!producer->failed)
			fault_set(&producer->fault, FAULT_FAILED, ENOMEM, "no memory to copy pages with; try to free some");
		producer->failed = true;
		pthread_mutex_unlock(&producer->lock);
	}
	while (buffer != MAP_FAILED && take_unit(producer, &unit)) {
		struct fault fault;
		if (do_unit(producer, &unit, buffer, &fault) == 0)
			continue;
		pthread_mutex_lock(&producer->lock);
		if (!producer->failed)
			producer->fault = fault;
		producer->failed = true;
		pthread_mutex_unlock(&producer->lock);
	}
	if (buffer != MAP_FAILED)
		munmap(buffer, UNIT_BYTES);
	return NULL;
}

int snapshot_pages(struct harvest *harvest, const struct page_sink *sink, unsigned threads,
		   const struct deadline *deadline, struct fault *fault)
{
	enum { MOST_THREADS = 16 };
	struct producer producer = {
		.harvest = harvest, .sink = sink, .deadline = deadline, .memory = -1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	pthread_t workers[MOST_THREADS];
	unsigned started = 0;
	threads = threads > MOST_THREADS ? MOST_THREADS : threads;
	while (started + 1 < threads && pthread_create(&workers[started], NULL, work, &producer) == 0)
		started++;
	work(&producer);
	for (unsigned i = 0; i < started; i++)
		pthread_join(workers[i], NULL);
	leave_space(&producer);
	if (producer.failed) {
		*fault = producer.fault;
		return fault->error ? -fault->error : -EIO;
	}
	int rc = 0;
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++)
		rc = (*kind)->capture_late ? (*kind)->capture_late(harvest, fault) : 0;
	return rc;
}
