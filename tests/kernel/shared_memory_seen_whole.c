/* SPDX-License-Identifier: Apache-2.0 */
/* A shared mapping can be made a second time by mremap(2) with an old length of 0, longer than the first, and moved to the object's
 * start by remap_file_pages(2), though neither the descriptor nor /proc/self/map_files can be had. mincore(2) tells holes, and
 * MADV_POPULATE_READ where the object ends. */
#include "fact.h"

enum { PAGE = 4096, PAGES = 64, VIEW = 8, MADV_POPULATE_READ_ = 22 };

int main(void)
{
	fact_start();
	unsigned char seen[PAGES + 8];
	unsigned char *all = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned char *place = mmap(NULL, 2 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fact_need(all == MAP_FAILED || place == MAP_FAILED ? -1 : 0, "mmap");
	all[1 * PAGE] = 1, all[VIEW * PAGE] = 2, all[60 * PAGE] = 3;
	munmap(all, VIEW * PAGE);
	munmap(all + 2 * VIEW * PAGE, (PAGES - 2 * VIEW) * PAGE);
	mprotect(all + VIEW * PAGE, VIEW * PAGE, PROT_NONE);

	void *twin = mremap(all + VIEW * PAGE, 0, (PAGES + 8) * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	bool holds = fact(twin == place, "a second, longer mapping of an unreadable one (%s)", twin == MAP_FAILED ? strerror(errno) : "made");
	if (!holds)
		return FACT_FAILS;
	holds &= fact(remap_file_pages(place, (PAGES + 8) * PAGE, 0, 0, MAP_NONBLOCK) == 0, "it is moved to the object's start");
	holds &= fact(mincore(place, (PAGES + 8) * PAGE, seen) == 0, "mincore of it");
	int count = 0;
	for (int i = 0; i < PAGES + 8; i++)
		count += seen[i] & 1;
	holds &= fact(count == 3 && (seen[1] & 1) && (seen[VIEW] & 1) && (seen[60] & 1), "mincore sees %d of 3 pages, and no holes", count);
	mprotect(place, (PAGES + 8) * PAGE, PROT_READ);
	holds &= fact(place[PAGE] == 1 && place[VIEW * PAGE] == 2 && place[60 * PAGE] == 3, "they are the object's");
	int inside = madvise(place + (PAGES - 1) * PAGE, PAGE, MADV_POPULATE_READ_);
	if (inside < 0 && errno == EINVAL)
		fact_skip("MADV_POPULATE_READ (5.14)");
	int outside = madvise(place + PAGES * PAGE, PAGE, MADV_POPULATE_READ_);
	holds &= fact(inside == 0 && outside < 0 && errno == EFAULT, "the last page can be populated, the one behind it cannot");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
