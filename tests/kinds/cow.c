/* SPDX-License-Identifier: Apache-2.0 */
/* variant family: pages that a family shares copy-on-write are shared again, and those that differ stay apart, whoever wrote, unmapped or moved what */
/* variant alone: children whose parent has overwritten everything share with each other */
/* variant fifty: fifty children of a parent with 200 MB need as much memory afterwards as before */
#include "probe.h"

#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE = 4096, PAGES = 6000, CHILDREN = 6, WORDS = PAGE / 8 };

struct board {
	volatile int ready, go, done;
	volatile long pss[CHILDREN + 2];
	volatile int faults;
};
static struct board *board;
static unsigned char *memory, *file;
static bool gone[PAGES], zero[PAGES], kept[PAGES]; /* of this process: not mapped, dropped, not to be written */
static uint64_t wanted[PAGES];        /* seeds; 0: as at the beginning */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
	return (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
}

static void fill(long page, uint64_t seed)
{
	uint64_t *at = (uint64_t *)(void *)(memory + page * PAGE);
	for (size_t i = 0; i < WORDS; i++)
		at[i] = mix(seed * 1000003 + i);
	wanted[page] = seed;
}

/* Without stdio: many processes say it. */
static void verify(const char *who)
{
	for (long page = 0; page < PAGES; page++) {
		const uint64_t *at = (const uint64_t *)(const void *)(memory + page * PAGE);
		for (size_t i = 0; i < WORDS && !gone[page]; i++)
			if (at[i] != (zero[page] ? 0 : mix(wanted[page] * 1000003 + i))) {
				probe_differs("%s: page %ld, word %zu", who, page, i);
				break;
			}
	}
}

static long own_pss(void)
{
	const char *line = probe_proc("smaps_rollup", "Pss:");
	return atol(line);
}

static void write_some(int who, int count)
{
	for (int i = 0; i < count; i++) {
		long page = (who * 977L + i * 131L) % PAGES;
		if (!gone[page] && !kept[page]) {
			fill(page, (uint64_t)(100000 * (who + 1) + page));
			zero[page] = false;
		}
	}
}

/* Something else for each child. */
static void be_odd(int who)
{
	switch (who) {
	case 0:
		PROBE(mprotect(memory + 1000 * PAGE, 500 * PAGE, PROT_READ));
		for (int i = 1000; i < 1500; i++)
			kept[i] = true;
		break;
	case 1:
		PROBE(munmap(memory + 2000 * PAGE, 100 * PAGE));
		for (int i = 2000; i < 2100; i++)
			gone[i] = true;
		break;
	case 2: /* dropped, and written again in part */
		PROBE(madvise(memory + 3000 * PAGE, 700 * PAGE, MADV_DONTNEED));
		for (int i = 3000; i < 3700; i++)
			zero[i] = true;
		fill(3100, 77);
		zero[3100] = false;
		break;
	case 3: { /* two parts change places: their pages are at other addresses than the parent's */
		unsigned char *aside = PROBE((unsigned char *)mmap(NULL, 50 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		PROBE((unsigned char *)mremap(memory + 4000 * PAGE, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, aside));
		PROBE((unsigned char *)mremap(memory + 4050 * PAGE, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory + 4000 * PAGE));
		PROBE((unsigned char *)mremap(aside, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory + 4050 * PAGE));
		for (int i = 4000; i < 4050; i++) {
			uint64_t seed = wanted[i];
			wanted[i] = wanted[i + 50];
			wanted[i + 50] = seed;
		}
		break;
	}
	case 4: /* other memory at the same address */
		PROBE((unsigned char *)mmap(memory + 5000 * PAGE, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		for (int i = 5000; i < 5300; i++)
			zero[i] = true;
		PROBE(setsid());
		break;
	default: /* advice that cannot be taken back */
		PROBE(madvise(memory + 5500 * PAGE, 200 * PAGE, MADV_DONTFORK));
	}
}

static void child_runs(int who, bool odd)
{
	if (odd)
		be_odd(who);
	write_some(who, odd ? 200 : 20);
	if (file)
		file[who * 16] = (unsigned char)(200 + who);
	__atomic_add_fetch(&board->ready, 1, __ATOMIC_SEQ_CST);
	probe_wait();
	while (!board->go)
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	board->pss[who] = own_pss();
	char name[32];
	snprintf(name, sizeof name, "child %d", who);
	verify(name);
	if (file)
		PROBE_SAME(file[who * 16], 200 + who, "its own byte in the copy of a file's page");
	if (file)
		PROBE_SAME(file[PAGE], 5, "a byte that the parent wrote there before the fork");
	write_some(who + 50, 30); /* nobody else may see this */
	__atomic_add_fetch(&board->done, 1, __ATOMIC_SEQ_CST);
	while (board->done <= CHILDREN)
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	verify(name);
	fflush(stdout);
	_exit(probe_faults != 0);
}

static long total_pss(void)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	FILE *children = fopen(path, "re");
	long total = own_pss();
	int pid;
	while (children && fscanf(children, "%d", &pid) == 1) {
		snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
		FILE *rollup = fopen(path, "re");
		char line[256];
		long kilobytes;
		while (rollup && fgets(line, sizeof line, rollup))
			if (sscanf(line, "Pss: %ld", &kilobytes) == 1)
				total += kilobytes;
		if (rollup)
			fclose(rollup);
	}
	if (children)
		fclose(children);
	return total;
}

/* A figure that tests/run -v shows, and whether it is within a tenth. */
static void compare_memory(long before, long after)
{
	printf("note: all together had %ld kB in memory (Pss), and have %ld\n", before, after);
	if (labs(after - before) > before / 10)
		probe_differs("more than a tenth lies between the two");
}

static void fifty(void)
{
	enum { COUNT = 50, LARGE = 200 * 1024 * 1024 / PAGE, OWN = 64 };
	uint64_t *at = PROBE((uint64_t *)mmap(NULL, (size_t)LARGE * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	pid_t children[COUNT];
	for (uint64_t i = 0; i < LARGE * (uint64_t)WORDS; i += 8)
		at[i] = mix(i);
	for (int child = 0; child < COUNT; child++) {
		if ((children[child] = PROBE(fork())))
			continue;
		const uint64_t first = (uint64_t)child * 700, own = UINT64_C(1) << 63 | (uint64_t)child;
		for (uint64_t page = first; page < first + OWN; page++)
			at[page * WORDS] = own;
		__atomic_add_fetch(&board->ready, 1, __ATOMIC_SEQ_CST);
		probe_wait();
		while (!board->go)
			nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
		for (uint64_t page = 0; page < LARGE; page++)
			if (at[page * WORDS] != (page - first < OWN ? own : mix(page * WORDS)))
				_exit(1);
		_exit(0);
	}
	while (board->ready < COUNT)
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	long before = total_pss();
	probe_save();
	compare_memory(before, total_pss());
	board->go = 1;
	for (int child = 0; child < COUNT; child++)
		probe_join(children[child], "child");
}

int main(int argc, char **argv)
{
	bool alone = argc > 1 && !strcmp(argv[1], "alone");
	board = PROBE((struct board *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	if (argc > 1 && !strcmp(argv[1], "fifty")) {
		fifty();
		return probe_end();
	}
	memory = PROBE((unsigned char *)mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (long page = 0; page < PAGES; page++)
		fill(page, (uint64_t)page + 1);
	int fd = PROBE(open("mapped", O_RDWR | O_CREAT, 0600));
	PROBE(ftruncate(fd, 300 * PAGE));
	file = PROBE((unsigned char *)mmap(NULL, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	memset(file + PAGE, 5, 290 * PAGE);
	pid_t pids[CHILDREN];
	for (int i = 0; i < CHILDREN; i++)
		if (!(pids[i] = PROBE(fork())))
			child_runs(i, !alone);
	if (!PROBE(fork()))
		_exit(7); /* a zombie among them */
	while (board->ready < CHILDREN)
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	/* What the parent overwrites the children still share. */
	for (long page = 0; page < PAGES; page += alone ? 1 : 9)
		fill(page, (uint64_t)page + 7000);
	long before = total_pss();

	probe_save();

	long after = total_pss();
	if (after > before + before / 10 + 512)
		probe_differs("all together have %ld kB in memory (Pss), had %ld", after, before);
	verify("parent");
	board->go = 1;
	__atomic_add_fetch(&board->done, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < CHILDREN; i++)
		probe_join(pids[i], "child");
	PROBE_SAME(file[PAGE], 5, "a byte in the copy of a file's page");
	verify("parent, at the end");
	return probe_end();
}
