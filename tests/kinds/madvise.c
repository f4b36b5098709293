/* SPDX-License-Identifier: Apache-2.0 */
/* probe: advice and locks of mappings are kept, as smaps shows them */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096, SIZE = 8 << 20 };

static void flags_of(const void *at, char *ret, size_t size)
{
	FILE *stream = fopen("/proc/self/smaps", "re");
	char line[4200];
	bool here = false;
	ret[0] = 0;
	while (stream && fgets(line, sizeof line, stream)) {
		unsigned long start, end;
		char found[5];
		if (sscanf(line, "%lx-%lx %4s", &start, &end, found) == 3)
			here = (unsigned long)at >= start && (unsigned long)at < end;
		else if (here && !strncmp(line, "VmFlags:", 8))
			snprintf(ret, size, "%s", line + 9);
	}
	if (stream)
		fclose(stream);
	/* "soft dirty" is the kernel's own note and changes by a store. */
	char *dirty = strstr(ret, "sd ");
	if (dirty)
		memmove(dirty, dirty + 3, strlen(dirty + 3) + 1);
}

int main(void)
{
	static const int advice[] = { MADV_NORMAL, MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_SEQUENTIAL, MADV_RANDOM,
				      MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE, -1, -2 };
	enum { COUNT = sizeof advice / sizeof *advice };
	unsigned char *at[COUNT];
	char before[COUNT][256];
	for (int i = 0; i < COUNT; i++) {
		at[i] = PROBE((unsigned char *)mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		PROBE(mprotect(at[i] + SIZE - PAGE, PAGE, PROT_NONE)); /* no merging */
		probe_fill(at[i], 2 * PAGE, (unsigned)i);
		if (advice[i] >= 0 && madvise(at[i], SIZE - PAGE, advice[i]))
			printf("note: madvise %d: %s\n", advice[i], strerror(errno));
		if (advice[i] == -1 && mlock(at[i], 4 * PAGE))
			printf("note: mlock: %s\n", strerror(errno));
		if (advice[i] == -2 && mlock2(at[i], SIZE - PAGE, MLOCK_ONFAULT))
			printf("note: mlock2: %s\n", strerror(errno));
	}
	for (int i = 0; i < COUNT; i++)
		flags_of(at[i], before[i], sizeof before[i]);

	probe_save();

	for (int i = 0; i < COUNT; i++) {
		char after[256];
		flags_of(at[i], after, sizeof after);
		if (strcmp(before[i], after))
			probe_differs("advice %d: flags are %.*s, were %s", advice[i], (int)strcspn(after, "\n"), after, before[i]);
		probe_filled(at[i], 2 * PAGE, (unsigned)i, "contents");
	}
	return probe_end();
}
