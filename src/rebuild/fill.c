/* SPDX-License-Identifier: Apache-2.0 */
/* Contents: every page block of the image, by several threads, into standing newborns (UFFDIO_COPY into large private anonymous memory;
 * process_vm_writev, or /proc/PID/mem where a mapping is not writable, into the rest) and into shared objects (pwrite to Cairn's own
 * descriptor). With --lazy the pager loads private anonymous memory, and here only the rest is. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "rebuild/faults.h"
#include "rebuild/heritage.h"
#include "rebuild/pager.h"

/* Where pages of a space go: a newborn, one of Cairn's own descriptors, or its own memory. */
struct target {
	pid_t pid;
	int fd;
	uint8_t *memory;
	uint64_t size; /* of memory */
	const struct fault_space *faults; /* NULL: none */
	bool is_full;                     /* has all of its pages, or is not to get them now */
	const heritage_ranges *there[2];  /* pages in these are there already, or are not wanted; NULL: none */
	const heritage_ranges *only;      /* only pages in these are missing; NULL: all */
};

struct filler {
	struct rebuild *rebuild;
	bool lazy; /* what is registered is the pager's */
	struct target *targets; /* by space id */
	uint32_t target_count;
	size_t block_count;
	const struct image_block *blocks;
	atomic_size_t next;
	atomic_bool failed;
	atomic_uint_fast64_t pages;
	pthread_mutex_t lock;
	struct fault fault;
	VEC(struct fault_space) faults;
	bool has_unwanted; /* there are contents that nobody needs this time */
	bool *skipped; /* by block: all of it is the pager's; NULL: none is */
};

static int copy_object(const struct target *target, const struct page_batch *batch, struct fault *fault)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct page_chunk *chunk = &batch->chunks[i];
		uint64_t size = (uint64_t)chunk->pages * IMAGE_PAGE;
		if (chunk->address > target->size || size > target->size - chunk->address)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: pages at 0x%llx lie beyond object %u",
					 (unsigned long long)chunk->address, batch->space);
		memcpy(target->memory + chunk->address, chunk->data, size);
	}
	return 0;
}

/* Huge pages cannot be written by write(2) (hugetlbfs has no write_iter). */
static int write_huge(int fd, const struct page_chunk *chunk, size_t size, uint64_t page)
{
	uint64_t start = chunk->address & ~(page - 1), end = (chunk->address + size + page - 1) & ~(page - 1);
	uint8_t *memory = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
	if (memory == MAP_FAILED)
		return -errno;
	memcpy(memory + (chunk->address - start), chunk->data, size);
	munmap(memory, end - start);
	return 0;
}

static int write_object(const struct target *target, const struct page_batch *batch, struct fault *fault)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct page_chunk *chunk = &batch->chunks[i];
		struct stat stat_ = { 0 };
		size_t size = (size_t)chunk->pages * IMAGE_PAGE;
		/* The last page of a file may reach beyond its end. */
		if (fstat(target->fd, &stat_) == 0 && chunk->address + size > (uint64_t)stat_.st_size)
			size = chunk->address < (uint64_t)stat_.st_size ? (size_t)((uint64_t)stat_.st_size - chunk->address) : 0;
		int rc = fd_pwrite_full(target->fd, chunk->data, size, chunk->address);
		if (rc == -EINVAL && stat_.st_blksize > IMAGE_PAGE)
			rc = write_huge(target->fd, chunk, size, (uint64_t)stat_.st_blksize);
		if (rc < 0)
			return fault_set(fault, fault_class_of(-rc), -rc, "write contents of object %u: %s", batch->space,
					 strerror(-rc));
	}
	return 0;
}

/* One chunk through the protections of its mapping. */
static int force_chunk(pid_t pid, const struct page_chunk *chunk, struct fault *fault)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : fd_pwrite_full(fd, chunk->data, (size_t)chunk->pages * IMAGE_PAGE, chunk->address);
	if (rc == -EIO || rc == -EFAULT)
		return fault_set(fault, FAULT_IMAGE, EFAULT, "damaged: pages at 0x%llx belong to no mapping",
				 (unsigned long long)chunk->address);
	return rc < 0 ? fault_set(fault, fault_class_of(-rc), -rc, "write memory at 0x%llx: %s",
				  (unsigned long long)chunk->address, strerror(-rc)) : 0;
}

/* Those chunks that no userfaultfd covers. */
static int write_plainly(pid_t pid, const struct page_batch *batch, struct fault *fault)
{
	struct iovec local[PAGES_MOST], remote[PAGES_MOST];
	size_t total = 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		size_t size = (size_t)batch->chunks[i].pages * IMAGE_PAGE;
		local[i] = (struct iovec){ (void *)batch->chunks[i].data, size };
		remote[i] = (struct iovec){ (void *)(uintptr_t)batch->chunks[i].address, size };
		total += size;
	}
	if (!total || process_vm_writev(pid, local, batch->count, remote, batch->count, 0) == (ssize_t)total)
		return 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		if (process_vm_writev(pid, &local[i], 1, &remote[i], 1, 0) == (ssize_t)remote[i].iov_len)
			continue;
		int rc = force_chunk(pid, &batch->chunks[i], fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What cannot be put has to be written: nothing is there yet, and nobody changes it. */
static int write_memory(const struct target *target, const struct page_batch *batch, bool lazy, struct fault *fault)
{
	struct page_batch plain;
	int rc = 0;
	plain.space = batch->space;
	plain.count = 0;
	for (uint32_t i = 0; rc == 0 && i < batch->count; i++) {
		struct page_chunk left = batch->chunks[i];
		while (rc == 0 && left.pages) {
			uint64_t end = left.address + (uint64_t)left.pages * IMAGE_PAGE, edge = end;
			bool covered = false;
			if (target->faults)
				edge = faults_stretch(target->faults, left.address, end, &covered);
			uint32_t pages = (uint32_t)((edge - left.address) / IMAGE_PAGE);
			if (!covered || (!lazy && faults_put(target->faults->userfaultfd, left.address, left.data, pages) != PUT_DONE))
				plain.chunks[plain.count++] = (struct page_chunk){ left.address, pages, left.data };
			left = (struct page_chunk){ edge, left.pages - pages,
						    (const uint8_t *)left.data + (size_t)pages * IMAGE_PAGE };
			if (plain.count == PAGES_MOST) {
				rc = write_plainly(target->pid, &plain, fault);
				plain.count = 0;
			}
		}
	}
	return rc < 0 ? rc : write_plainly(target->pid, &plain, fault);
}

/* The end of the first stretch of [@start, @end) that is all missing, or not. */
static uint64_t missing_stretch(const struct target *target, uint64_t start, uint64_t end, bool *ret_missing)
{
	bool within = true, missing = true;
	if (target->only) {
		end = heritage_stretch(target->only, start, end, &within);
		missing = within;
	}
	for (size_t i = 0; i < sizeof target->there / sizeof *target->there; i++)
		if (target->there[i]) {
			end = heritage_stretch(target->there[i], start, end, &within);
			missing &= !within;
		}
	*ret_missing = missing;
	return end;
}

static int write_missing(struct filler *filler, const struct target *target, const struct page_batch *batch, struct fault *fault)
{
	struct page_batch own;
	int rc = 0;
	own.space = batch->space;
	own.count = 0;
	for (uint32_t i = 0; rc == 0 && i < batch->count; i++) {
		struct page_chunk left = batch->chunks[i];
		while (rc == 0 && left.pages) {
			bool missing;
			uint64_t edge = missing_stretch(target, left.address, left.address + (uint64_t)left.pages * IMAGE_PAGE, &missing);
			uint32_t pages = (uint32_t)((edge - left.address) / IMAGE_PAGE);
			if (missing)
				own.chunks[own.count++] = (struct page_chunk){ left.address, pages, left.data };
			left = (struct page_chunk){ edge, left.pages - pages, (const uint8_t *)left.data + (size_t)pages * IMAGE_PAGE };
			if (own.count < PAGES_MOST)
				continue;
			rc = write_memory(target, &own, filler->lazy, fault);
			own.count = 0;
		}
	}
	return rc < 0 ? rc : write_memory(target, &own, filler->lazy, fault);
}

static bool is_partial(const struct target *target)
{
	return target->only || target->there[0] || target->there[1];
}

static int take_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	struct filler *filler = context;
	const struct target *target = batch->space < filler->target_count ? &filler->targets[batch->space] : NULL;
	if (!target || (!target->pid && target->fd < 0 && !target->memory && !target->is_full))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: pages of space %u, which does not exist", batch->space);
	if (target->is_full)
		return 0;
	for (uint32_t i = 0; i < batch->count; i++)
		atomic_fetch_add(&filler->pages, batch->chunks[i].pages);
	if (is_partial(target))
		return write_missing(filler, target, batch, fault);
	if (target->memory)
		return copy_object(target, batch, fault);
	return target->pid ? write_memory(target, batch, filler->lazy, fault) : write_object(target, batch, fault);
}

static int fill_block(struct filler *filler, size_t index, void *buffer, struct fault *fault)
{
	const struct page_taker taker = { take_batch, filler };
	int rc = deadline_check(filler->rebuild->options.deadline, fault);
	return rc < 0 ? rc : image_reader_pages(filler->rebuild->reader, index, buffer, &taker, fault);
}

static void *work(void *context)
{
	struct filler *filler = context;
	const size_t size = IMAGE_BUFFER;
	void *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buffer == MAP_FAILED) {
		pthread_mutex_lock(&filler->lock);
		if (!atomic_exchange(&filler->failed, true))
			fault_set(&filler->fault, FAULT_FAILED, ENOMEM, "no memory to load pages with; try to free some");
		pthread_mutex_unlock(&filler->lock);
	}
	while (buffer != MAP_FAILED && !atomic_load(&filler->failed)) {
		size_t index = atomic_fetch_add(&filler->next, 1);
		struct fault fault;
		if (index >= filler->block_count)
			break;
		if (filler->skipped && filler->skipped[index])
			continue;
		if (fill_block(filler, index, buffer, &fault) == 0) {
			progress_add(filler->rebuild->options.progress, (uint64_t)filler->blocks[index].pages * IMAGE_PAGE);
			continue;
		}
		pthread_mutex_lock(&filler->lock);
		if (!atomic_exchange(&filler->failed, true))
			filler->fault = fault;
		pthread_mutex_unlock(&filler->lock);
	}
	if (buffer != MAP_FAILED)
		munmap(buffer, size);
	return NULL;
}

static uint32_t highest_space(const struct plan *plan)
{
	uint32_t highest = plan->highest_id;
	for (size_t i = 0; i < plan->spaces.count; i++)
		if (plan->spaces.at[i]->id > highest)
			highest = plan->spaces.at[i]->id;
	return highest;
}

static void set_targets(struct filler *filler)
{
	struct rebuild *rebuild = filler->rebuild;
	filler->target_count = highest_space(rebuild->plan) + 1;
	filler->targets = memory_new(filler->target_count * sizeof *filler->targets);
	for (uint32_t id = 0; id < filler->target_count; id++) {
		struct target *target = &filler->targets[id];
		target->fd = workshop_fd(&rebuild->workshop, id);
		target->memory = workshop_memory(&rebuild->workshop, id, &target->size);
		target->is_full = workshop_is_unwanted(&rebuild->workshop, id);
		filler->has_unwanted |= target->is_full;
	}
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		if (!process->plan->space)
			continue;
		struct target *target = &filler->targets[process->plan->space->id];
		target->pid = process->newborn.pid;
		target->is_full = process->is_loaded && !process->heritage.seeds_of;
		target->only = process->is_loaded ? &process->heritage.seeds : NULL;
		if (process->is_heir)
			target->there[0] = &process->heritage.pages;
		/* Those that share it have nothing of their own. */
		else if (process->mapped.runs.count)
			target->there[0] = &process->mapped.ranges;
		else if (process->held)
			target->there[0] = process->held;
	}
}

/* Pages of each space, by its id. */
static uint64_t *count_pages(const struct filler *filler)
{
	const struct image_place *places;
	size_t count = image_reader_places(filler->rebuild->reader, &places);
	uint64_t *pages = memory_new((filler->target_count + 1) * sizeof *pages);
	for (size_t i = 0; i < count; i++)
		if (places[i].space < filler->target_count)
			pages[places[i].space] += places[i].at.pages;
	return pages;
}

/* Userfaultfds for the spaces that are large enough; for all, if memory is loaded behind the running program. What is shared with relatives is loaded
 * at once: a parent has to have it before its children are born. */
static int begin_faults(struct filler *filler, const struct rebuild_process *only, struct fault *fault)
{
	enum { LEAST_PAGES = 1024 };
	struct rebuild *rebuild = filler->rebuild;
	bool lazy = filler->lazy;
	_free_ uint64_t *pages = count_pages(filler);
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		struct fault_space space;
		struct fault why;
		if (!process->plan->space || process->plan->space->owner != process->plan || pages[process->plan->space->id] < (lazy ? 1 : LEAST_PAGES))
			continue;
		/* Most is there: the rest is little, and in many places. */
		if (process->mapped.runs.count || process->held)
			continue;
		if ((only && process != only) || process->is_loaded || process->is_heir)
			continue;
		int rc = faults_begin(process, lazy, &space, &why);
		if (rc < 0 && lazy) {
			*fault = why;
			return rc;
		}
		if (rc < 0)
			log_debug("%s; its memory is written by process_vm_writev", why.text);
		else
			*vec_add(&filler->faults) = space;
	}
	for (size_t i = 0; i < filler->faults.count; i++)
		filler->targets[filler->faults.at[i].space].faults = &filler->faults.at[i];
	if (only && only->heritage.seeds_of)
		filler->targets[only->heritage.seeds_of].faults = filler->targets[only->plan->space->id].faults;
	return 0;
}

/* Blocks without anything that has to be there before the program runs. */
static void skip_blocks(struct filler *filler)
{
	const struct image_reader *reader = filler->rebuild->reader;
	const struct image_place *places;
	size_t count = image_reader_places(reader, &places), index;
	filler->skipped = memory_new(filler->block_count + 1);
	memset(filler->skipped, true, filler->block_count);
	for (size_t i = 0; i < count; i++) {
		const struct target *target = places[i].space < filler->target_count ? &filler->targets[places[i].space] : NULL;
		uint64_t start = places[i].at.address, end = start + (uint64_t)places[i].at.pages * IMAGE_PAGE;
		bool waits = false;
		/* All of it? */
		if (target && target->faults && faults_stretch(target->faults, start, end, &waits) != end)
			waits = false;
		if (!waits && image_reader_find(reader, places[i].space, start, &index))
			filler->skipped[index] = false;
	}
}

static void run_workers(struct filler *filler)
{
	enum { MOST_THREADS = 16 };
	pthread_t workers[MOST_THREADS];
	unsigned started = 0, wanted = filler->rebuild->options.threads, threads = wanted < MOST_THREADS ? wanted : MOST_THREADS;
	/* A thread costs a millisecond to begin and to end, and a buffer: a few blocks are loaded sooner by one. */
	if (filler->block_count <= 6)
		threads = 1;
	while (started + 1 < threads && started + 1 < filler->block_count &&
	       pthread_create(&workers[started], NULL, work, filler) == 0)
		started++;
	work(filler);
	for (unsigned i = 0; i < started; i++)
		pthread_join(workers[i], NULL);
}

/* Blocks in which only spaces have pages that have them already. */
static void skip_full(struct filler *filler)
{
	const struct image_reader *reader = filler->rebuild->reader;
	const struct image_place *places;
	size_t count = image_reader_places(reader, &places), index;
	bool *skipped = memory_new(filler->block_count + 1);
	memset(skipped, true, filler->block_count);
	for (size_t i = 0; i < count; i++) {
		const struct target *target = places[i].space < filler->target_count ? &filler->targets[places[i].space] : NULL;
		uint64_t start = places[i].at.address, end = start + (uint64_t)places[i].at.pages * IMAGE_PAGE;
		bool missing = true;
		if (target && (target->is_full || (is_partial(target) && missing_stretch(target, start, end, &missing) == end && !missing)))
			continue;
		if (image_reader_find(reader, places[i].space, start, &index))
			skipped[index] = false;
	}
	for (size_t i = 0; filler->skipped && i < filler->block_count; i++)
		skipped[i] |= filler->skipped[i];
	free(filler->skipped);
	filler->skipped = skipped;
}

static bool has_heirs(const struct rebuild *rebuild)
{
	for (size_t i = 0; i < rebuild->processes.count; i++)
		if (rebuild->processes.at[i]->is_heir)
			return true;
	return false;
}

/* @only: this one's pages, NULL: everybody's. Ends the filler. */
static int fill(struct filler *filler, const struct rebuild_process *only, struct fault *fault)
{
	struct rebuild *rebuild = filler->rebuild;
	bool lazy = filler->lazy = rebuild->options.lazy && !only;
	seat_leave(&rebuild->workshop);
	int rc = begin_faults(filler, only, fault);
	if (rc == 0 && lazy)
		skip_blocks(filler);
	if (rc == 0 && (has_heirs(rebuild) || filler->has_unwanted || rebuild->is_mapped || rebuild->options.template))
		skip_full(filler);
	if (rc == 0)
		run_workers(filler);
	rebuild->pages += atomic_load(&filler->pages);
	if (rc == 0 && atomic_load(&filler->failed)) {
		*fault = filler->fault;
		rc = fault->error ? -fault->error : -EIO;
	}
	if (rc == 0 && lazy && filler->faults.count)
		rc = pager_start(rebuild, filler->faults.at, filler->faults.count, &rebuild->pager, fault);
	for (size_t i = 0; i < filler->faults.count; i++)
		faults_end(&filler->faults.at[i]);
	vec_finish(&filler->faults);
	free(filler->targets);
	free(filler->skipped);
	if (only) /* newborns are still being borne */
		seat_take(&rebuild->workshop);
	return rc;
}

int fill_process(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	struct filler filler = { .rebuild = rebuild, .lock = PTHREAD_MUTEX_INITIALIZER };
	set_targets(&filler);
	filler.block_count = image_reader_blocks(rebuild->reader, &filler.blocks);
	struct target *own = &filler.targets[process->plan->space->id];
	for (uint32_t id = 0; id < filler.target_count; id++)
		filler.targets[id].is_full = true;
	own->is_full = false;
	if (process->heritage.seeds_of) {
		own->there[1] = &process->heritage.seeds;
		filler.targets[process->heritage.seeds_of] = (struct target){ .pid = own->pid, .fd = -1, .only = &process->heritage.seeds };
	}
	return fill(&filler, process, fault);
}

int fill_pages(struct rebuild *rebuild, struct fault *fault)
{
	struct filler filler = { .rebuild = rebuild, .lock = PTHREAD_MUTEX_INITIALIZER };
	set_targets(&filler);
	filler.block_count = image_reader_blocks(rebuild->reader, &filler.blocks);
	return fill(&filler, NULL, fault);
}
