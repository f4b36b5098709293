/* SPDX-License-Identifier: Apache-2.0 */
/* Documentation/admin-guide/mm/pagemap.rst; fs/proc/task_mmu.c do_pagemap_scan and pagemap_read (6.18). */
#include "kernel/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* include/uapi/linux/fs.h of 6.18: distributions still ship headers from before 6.7. */
struct scan_region {
	uint64_t start, end, categories;
};
struct scan_arg {
	uint64_t size;  /* of this struct: the version */
	uint64_t flags; /* PM_SCAN_* */
	uint64_t start, end;
	uint64_t walk_end; /* out: where it stopped */
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define CAIRN_PAGEMAP_SCAN _IOWR('f', 16, struct scan_arg)
enum { SCAN_WP_MATCHING = 1 << 0, SCAN_CHECK_WPASYNC = 1 << 1 }; /* flags */
enum {
	SCAN_WRITTEN = 1 << 1,
	SCAN_FILE = 1 << 2,
	SCAN_PRESENT = 1 << 3,
	SCAN_SWAPPED = 1 << 4,
	SCAN_PFNZERO = 1 << 5,
	SCAN_GUARD = 1 << 8, /* 6.15 */
};

/* Entries of /proc/PID/pagemap. */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_FILE (1ull << 61)
#define ENTRY_GUARD (1ull << 58) /* 6.15 */

enum { PAGE_BYTES = 4096, ENTRY_BYTES = 8, BATCH = 512 };

/* 0 or more regions in @arg->vec, or a negative errno. */
static int scan_ask(const struct pagemap *pagemap, struct scan_arg *arg, uint64_t *ret_next)
{
	int count = ioctl(pagemap->fd, CAIRN_PAGEMAP_SCAN, arg);
	if (count < 0)
		return -errno;
	*ret_next = arg->walk_end;
	return count;
}

/* @most: pages, after which it may stop; 0: never. */
static int scan(const struct pagemap *pagemap, uint64_t start, uint64_t end, struct scan_region *regions, int space,
		uint64_t most, uint64_t *ret_next)
{
	/* Protecting a guard would set a bit in its marker that nobody clears again: it must not match. */
	uint64_t guard = pagemap->guards && !pagemap->protect ? SCAN_GUARD : 0;
	uint64_t no_guard = pagemap->guards && pagemap->protect ? SCAN_GUARD : 0;
	/* Whether a page is of a file is the one question for which the kernel has to look at the page itself. */
	uint64_t file = pagemap->anonymous ? 0 : SCAN_FILE;
	struct scan_arg arg = {
		.size = sizeof arg,
		.flags = (pagemap->tracked ? SCAN_CHECK_WPASYNC : 0) | (pagemap->protect ? SCAN_WP_MATCHING : 0),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = (uint64_t)space,
		.max_pages = most,
		.category_inverted = no_guard,
		.category_mask = no_guard | (pagemap->written ? SCAN_WRITTEN : 0),
		.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED | guard,
		.return_mask = SCAN_PRESENT | SCAN_SWAPPED | SCAN_PFNZERO | file | guard |
			       (pagemap->tracked ? SCAN_WRITTEN : 0),
	};
	return scan_ask(pagemap, &arg, ret_next);
}

/* A category that the kernel does not know is EINVAL, the whole request ENOTTY before 6.7. The first page is asked: it
 * is hardly ever mapped, and the answer does not matter. */
static void scan_probe(struct pagemap *pagemap)
{
	struct scan_region region;
	uint64_t next;
	pagemap->guards = true;
	pagemap->scan = scan(pagemap, 0, PAGE_BYTES, &region, 1, 0, &next) >= 0;
	if (pagemap->scan)
		return;
	pagemap->guards = false;
	pagemap->scan = scan(pagemap, 0, PAGE_BYTES, &region, 1, 0, &next) >= 0;
}

static int open_fault(struct fault *fault, int error, pid_t pid)
{
	if (error == ENOENT || error == ESRCH)
		return fault_set(fault, FAULT_VANISHED, ESRCH,
				 "/proc/%d/pagemap: the process is gone; try another target", pid);
	return fault_set(fault, fault_class_of(error), error,
			 "/proc/%d/pagemap: %s; try as the user of the process, as root, or with CAP_SYS_PTRACE", pid,
			 strerror(error));
}

int pagemap_open(pid_t pid, struct pagemap *ret_pagemap, struct fault *fault)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
	struct pagemap pagemap = { .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (pagemap.fd < 0)
		return open_fault(fault, errno, pid);
	scan_probe(&pagemap);
	*ret_pagemap = pagemap;
	return 0;
}

void pagemap_close(struct pagemap *pagemap)
{
	if (pagemap->fd >= 0)
		close(pagemap->fd);
	pagemap->fd = -1;
}

/* A growing answer: the extents of the caller, filled and joined. */
struct answer {
	struct page_extent *extents;
	int count, space;
};

/* false when it is full. */
static bool answer_add(struct answer *answer, uint64_t start, uint64_t end, uint32_t categories)
{
	struct page_extent *last = answer->count ? &answer->extents[answer->count - 1] : NULL;
	if (last && last->end == start && last->categories == categories) {
		last->end = end;
		return true;
	}
	if (answer->count == answer->space)
		return false;
	answer->extents[answer->count++] = (struct page_extent){ start, end, categories };
	return true;
}

/* A guard is a marker in the place of a swap entry, so the kernel says "swapped" as well (both ways, 6.18): nothing
 * is swapped there. From 6.13 to 6.14 it says only that, and reading the page gives EFAULT. */
static uint32_t categories_of_scan(uint64_t scanned)
{
	if (scanned & SCAN_GUARD)
		return PAGE_GUARD;
	return (scanned & SCAN_PRESENT ? PAGE_PRESENT : 0) | (scanned & SCAN_SWAPPED ? PAGE_SWAPPED : 0) |
	       (scanned & SCAN_FILE ? PAGE_FILE : 0) | (scanned & SCAN_PFNZERO ? PAGE_ZERO : 0) |
	       (scanned & SCAN_WRITTEN ? PAGE_WRITTEN : 0);
}

static uint32_t categories_of_entry(const struct pagemap *pagemap, uint64_t entry)
{
	if (entry & ENTRY_GUARD)
		return PAGE_GUARD;
	if (!(entry & (ENTRY_PRESENT | ENTRY_SWAPPED)))
		return 0;
	return (entry & ENTRY_PRESENT ? PAGE_PRESENT : 0) | (entry & ENTRY_SWAPPED ? PAGE_SWAPPED : 0) |
	       (entry & ENTRY_FILE && !pagemap->anonymous ? PAGE_FILE : 0);
}

/* One system call; the kernel stops early when the regions are used up, and it does not join all neighbours. */
static int scan_step(const struct pagemap *pagemap, uint64_t *at, uint64_t end, struct answer *answer)
{
	struct scan_region regions[BATCH];
	int space = answer->space - answer->count;
	uint64_t next;
	int count = scan(pagemap, *at, end, regions, space < BATCH ? space : BATCH, 0, &next);
	for (int i = 0; i < count; i++) /* all fit: there are no more than were asked for */
		answer_add(answer, regions[i].start, regions[i].end, categories_of_scan(regions[i].categories));
	if (count >= 0)
		*at = next;
	return count < 0 ? count : 0;
}

static int scan_changed(const struct pagemap *pagemap, uint64_t *at, uint64_t end, struct answer *answer)
{
	struct scan_region regions[BATCH];
	const int space = answer->space - answer->count;
	uint64_t next = *at;
	/* These masks and no others are the short way. */
	struct scan_arg arg = {
		.size = sizeof arg, .flags = SCAN_CHECK_WPASYNC, .start = *at, .end = end,
		.vec = (uintptr_t)regions, .vec_len = (uint64_t)(space < BATCH ? space : BATCH),
		.category_mask = SCAN_WRITTEN, .return_mask = SCAN_WRITTEN,
	};
	int count = scan_ask(pagemap, &arg, &next);
	for (int i = 0; i < count; i++)
		answer_add(answer, regions[i].start, regions[i].end, PAGE_WRITTEN);
	if (count >= 0)
		*at = next;
	return count < 0 ? count : 0;
}

/* A block of entries. Ends early, in front of the page that did not fit. */
static int read_step(const struct pagemap *pagemap, uint64_t *at, uint64_t end, struct answer *answer)
{
	enum { BLOCK = 16 << 10 };
	uint64_t entries[BLOCK], pages = (end - *at + PAGE_BYTES - 1) / PAGE_BYTES;
	size_t wanted = (pages < BLOCK ? pages : BLOCK) * ENTRY_BYTES;
	ssize_t n = pread(pagemap->fd, entries, wanted, (off_t)(*at / PAGE_BYTES * ENTRY_BYTES));
	if (n <= 0) /* the address space is gone; within it there are only entries */
		return n < 0 ? (errno == EINTR ? 0 : -errno) : -ESRCH;
	for (ssize_t i = 0; i < n / ENTRY_BYTES; i++, *at += PAGE_BYTES) {
		uint32_t categories = categories_of_entry(pagemap, entries[i]);
		if (categories && !answer_add(answer, *at, *at + PAGE_BYTES, categories))
			return 1;
	}
	return 0;
}

static int scan_fault(struct fault *fault, int error, uint64_t start)
{
	return fault_set(fault, fault_class_of(error), error, "pagemap from 0x%llx: %s; try again", (unsigned long long)start, strerror(error));
}

int pagemap_extents(const struct pagemap *pagemap, uint64_t start, uint64_t end, struct page_extent *ret_extents,
		    int space, uint64_t *ret_next, struct fault *fault)
{
	struct answer answer = { ret_extents, 0, space };
	uint64_t at = start;
	int rc = 0;
	if (start > INT64_MAX) /* [vsyscall] has no page tables of the process */
		at = end;
	while (rc == 0 && at < end && (pagemap->scan ? answer.count < space : true))
		rc = pagemap->scan ? scan_step(pagemap, &at, end, &answer) : read_step(pagemap, &at, end, &answer);
	if (rc < 0)
		return scan_fault(fault, -rc, start);
	*ret_next = at < end ? at : end;
	return answer.count;
}

int pagemap_changed(const struct pagemap *pagemap, uint64_t start, uint64_t end, struct page_extent *ret_extents,
		    int space, uint64_t *ret_next, struct fault *fault)
{
	struct answer answer = { ret_extents, 0, space };
	uint64_t at = start;
	int rc = 0;
	while (rc == 0 && at < end && answer.count < space)
		rc = scan_changed(pagemap, &at, end, &answer);
	if (rc < 0)
		return scan_fault(fault, -rc, start);
	*ret_next = at < end ? at : end;
	return answer.count;
}

int pagemap_next(const struct pagemap *pagemap, uint64_t start, uint64_t end, uint64_t *ret_address, struct fault *fault)
{
	struct scan_region region;
	struct pagemap plain = { .fd = pagemap->fd, .scan = pagemap->scan, .guards = pagemap->guards, .anonymous = true };
	uint64_t next;
	*ret_address = start;
	if (!pagemap->scan)
		return 0;
	int count = scan(&plain, start, end, &region, 1, 1, &next);
	if (count < 0)
		return scan_fault(fault, -count, start);
	*ret_address = count ? region.start : end;
	return 0;
}
