/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/template.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kernel/maps.h"
#include "rebuild/faults.h"
#include "rebuild/heritage.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum {
	LEAST_PAGES = 16,    /* of a mapping: below that, loading costs no more than moving */
	MOST_PARTS = 16384,  /* all of them are mappings of each newborn at first */
};
#define ALIGN (UINT64_C(2) << 20) /* whole page tables are moved where both places have the same offset in them (mm/mremap.c move_pgt_entry) */
#define MOST_BYTES (UINT64_C(1) << 44)

/* A mapping of a space. */
struct template_part {
	uint32_t space;
	uint64_t start, end;
	uint64_t place;   /* of @start, here */
	bool no_reserve;
};

struct template_space {
	uint32_t id;
	heritage_ranges held; /* what is in the template, with the pages that are zero */
};

struct template {
	uint8_t image[16];
	uint64_t start, end; /* all parts lie in it */
	uint64_t pages;
	VEC(struct template_part) parts;   /* by space, then by address */
	VEC(struct template_space) spaces; /* by id */
};

static const struct template_part *part_of(const struct template *template, uint32_t space, uint64_t address)
{
	size_t low = 0, high = template->parts.count;
	while (low < high) { /* the first that ends behind it */
		size_t middle = (low + high) / 2;
		const struct template_part *part = &template->parts.at[middle];
		if (part->space < space || (part->space == space && part->end <= address))
			low = middle + 1;
		else
			high = middle;
	}
	const struct template_part *part = low < template->parts.count ? &template->parts.at[low] : NULL;
	return part && part->space == space && part->start <= address ? part : NULL;
}

static const struct template_space *space_of(const struct template *template, uint32_t id)
{
	size_t low = 0, high = template->spaces.count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (template->spaces.at[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < template->spaces.count && template->spaces.at[low].id == id ? &template->spaces.at[low] : NULL;
}

/* ---- what is in it ---- */

static bool may_hold(const Cairn__Vma *vma)
{
	const uint64_t never = MAP_FLAG_GROWS_DOWN | MAP_FLAG_DROPPABLE | MAP_FLAG_HUGETLB | MAP_FLAG_SYNC;
	return !vma->shared && !vma->file && !vma->kind && !(vma->flags & never);
}

/* Of [@start, @end); *at: the first place that may lie in it, as mappings are asked in ascending order. */
static uint64_t count_pages(const struct image_place *places, size_t count, size_t *at, uint32_t space, uint64_t start, uint64_t end)
{
	uint64_t pages = 0;
	while (*at < count && (places[*at].space < space ||
			       (places[*at].space == space && places[*at].at.address + (uint64_t)places[*at].at.pages * IMAGE_PAGE <= start)))
		++*at;
	for (size_t i = *at; i < count && places[i].space == space && places[i].at.address < end; i++)
		pages += places[i].at.pages;
	return pages;
}

/* @at: how far the region is used. */
static void add_parts(struct template *template, const struct rebuild_process *process, const struct image_reader *reader, uint64_t *at)
{
	const struct plan_space *space = process->plan->space;
	const struct image_place *places;
	size_t count = image_reader_places(reader, &places), next = 0;
	struct template_space *held = NULL;
	for (size_t i = 0; i < space->records.count && template->parts.count < MOST_PARTS; i++) {
		const Cairn__Vma *vma = (const Cairn__Vma *)space->records.at[i].message;
		if (vma->base.descriptor != &cairn__vma__descriptor || !may_hold(vma))
			continue;
		uint64_t size = vma->end - vma->start;
		if (size > MOST_BYTES - *at || count_pages(places, count, &next, space->id, vma->start, vma->end) < LEAST_PAGES)
			continue;
		if (!held)
			*(held = vec_add(&template->spaces)) = (struct template_space){ .id = space->id };
		*vec_add(&template->parts) = (struct template_part){
			space->id, vma->start, vma->end, *at + vma->start % ALIGN, vma->flags & MAP_FLAG_NO_RESERVE };
		*vec_add(&held->held) = (struct heritage_range){ vma->start, vma->end };
		*at = (*at + vma->start % ALIGN + size + ALIGN - 1) / ALIGN * ALIGN;
	}
	/* Those come before it, from the parent, and their own contents after. */
	if (held && process->heritage.seeds.count)
		heritage_subtract(&held->held, &process->heritage.seeds);
}

static int compare_parts(const void *a, const void *b)
{
	const struct template_part *x = a, *y = b;
	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	return (x->start > y->start) - (x->start < y->start);
}

static int compare_spaces(const void *a, const void *b)
{
	const struct template_space *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

static bool has_own(const struct rebuild_process *process)
{
	const struct plan_space *space = process->plan->space;
	return space && space->owner == process->plan && !process->is_heir && !process->plan->process->zombie;
}

/* ---- loading ---- */

struct loading {
	struct template *template;
	const struct image_reader *reader;
	const struct rebuild_options *options;
	int userfaultfd; /* -1: by copying */
	size_t block_count;
	const struct image_block *blocks;
	bool *wanted; /* by block */
	atomic_size_t next;
	atomic_uint_fast64_t pages;
	atomic_bool failed;
	pthread_mutex_t lock;
	struct fault fault;
};

static int map_parts(const struct template *template, struct fault *fault)
{
	for (size_t i = 0; i < template->parts.count; i++) {
		const struct template_part *part = &template->parts.at[i];
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | (part->no_reserve ? MAP_NORESERVE : 0);
		if (mmap((void *)(uintptr_t)part->place, part->end - part->start, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
			return fault_set(fault, FAULT_FAILED, errno, "memory for what the clones have in common: %s; try single restores", strerror(errno));
	}
	return 0;
}

/* -1: it cannot be had, and pages are copied, which is slower. */
static int open_userfaultfd(const struct template *template)
{
	_close_ int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = { .api = UFFD_API };
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		return -1;
	for (size_t i = 0; i < template->parts.count; i++) {
		const struct template_part *part = &template->parts.at[i];
		struct uffdio_register wanted = { .range = { part->place, part->end - part->start }, .mode = UFFDIO_REGISTER_MODE_MISSING };
		if (ioctl(fd, UFFDIO_REGISTER, &wanted) < 0)
			return -1;
	}
	return fd_steal(&fd);
}

static int put(struct loading *loading, uint64_t place, const uint8_t *data, uint32_t pages, struct fault *fault)
{
	if (loading->userfaultfd < 0)
		memcpy((void *)(uintptr_t)place, data, (size_t)pages * IMAGE_PAGE);
	else if (faults_put(loading->userfaultfd, place, data, pages) != PUT_DONE)
		return fault_set(fault, FAULT_FAILED, errno, "load what the clones have in common: %s; try to free some memory", strerror(errno));
	atomic_fetch_add(&loading->pages, pages);
	return 0;
}

static int take_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	struct loading *loading = context;
	const struct template_space *space = space_of(loading->template, batch->space);
	int rc = 0;
	for (uint32_t i = 0; space && rc == 0 && i < batch->count; i++) {
		const struct page_chunk *chunk = &batch->chunks[i];
		uint64_t end = chunk->address + (uint64_t)chunk->pages * IMAGE_PAGE;
		for (uint64_t at = chunk->address, edge; rc == 0 && at < end; at = edge) {
			bool within;
			edge = heritage_stretch(&space->held, at, end, &within);
			const struct template_part *part = within ? part_of(loading->template, batch->space, at) : NULL;
			if (!part)
				continue;
			edge = edge < part->end ? edge : part->end;
			rc = put(loading, part->place + (at - part->start), (const uint8_t *)chunk->data + (at - chunk->address),
				 (uint32_t)((edge - at) / IMAGE_PAGE), fault);
		}
	}
	return rc;
}

static void fail(struct loading *loading, const struct fault *fault)
{
	pthread_mutex_lock(&loading->lock);
	if (!atomic_exchange(&loading->failed, true))
		loading->fault = *fault;
	pthread_mutex_unlock(&loading->lock);
}

static void *work(void *context)
{
	struct loading *loading = context;
	const struct page_taker taker = { take_batch, loading };
	struct fault fault;
	void *buffer = mmap(NULL, IMAGE_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buffer == MAP_FAILED) {
		fault_set(&fault, FAULT_FAILED, ENOMEM, "no memory to load pages with; try to free some");
		fail(loading, &fault);
		return NULL;
	}
	for (size_t index; (index = atomic_fetch_add(&loading->next, 1)) < loading->block_count && !atomic_load(&loading->failed);) {
		if (!loading->wanted[index])
			continue;
		int rc = deadline_check(loading->options->deadline, &fault);
		if (rc == 0)
			rc = image_reader_pages(loading->reader, index, buffer, &taker, &fault);
		if (rc < 0)
			fail(loading, &fault);
		progress_add(loading->options->progress, (uint64_t)loading->blocks[index].pages * IMAGE_PAGE);
	}
	munmap(buffer, IMAGE_BUFFER);
	return NULL;
}

/* Blocks of which something is in the template. */
static void find_wanted(struct loading *loading)
{
	const struct image_place *places;
	const struct template_space *space = NULL;
	size_t count = image_reader_places(loading->reader, &places), index;
	loading->wanted = memory_new(loading->block_count + 1);
	for (size_t i = 0; i < count; i++) {
		if (!i || places[i].space != places[i - 1].space)
			space = space_of(loading->template, places[i].space);
		uint64_t start = places[i].at.address, end = start + (uint64_t)places[i].at.pages * IMAGE_PAGE;
		bool within = false;
		if (space && (heritage_stretch(&space->held, start, end, &within) < end || within) &&
		    image_reader_find(loading->reader, places[i].space, start, &index))
			loading->wanted[index] = true;
	}
}

static int load(struct template *template, const struct image_reader *reader, const struct rebuild_options *options, struct fault *fault)
{
	enum { MOST_THREADS = 16 };
	struct loading loading = { .template = template, .reader = reader, .options = options, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t workers[MOST_THREADS];
	unsigned started = 0, threads = options->threads < MOST_THREADS ? options->threads : MOST_THREADS;
	int rc = map_parts(template, fault);
	if (rc < 0)
		return rc;
	loading.userfaultfd = open_userfaultfd(template);
	loading.block_count = image_reader_blocks(reader, &loading.blocks);
	find_wanted(&loading);
	while (started + 1 < threads && pthread_create(&workers[started], NULL, work, &loading) == 0)
		started++;
	work(&loading);
	for (unsigned i = 0; i < started; i++)
		pthread_join(workers[i], NULL);
	if (loading.userfaultfd >= 0)
		close(loading.userfaultfd);
	free(loading.wanted);
	template->pages = atomic_load(&loading.pages);
	if (!atomic_load(&loading.failed))
		return 0;
	*fault = loading.fault;
	return fault->error ? -fault->error : -EIO;
}

int template_load(const struct plan *plan, const struct image_reader *reader, const struct rebuild_options *options, struct template **ret_template,
		  struct fault *fault)
{
	struct template *template = memory_new(sizeof *template);
	struct rebuild *rebuild = rebuild_lay_out(plan, reader);
	uint64_t size = 0, begin = clock_now_ns();
	image_reader_id(reader, template->image);
	for (size_t i = 0; i < rebuild->processes.count; i++)
		if (has_own(rebuild->processes.at[i]))
			add_parts(template, rebuild->processes.at[i], reader, &size);
	rebuild_free(rebuild);
	int rc = rebuild_find_hole(plan, size + ALIGN, &template->start, fault);
	template->start = (template->start + ALIGN - 1) / ALIGN * ALIGN;
	template->end = template->start + size;
	for (size_t i = 0; i < template->parts.count; i++)
		template->parts.at[i].place += template->start;
	if (template->parts.count) {
		qsort(template->parts.at, template->parts.count, sizeof *template->parts.at, compare_parts);
		qsort(template->spaces.at, template->spaces.count, sizeof *template->spaces.at, compare_spaces);
	}
	if (rc == 0)
		rc = load(template, reader, options, fault);
	if (rc < 0) {
		template_free(template);
		return rc;
	}
	log_info("restore: the clones have %llu pages in common, in %zu mappings, %.2f ms", (unsigned long long)template->pages, template->parts.count,
		 (double)(clock_now_ns() - begin) / 1e6);
	*ret_template = template;
	return 0;
}

uint64_t template_pages(const struct template *template)
{
	return template->pages;
}

void template_forget(struct template *template)
{
	if (template->end > template->start)
		munmap((void *)(uintptr_t)template->start, template->end - template->start);
}

void template_free(struct template *template)
{
	if (!template)
		return;
	template_forget(template);
	for (size_t i = 0; i < template->spaces.count; i++)
		vec_finish(&template->spaces.at[i].held);
	vec_finish(&template->spaces);
	vec_finish(&template->parts);
	free(template);
}

/* ---- a clone ---- */

int template_share_out(struct rebuild *rebuild, struct fault *fault)
{
	const struct template *template = rebuild->options.template;
	uint8_t image[16];
	image_reader_id(rebuild->reader, image);
	if (template && memcmp(image, template->image, sizeof image) != 0)
		return fault_set(fault, FAULT_VANISHED, ESTALE, "another image got its name meanwhile; try again");
	for (size_t i = 0; template && i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		const struct template_space *space = has_own(process) ? space_of(template, process->plan->space->id) : NULL;
		process->template = template;
		process->held = space ? &space->held : NULL;
	}
	return 0;
}

bool template_place(const struct template *template, uint64_t *ret_start, uint64_t *ret_end)
{
	if (!template || template->start == template->end)
		return false;
	*ret_start = template->start;
	*ret_end = template->end;
	return true;
}

bool template_move(struct rebuild_process *process, const struct plan_record *record, struct batch *batch, int *ret_rc, struct fault *fault)
{
	const Cairn__Vma *vma = (const Cairn__Vma *)record->message;
	const struct template_part *part =
		process->held && vma->base.descriptor == &cairn__vma__descriptor ?
			part_of(process->template, process->plan->space->id, vma->start) : NULL;
	if (!part)
		return false;
	Cairn__Vma there = *vma;
	there.kind = VMA_ATTACHED;
	batch_group(batch, 1, 0);
	batch_call(batch, mremap, part->place, part->end - part->start, part->end - part->start, MREMAP_MAYMOVE | MREMAP_FIXED, part->start);
	*ret_rc = record->kind->rebuild(newborn_leader(process), &there.base, batch, fault);
	return true;
}

void template_leave(const struct rebuild_process *process, struct batch *batch)
{
	uint64_t start, end;
	if (!template_place(process->template, &start, &end))
		return;
	batch_group(batch, 1, 0);
	batch_call(batch, munmap, start, end - start);
}
