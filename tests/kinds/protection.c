/* SPDX-License-Identifier: Apache-2.0 */
/* variant parts: a mapping split by mprotect into many parts keeps each protection and all contents */
/* variant many: 20,000 mappings come back as they were */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096 };

/* The permissions column of the mapping of an address. */
static void permissions(const void *at, char ret[5])
{
	FILE *stream = fopen("/proc/self/maps", "re");
	char line[4200];
	strcpy(ret, "none");
	while (stream && fgets(line, sizeof line, stream)) {
		unsigned long start, end;
		char found[5];
		if (sscanf(line, "%lx-%lx %4s", &start, &end, found) == 3 && (unsigned long)at >= start && (unsigned long)at < end)
			strcpy(ret, found);
	}
	if (stream)
		fclose(stream);
}

static void parts(void)
{
	static const int protections[] = { PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC, PROT_EXEC,
					   PROT_READ | PROT_WRITE | PROT_EXEC };
	static const char *const texts[] = { "r--p", "rw-p", "---p", "r-xp", "--xp", "rwxp" };
	enum { PARTS = 600 };
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, PARTS * PAGE, PROT_READ | PROT_WRITE,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	probe_fill(at, PARTS * PAGE, 2);
	for (int i = 0; i < PARTS; i++)
		PROBE(mprotect(at + i * PAGE, PAGE, protections[i % 6]));

	probe_save();

	for (int i = 0; i < PARTS; i += 7) {
		char found[5];
		permissions(at + i * PAGE, found);
		if (strcmp(found, texts[i % 6]))
			probe_differs("part %d is %s, was %s", i, found, texts[i % 6]);
	}
	PROBE_SAME(mprotect(at, PARTS * PAGE, PROT_READ), 0, "mprotect of all");
	probe_filled(at, PARTS * PAGE, 2, "contents");
}

static void many(void)
{
	enum { COUNT = 20000 };
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (int i = 0; i < COUNT; i += 100)
		at[i * PAGE] = (unsigned char)(i / 100 + 1);
	for (int i = 0; i < COUNT; i += 2)
		PROBE(mprotect(at + i * PAGE, PAGE, PROT_READ));
	probe_save();
	for (int i = 0; i < COUNT; i += 100)
		PROBE_SAME(at[i * PAGE], (unsigned char)(i / 100 + 1), "first byte of a page");
	for (int i = 1; i < COUNT; i += 200)
		at[i * PAGE] = 1;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "many"))
		many();
	else
		parts();
	return probe_end();
}
