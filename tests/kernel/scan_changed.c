/* SPDX-License-Identifier: Apache-2.0 */
/* The short way of PAGEMAP_SCAN, which only asks for written pages, says of private anonymous memory under asynchronous write protection also what was
 * given back, what came anew, and what was never there, with page tables or without: what it does not say is there, unwritten. */
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "fact.h"

struct region {
	uint64_t start, end, categories;
};
struct scan { /* include/uapi/linux/fs.h of 6.18, struct pm_scan_arg */
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
enum { IS_WRITTEN = 1 << 1, IS_PRESENT = 1 << 3, WP_MATCHING = 1, CHECK_WPASYNC = 2, PAGE = 4096, TABLE = 2 << 20, TABLES = 4, LINE = 16 };

static char *memory;
static int pagemap;

static int scan_all(struct scan scan, struct region *regions, int space)
{
	scan.size = sizeof scan;
	scan.start = (uintptr_t)memory;
	scan.end = (uintptr_t)memory + TABLES * TABLE;
	scan.vec = (uintptr_t)regions;
	scan.vec_len = (uint64_t)space;
	int count = ioctl(pagemap, _IOWR('f', 16, struct scan), &scan);
	if (count < 0)
		fact_skip("PAGEMAP_SCAN: %s", strerror(errno));
	return count;
}

/* Is the page in what the short way says? */
static bool is_said(size_t page)
{
	struct region regions[64];
	uint64_t at = (uintptr_t)memory + page * PAGE;
	int count = scan_all((struct scan){ .flags = CHECK_WPASYNC, .category_mask = IS_WRITTEN, .return_mask = IS_WRITTEN }, regions, 64);
	for (int i = 0; i < count; i++)
		if (regions[i].start <= at && at < regions[i].end)
			return true;
	return false;
}

static void protect(void)
{
	struct region regions[64];
	scan_all((struct scan){ .flags = CHECK_WPASYNC | WP_MATCHING, .category_anyof_mask = IS_PRESENT, .return_mask = IS_PRESENT | IS_WRITTEN }, regions, 64);
}

int main(void)
{
	fact_start();
	char *area = mmap(NULL, (TABLES + 1) * TABLE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory = (char *)(((uintptr_t)area + TABLE - 1) & ~(uintptr_t)(TABLE - 1));
	pagemap = (int)fact_need(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), "/proc/self/pagemap");
	int fd = (int)fact_need(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */), "userfaultfd");
	struct uffdio_api api = { .api = UFFD_API, .features = 1 << 15 /* UFFD_FEATURE_WP_ASYNC */ };
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		fact_skip("UFFD_FEATURE_WP_ASYNC: %s", strerror(errno));
	struct uffdio_register range = { .range = { (uintptr_t)memory, TABLES * TABLE }, .mode = UFFDIO_REGISTER_MODE_WP };
	fact_need(ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
	madvise(area, (TABLES + 1) * TABLE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < LINE; i++)
		memory[i * PAGE] = 1;
	for (size_t i = 0; i < TABLE / PAGE; i++)
		memory[2 * TABLE + i * PAGE] = 1;
	bool holds = fact(is_said(0), "before any protection all is said");
	protect();
	holds &= fact(!is_said(0) && !is_said(LINE - 1), "what is there and protected is not said");
	holds &= fact(is_said(LINE), "what was never there is said, in a page table that is there");
	holds &= fact(is_said(TABLE / PAGE + 5), "and where there is no page table");
	memory[1 * PAGE] = 2;
	holds &= fact(is_said(1), "what was written is said");
	madvise(memory + 2 * PAGE, PAGE, MADV_DONTNEED);
	holds &= fact(is_said(2), "what was given back is said");
	madvise(memory + 3 * PAGE, PAGE, MADV_DONTNEED);
	volatile char *read = memory + 3 * PAGE;
	holds &= fact(*read == 0 && is_said(3), "and when the zero page is read there");
	madvise(memory + 4 * PAGE, PAGE, MADV_DONTNEED);
	memory[4 * PAGE] = 5;
	holds &= fact(is_said(4), "and when it was written anew");
	madvise(memory + 5 * PAGE, PAGE, MADV_FREE);
	holds &= fact(!is_said(5) && memory[5 * PAGE] == 1, "what may be given back and is there yet is not said");
	madvise(memory + 2 * TABLE, TABLE, MADV_DONTNEED);
	holds &= fact(is_said(2 * TABLE / PAGE) && is_said(3 * TABLE / PAGE - 1), "a whole page table that was given back is said");
	mprotect(memory + 6 * PAGE, PAGE, PROT_READ);
	mprotect(memory + 6 * PAGE, PAGE, PROT_READ | PROT_WRITE);
	holds &= fact(!is_said(6), "a change of protection and back says nothing");
	memory[6 * PAGE] = 1;
	holds &= fact(is_said(6), "but a write after it is said");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
