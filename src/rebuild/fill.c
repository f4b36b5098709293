/* SPDX-License-Identifier: Apache-2.0 */
/* Contents: every page block of the image, by several threads, into standing newborns (process_vm_writev; through /proc/PID/mem where a
 * mapping is not writable) and into shared objects (pwrite to Cairn's own descriptor). */
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
#include "rebuild/newborn.h"

/* Where pages of a space go: a newborn, one of Cairn's own descriptors, or its own memory. */
struct target {
	pid_t pid;
	int fd;
	uint8_t *memory;
	uint64_t size; /* of memory */
};

struct filler {
	struct rebuild *rebuild;
	struct target *targets; /* by space id */
	uint32_t target_count;
	size_t block_count;
	const struct image_block *blocks;
	atomic_size_t next;
	atomic_bool failed;
	atomic_uint_fast64_t pages;
	pthread_mutex_t lock;
	struct fault fault;
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

static int write_object(const struct target *target, const struct page_batch *batch, struct fault *fault)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct page_chunk *chunk = &batch->chunks[i];
		struct stat stat_;
		size_t size = (size_t)chunk->pages * IMAGE_PAGE;
		/* The last page of a file may reach beyond its end. */
		if (fstat(target->fd, &stat_) == 0 && chunk->address + size > (uint64_t)stat_.st_size)
			size = chunk->address < (uint64_t)stat_.st_size ? (size_t)((uint64_t)stat_.st_size - chunk->address) : 0;
		int rc = fd_pwrite_full(target->fd, chunk->data, size, chunk->address);
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

static int write_memory(const struct target *target, const struct page_batch *batch, struct fault *fault)
{
	struct iovec local[PAGES_MOST], remote[PAGES_MOST];
	size_t total = 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		size_t size = (size_t)batch->chunks[i].pages * IMAGE_PAGE;
		local[i] = (struct iovec){ (void *)batch->chunks[i].data, size };
		remote[i] = (struct iovec){ (void *)(uintptr_t)batch->chunks[i].address, size };
		total += size;
	}
	ssize_t n = process_vm_writev(target->pid, local, batch->count, remote, batch->count, 0);
	if (n == (ssize_t)total)
		return 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		if (process_vm_writev(target->pid, &local[i], 1, &remote[i], 1, 0) == (ssize_t)remote[i].iov_len)
			continue;
		int rc = force_chunk(target->pid, &batch->chunks[i], fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int take_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	struct filler *filler = context;
	const struct target *target = batch->space < filler->target_count ? &filler->targets[batch->space] : NULL;
	if (!target || (!target->pid && target->fd < 0 && !target->memory))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: pages of space %u, which does not exist", batch->space);
	for (uint32_t i = 0; i < batch->count; i++)
		atomic_fetch_add(&filler->pages, batch->chunks[i].pages);
	if (target->memory)
		return copy_object(target, batch, fault);
	return target->pid ? write_memory(target, batch, fault) : write_object(target, batch, fault);
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
	void *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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
		if (fill_block(filler, index, buffer, &fault) == 0)
			continue;
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
	}
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		if (process->plan->space)
			filler->targets[process->plan->space->id].pid = process->newborn.pid;
	}
}

int fill_pages(struct rebuild *rebuild, struct fault *fault)
{
	enum { MOST_THREADS = 16 };
	struct filler filler = { .rebuild = rebuild, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t workers[MOST_THREADS];
	unsigned started = 0, threads = rebuild->options.threads < MOST_THREADS ? rebuild->options.threads : MOST_THREADS;
	set_targets(&filler);
	filler.block_count = image_reader_blocks(rebuild->reader, &filler.blocks);
	while (started + 1 < threads && started + 1 < filler.block_count &&
	       pthread_create(&workers[started], NULL, work, &filler) == 0)
		started++;
	work(&filler);
	for (unsigned i = 0; i < started; i++)
		pthread_join(workers[i], NULL);
	free(filler.targets);
	rebuild->pages = atomic_load(&filler.pages);
	if (atomic_load(&filler.failed)) {
		*fault = filler.fault;
		return fault->error ? -fault->error : -EIO;
	}
	return 0;
}
