/* SPDX-License-Identifier: Apache-2.0 */
/* variant parts: a mapping split by mprotect into many parts keeps each protection and all contents */
/* variant many: 65,000 mappings come back as they were */
/* variant limit: a program that has as many mappings as it may (vm.max_map_count) is saved and comes back with them */
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
	enum { PARTS = 1000 };
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

/* Every other page of @at can only be read, and pages in both sorts hold something. */
static void mark(unsigned char *at, int count)
{
	for (int i = 0; i < count; i += 99)
		at[i * PAGE] = (unsigned char)(i / 99 + 1);
}

static void marked(unsigned char *at, int count)
{
	for (int i = 0; i < count; i += 99)
		PROBE_SAME(at[i * PAGE], (unsigned char)(i / 99 + 1), "first byte of a page");
	for (int i = 1; i < count; i += 200)
		at[i * PAGE] = 1;
	for (int i = 0; i < count; i += 9999 + 1) {
		char found[5];
		permissions(at + i * PAGE, found);
		PROBE_TRUE(!strcmp(found, "r--p"), "protection of a page");
	}
}

static void many(void)
{
	enum { COUNT = 65000 };
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	mark(at, COUNT);
	for (int i = 0; i < COUNT; i += 2)
		PROBE(mprotect(at + i * PAGE, PAGE, PROT_READ));
	probe_save();
	marked(at, COUNT);
}

/* Neighbours that the kernel would make one mapping of, if they were mapped anew: they are to stay two. */
static void keep_apart(void)
{
	FILE *stream = PROBE(fopen("/proc/self/maps", "re") ?: (FILE *)-1);
	char line[4200], before[5] = "";
	unsigned long start, end, last = 0;
	int name, offset;
	while (fgets(line, sizeof line, stream)) {
		char found[5];
		if (sscanf(line, "%lx-%lx %4s %x %*s %d", &start, &end, found, &offset, &name) == 5 && start == last && !strcmp(found, before))
			madvise((void *)start, end - start, MADV_DONTDUMP);
		last = end;
		strcpy(before, found);
	}
	fclose(stream);
}

static void limit(void)
{
	int most = 0, count = 0;
	FILE *stream = PROBE(fopen("/proc/sys/vm/max_map_count", "re") ?: (FILE *)-1);
	if (fscanf(stream, "%d", &most) != 1 || most > 100000)
		probe_skip("%d mappings are too many to make", most);
	fclose(stream);
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, (size_t)(most + 2) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	mark(at, most);
	keep_apart();
	while (mprotect(at + count * PAGE, PAGE, PROT_READ) == 0)
		count += 2;
	keep_apart(); /* the last one cut off its page on one side */
	/* mmap(2) grants one more than mprotect(2). */
	while (mmap(NULL, PAGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		;
	probe_save();
	marked(at, count);
	PROBE_SAME(munmap(at, (size_t)count * PAGE), 0, "munmap");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "many"))
		many();
	else if (argc > 1 && !strcmp(argv[1], "limit"))
		limit();
	else
		parts();
	return probe_end();
}
