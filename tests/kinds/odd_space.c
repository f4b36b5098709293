/* SPDX-License-Identifier: Apache-2.0 */
/* variant shared_twice: a shared mapping doubled by mremap, and one of which remap_file_pages turned the pages round, stay one object each */
/* variant edges: mappings at both ends of the address space, and a page that may not be touched, keep what is in them */
/* variant no_vdso: a program that has unmapped its vdso stays without */
/* variant jit: memory that is written through one mapping and run through another stays the same memory */
#include "probe.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE_SIZE_ = 4096 };
#define NOWHERE ((void *)-1)

static char *map(void *at, size_t size, int protection, int flags)
{
	return PROBE(mmap(at, size, protection, flags | MAP_ANONYMOUS, -1, 0));
}

static void shared_twice(void)
{
	char *one = map(NULL, 4 * PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED);
	probe_fill(one, 4 * PAGE_SIZE_, 11);
	char *two = PROBE(mremap(one, 0, 4 * PAGE_SIZE_, MREMAP_MAYMOVE));
	char *round = map(NULL, 2 * PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED);
	round[0] = 'a', round[PAGE_SIZE_] = 'b';
	bool turned = syscall(SYS_remap_file_pages, round, PAGE_SIZE_, 0, 1, 0) == 0 &&
		      syscall(SYS_remap_file_pages, round + PAGE_SIZE_, PAGE_SIZE_, 0, 0, 0) == 0;

	probe_save();

	probe_filled(two, 4 * PAGE_SIZE_, 11, "the second mapping");
	one[17] = 'x';
	PROBE_SAME(two[17], 'x', "a byte that was written through the first");
	two[PAGE_SIZE_ * 3] = 'y';
	PROBE_SAME(one[PAGE_SIZE_ * 3], 'y', "a byte that was written through the second");
	PROBE_SAME(round[0], turned ? 'b' : 'a', "the first page that was turned");
	PROBE_SAME(round[PAGE_SIZE_], turned ? 'a' : 'b', "the second page that was turned");
}

static void edges(void)
{
	char *top = (char *)((UINT64_C(1) << 47) - 2 * PAGE_SIZE_);
	char *high = mmap(top, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	char *low = mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); /* needs CAP_SYS_RAWIO */
	char *hidden = map(NULL, 3 * PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	if (high != NOWHERE)
		probe_fill(high, PAGE_SIZE_, 21);
	volatile char *first = low;
	if (low != NOWHERE)
		__asm__ volatile("movb $77, (%0)" ::"r"(first) : "memory");
	probe_fill(hidden, 3 * PAGE_SIZE_, 31);
	PROBE(mprotect(hidden + PAGE_SIZE_, PAGE_SIZE_, PROT_NONE));

	probe_save();

	if (high != NOWHERE)
		probe_filled(high, PAGE_SIZE_, 21, "the highest page");
	if (low != NOWHERE) {
		char value;
		__asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(first));
		PROBE_SAME(value, 77, "the lowest page");
	}
	PROBE_SAME(write(STDERR_FILENO, hidden + PAGE_SIZE_, 1), -1, "a look at the hidden page");
	PROBE(mprotect(hidden + PAGE_SIZE_, PAGE_SIZE_, PROT_READ));
	probe_filled(hidden, 3 * PAGE_SIZE_, 31, "the hidden page");
}

static bool has_vdso(void)
{
	char line[512];
	bool found = false;
	FILE *maps = PROBE(fopen("/proc/self/maps", "r") ?: NOWHERE);
	while (fgets(line, sizeof line, maps))
		found |= strstr(line, "[vdso]") || strstr(line, "[vvar");
	fclose(maps);
	return found;
}

static void no_vdso(void)
{
	struct { unsigned long start, end; } parts[4];
	int count = 0;
	char line[512];
	FILE *maps = PROBE(fopen("/proc/self/maps", "r") ?: NOWHERE);
	while (fgets(line, sizeof line, maps))
		if ((strstr(line, "[vdso]") || strstr(line, "[vvar")) && count < 4 &&
		    sscanf(line, "%lx-%lx", &parts[count].start, &parts[count].end) == 2)
			count++;
	fclose(maps);
	for (int i = 0; i < count; i++)
		PROBE(munmap((void *)parts[i].start, parts[i].end - parts[i].start));

	probe_save(); /* no clock is read in it */

	PROBE_SAME(has_vdso(), false, "a vdso");
}

static void jit(void)
{
	static const unsigned char returns_7[] = { 0xb8, 7, 0, 0, 0, 0xc3 }, returns_9[] = { 0xb8, 9, 0, 0, 0, 0xc3 };
	int fd = PROBE(memfd_create("jit", 0));
	PROBE(ftruncate(fd, PAGE_SIZE_));
	char *written = PROBE(mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *run = PROBE(mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
	close(fd);
	memcpy(written, returns_7, sizeof returns_7);
	int (*function)(void);
	memcpy(&function, &run, sizeof function);

	probe_save();

	PROBE_SAME(function(), 7, "what the code returns");
	memcpy(written, returns_9, sizeof returns_9);
	PROBE_SAME(function(), 9, "what the code returns now");
}

int main(int argc, char **argv)
{
	const struct { const char *name; void (*run)(void); } variants[] = {
		{ "shared_twice", shared_twice }, { "edges", edges }, { "no_vdso", no_vdso }, { "jit", jit },
	};
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
		if (argc > 1 && !strcmp(argv[1], variants[i].name))
			variants[i].run();
	return probe_end();
}
