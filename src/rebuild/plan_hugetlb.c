/* SPDX-License-Identifier: Apache-2.0 */
/* Are there enough huge pages (hugetlbfs) for the mappings of an image? A mapping takes all of its pages out of the pool when it is made, unless it
 * has MAP_NORESERVE; a shared object's are taken once. Segments of System V shared memory are not counted: they may be there still, and are made
 * before the first process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/maps.h"
#include "kernel/procfs.h"
#include "rebuild/plan.h"

struct pool {
	uint64_t page_size, wanted; /* bytes */
};
typedef VEC(struct pool) pool_list;

static void want(pool_list *pools, uint64_t page_size, uint64_t bytes)
{
	for (size_t i = 0; i < pools->count; i++)
		if (pools->at[i].page_size == page_size) {
			pools->at[i].wanted += bytes;
			return;
		}
	*vec_add(pools) = (struct pool){ page_size, bytes };
}

static bool is_reserved_somewhere(const struct plan *plan, uint32_t object)
{
	for (size_t i = 0; i < plan->records.count; i++) {
		const Cairn__Vma *vma = (const Cairn__Vma *)plan->records.at[i].message;
		if (vma->base.descriptor == &cairn__vma__descriptor && vma->shared && vma->file == object && !(vma->flags & MAP_FLAG_NO_RESERVE))
			return true;
	}
	return false;
}

static void want_all(const struct plan *plan, pool_list *pools)
{
	for (size_t i = 0; i < plan->records.count; i++) {
		const ProtobufCMessage *message = plan->records.at[i].message;
		const Cairn__Vma *vma = (const Cairn__Vma *)message;
		const Cairn__SharedMemory *memory = (const Cairn__SharedMemory *)message;
		if (message->descriptor == &cairn__vma__descriptor && vma->huge_page_size && !vma->shared && !(vma->flags & MAP_FLAG_NO_RESERVE))
			want(pools, vma->huge_page_size, vma->end - vma->start);
		if (message->descriptor == &cairn__shared_memory__descriptor && memory->huge_page_size && is_reserved_somewhere(plan, memory->id))
			want(pools, memory->huge_page_size, memory->size);
	}
}

/* A number of that pool, 0 where there is no such file. */
static uint64_t pool_number(uint64_t page_size, const char *name)
{
	char path[128];
	struct text text = { 0 };
	uint64_t number = 0;
	snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%llukB/%s", (unsigned long long)page_size / 1024, name);
	if (proc_read_path(path, &text, NULL) == 0)
		number = strtoull(text.at, NULL, 10);
	text_finish(&text);
	return number;
}

static uint64_t pages_available(uint64_t page_size)
{
	uint64_t free_ = pool_number(page_size, "free_hugepages"), reserved = pool_number(page_size, "resv_hugepages");
	uint64_t most = pool_number(page_size, "nr_overcommit_hugepages"), surplus = pool_number(page_size, "surplus_hugepages");
	return (free_ > reserved ? free_ - reserved : 0) + (most > surplus ? most - surplus : 0);
}

static void check_pool(const struct pool *pool, struct fault_list *refusals)
{
	const uint64_t until = clock_now_ns() + 1000000000, wanted = pool->wanted / pool->page_size;
	struct fault fault;
	/* A program that was just killed may still be giving its pages back. */
	while (pages_available(pool->page_size) < wanted && clock_now_ns() < until)
		clock_sleep_ns(5000000);
	uint64_t available = pages_available(pool->page_size);
	if (available >= wanted)
		return;
	uint64_t missing = wanted - available, total = pool_number(pool->page_size, "nr_hugepages") + missing;
	fault_set(&fault, FAULT_FAILED, ENOMEM,
		  "needs %llu huge pages of %llu kB, and %llu of them are missing here; try sysctl vm.nr_hugepages=%llu (or that number in "
		  "/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages)", (unsigned long long)wanted,
		  (unsigned long long)pool->page_size / 1024, (unsigned long long)missing, (unsigned long long)total,
		  (unsigned long long)pool->page_size / 1024);
	fault_list_add(refusals, &fault);
}

void plan_check_huge_pages(const struct plan *plan, struct fault_list *refusals)
{
	pool_list pools = { 0 };
	want_all(plan, &pools);
	for (size_t i = 0; i < pools.count; i++)
		check_pool(&pools.at[i], refusals);
	vec_finish(&pools);
}
