/* SPDX-License-Identifier: Apache-2.0 */
/* A guard region (MADV_GUARD_INSTALL, 6.13) looks swapped to PAGEMAP_SCAN and in pagemap; from 6.15 on, a category and
 * a bit of their own tell it apart. Reading it from outside is EFAULT. Who takes it for a swapped page tries to
 * save what cannot be read. */
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "fact.h"

struct region {
	uint64_t start, end, categories;
};
struct scan { /* include/uapi/linux/fs.h of 6.18, struct pm_scan_arg */
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
enum { IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, IS_GUARD = 1 << 8, GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

static bool scanned(const char *memory, size_t page)
{
	struct region region = { 0 };
	uint64_t all = IS_PRESENT | IS_SWAPPED | IS_GUARD;
	struct scan scan = { .size = sizeof scan, .start = (uintptr_t)memory, .end = (uintptr_t)memory + 4 * page,
			     .vec = (uintptr_t)&region, .vec_len = 1, .category_anyof_mask = IS_SWAPPED,
			     .return_mask = all };
	int fd = (int)fact_need(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), "/proc/self/pagemap");
	int count = ioctl(fd, _IOWR('f', 16, struct scan), &scan);
	if (count < 0)
		fact_skip("PAGEMAP_SCAN with PAGE_IS_GUARD: %s", strerror(errno));
	bool holds = fact(count == 1 && region.start == (uintptr_t)memory + 2 * page && region.end - region.start == page,
			  "the scan finds one page that is swapped");
	holds &= fact(region.categories == (IS_SWAPPED | IS_GUARD), "its categories are 0x%llx",
		      (unsigned long long)region.categories);
	uint64_t entry = 0;
	fact_need(pread(fd, &entry, 8, (off_t)(region.start / page * 8)), "read of pagemap");
	close(fd);
	return holds & fact(entry >> 62 == 1 && entry >> 58 & 1, "its entry in pagemap is 0x%llx: swapped and a guard",
			    (unsigned long long)entry);
}

static bool unreadable(const char *page)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { (void *)page, 1 };
	ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	int error = errno, fd = (int)fact_need(open("/proc/self/mem", O_RDONLY | O_CLOEXEC), "/proc/self/mem");
	bool holds = fact(n < 0 && error == EFAULT, "process_vm_readv: %s", n < 0 ? strerror(error) : "read");
	n = pread(fd, &byte, 1, (off_t)(uintptr_t)page);
	error = errno;
	close(fd);
	return holds & fact(n < 0 && error == EIO, "/proc/PID/mem: %s", n < 0 ? strerror(error) : "read");
}

int main(void)
{
	fact_start();
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory[0] = memory[2 * page] = 1;
	if (madvise(memory + 2 * page, page, GUARD_INSTALL) < 0)
		fact_skip("MADV_GUARD_INSTALL: %s", strerror(errno));
	bool holds = scanned(memory, page);
	holds &= unreadable(memory + 2 * page);
	madvise(memory + 2 * page, page, GUARD_REMOVE);
	holds &= fact(memory[2 * page] == 0, "what was there before the guard is gone");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
