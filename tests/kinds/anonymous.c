/* SPDX-License-Identifier: Apache-2.0 */
/* variant private: private anonymous memory keeps its contents, its zero pages and its holes */
/* variant large: 200 MiB of memory in many pieces keep their contents */
/* variant shared: shared anonymous memory keeps its contents, also behind a smaller mapping of it */
#include "probe.h"

#include <sys/mman.h>

static unsigned char *map(size_t size, int flags)
{
	return PROBE((unsigned char *)mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0));
}

static void private(void)
{
	enum { PAGES = 1000, PAGE = 4096 };
	unsigned char *at = map(PAGES * PAGE, MAP_PRIVATE);
	for (int i = 0; i < PAGES; i++)
		if (i % 7 == 0)
			probe_fill(at + i * PAGE, PAGE, (unsigned)i);
		else if (i % 7 == 1)
			at[i * PAGE + PAGE - 1] = (unsigned char)i | 1;
		else if (i % 7 == 2)
			memset(at + i * PAGE, 0, PAGE);
	unsigned char *read_only = map(3 * PAGE, MAP_PRIVATE);
	probe_fill(read_only, 3 * PAGE, 9);
	PROBE(mprotect(read_only, 3 * PAGE, PROT_READ));
	unsigned char *none = map(3 * PAGE, MAP_PRIVATE);
	probe_fill(none, 3 * PAGE, 10);
	PROBE(mprotect(none, 3 * PAGE, PROT_NONE));
	unsigned char *fixed = PROBE((unsigned char *)mmap((void *)0x10000, PAGE, PROT_READ | PROT_WRITE,
							   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	probe_fill(fixed, PAGE, 12);

	probe_save();

	for (int i = 0; i < PAGES; i++) {
		static const unsigned char zeros[PAGE];
		if (i % 7 == 0)
			probe_filled(at + i * PAGE, PAGE, (unsigned)i, "full page");
		else
			probe_same_bytes(at + i * PAGE, zeros, PAGE - 1, "zero page");
		if (i % 7 == 1)
			PROBE_SAME(at[i * PAGE + PAGE - 1], (unsigned char)i | 1, "last byte of a page");
	}
	probe_filled(read_only, 3 * PAGE, 9, "read-only pages");
	PROBE(mprotect(none, 3 * PAGE, PROT_READ));
	probe_filled(none, 3 * PAGE, 10, "pages without access");
	probe_filled(fixed, PAGE, 12, "page at a low address");
}

static void large(void)
{
	enum { PIECES = 200, MEGABYTE = 1 << 20 };
	static unsigned char *at[PIECES];
	for (unsigned i = 0; i < PIECES; i++) {
		at[i] = map(MEGABYTE + (i % 3) * 4096, MAP_PRIVATE);
		probe_fill(at[i], MEGABYTE, i);
		if (i % 5 == 0) /* no merging of neighbours */
			PROBE(mprotect(at[i], 4096, PROT_READ));
	}
	probe_save();
	for (unsigned i = 0; i < PIECES; i++)
		probe_filled(at[i], MEGABYTE, i, "a piece");
}

static void shared(void)
{
	enum { PAGE = 4096 };
	unsigned char *at = map(50 * PAGE, MAP_SHARED);
	probe_fill(at, 20 * PAGE, 21);
	probe_fill(at + 40 * PAGE, 10 * PAGE, 22);
	/* Part of it is unmapped: what is behind can only be seen through the rest of the object. */
	PROBE(munmap(at + 10 * PAGE, 5 * PAGE));
	unsigned char *again = PROBE((unsigned char *)mremap(at + 40 * PAGE, 0, 10 * PAGE, MREMAP_MAYMOVE));
	at[40 * PAGE] ^= 1;

	probe_save();

	probe_filled(at, 10 * PAGE, 21, "first part");
	PROBE_SAME(again[0], at[40 * PAGE], "second mapping of the same page");
	at[40 * PAGE] ^= 1;
	probe_filled(again, 10 * PAGE, 22, "second mapping");
	again[PAGE] = 77;
	PROBE_SAME(at[41 * PAGE], 77, "a store seen through the other mapping");
	unsigned char *hole = at + 10 * PAGE;
	PROBE_TRUE(mincore(hole, PAGE, again) == -1 && errno == ENOMEM, "the hole is a hole");
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "private";
	if (!strcmp(variant, "private"))
		private();
	else if (!strcmp(variant, "large"))
		large();
	else
		shared();
	return probe_end();
}
