/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of an io_uring can be mapped only where the kernel wants it, and cannot be moved: but it wants it in the one hole that there is, above its usual
 * range too. */
#include <linux/io_uring.h>

#include "fact.h"

enum { PAGE = 4096, MAP_ABOVE4G_ = 0x80, MOST_HOLES = 256 };
#define USER_END UINT64_C(0x7ffffffff000)

static struct { uint64_t start, end; } holes[MOST_HOLES];

static int find_holes(void)
{
	static char text[1 << 16];
	uint64_t at = 0x10000;
	int count = 0;
	fact_file(text, sizeof text, "/proc/self/maps");
	for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx", &start, &end) != 2 || start >= USER_END)
			continue;
		if (start > at && count < MOST_HOLES - 1)
			holes[count].start = at, holes[count++].end = start;
		at = end;
	}
	holes[count].start = at, holes[count++].end = USER_END;
	return count;
}

static void *map(int fd, void *where, int flags)
{
	return mmap(where, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, IORING_OFF_SQ_RING);
}

static bool is_wanted(int fd, uint64_t wanted)
{
	int count = find_holes();
	for (int i = 0; i < count; i++)
		if (mmap((void *)holes[i].start, holes[i].end - holes[i].start, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) ==
		    MAP_FAILED)
			fact_skip("filling 0x%lx: %s", holes[i].start, strerror(errno));
	munmap((void *)wanted, PAGE);
	void *got = map(fd, NULL, MAP_ABOVE4G_);
	for (int i = 0; i < count; i++)
		munmap((void *)holes[i].start, holes[i].end - holes[i].start);
	return fact((uint64_t)(uintptr_t)got == wanted, "with one hole, at 0x%lx, it is mapped at %p", wanted, got);
}

int main(void)
{
	fact_start();
	struct io_uring_params parameters = { 0 };
	int fd = (int)fact_need(syscall(SYS_io_uring_setup, 8, &parameters), "io_uring_setup");
	char *ring = map(fd, NULL, 0), *place = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *fixed = map(fd, place, MAP_FIXED), *moved = mremap(ring, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place + PAGE);
	bool holds = fact(fixed == MAP_FAILED && moved == MAP_FAILED, "mmap at an address gives %p, mremap to one %p", fixed, moved);
	uint64_t first = (uint64_t)(uintptr_t)ring;
	holds &= is_wanted(fd, first - (UINT64_C(1) << 38));
	holds &= is_wanted(fd, USER_END - 16 * PAGE); /* above the stack */
	holds &= is_wanted(fd, UINT64_C(0x123456789000));
	return holds ? FACT_HOLDS : FACT_FAILS;
}
