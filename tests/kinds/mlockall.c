/* SPDX-License-Identifier: Apache-2.0 */
/* variant future: mlockall(MCL_FUTURE) holds for what is mapped after a restore */
/* variant onfault: and so does MCL_ONFAULT, which leaves it empty until it is touched */
/* variant none: what was locked by mlockall(MCL_CURRENT) is locked, and what is mapped later is not */
/* variant undone: nor is anything locked after munlockall */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096, SIZE = 8 * PAGE };

static unsigned char *map_new(void)
{
	/* Shared: no neighbour takes it in. */
	return PROBE((unsigned char *)mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

static int count_present(const unsigned char *at)
{
	unsigned char pages[SIZE / PAGE];
	int count = 0;
	PROBE(mincore((void *)(uintptr_t)at, SIZE, pages));
	for (size_t i = 0; i < sizeof pages; i++)
		count += pages[i] & 1;
	return count;
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "future";
	unsigned char *early = map_new();
	int flags = !strcmp(variant, "future") ? MCL_FUTURE : !strcmp(variant, "onfault") ? MCL_FUTURE | MCL_ONFAULT : MCL_CURRENT;
	if (mlockall(flags) < 0)
		probe_skip("mlockall: %s", strerror(errno));
	if (!strcmp(variant, "undone"))
		PROBE(munlockall());
	/* Locked, and then forbidden: its one page is private, and filled. */
	unsigned char *forbidden = PROBE((unsigned char *)mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) + PAGE;
	forbidden[0] = 'f';
	PROBE(mlock(forbidden, PAGE));
	PROBE(mprotect(forbidden, PAGE, PROT_NONE));
	bool current = flags & MCL_CURRENT && strcmp(variant, "undone"), future = flags & MCL_FUTURE;

	probe_save();

	PROBE_SAME(probe_has_flag(forbidden, " lo"), true, "a page without access is locked");
	PROBE(mprotect(forbidden, PAGE, PROT_READ));
	PROBE_SAME(forbidden[0], 'f', "what is in it");
	unsigned char *late = map_new();
	PROBE_SAME(probe_has_flag(early, " lo"), current, "a mapping from before is locked");
	PROBE_SAME(probe_has_flag(late, " lo"), future, "a mapping from after is locked");
	PROBE_SAME(probe_has_flag(late, " lf"), !strcmp(variant, "onfault"), "a mapping from after is locked on fault");
	PROBE_SAME(count_present(late), !strcmp(variant, "future") ? SIZE / PAGE : 0, "pages of it that are there");
	return probe_end();
}
