/* SPDX-License-Identifier: Apache-2.0 */
/* instant WHAT [direct]. Programs whose memory tells whether an image of it is one instant. A line per round on standard output; they end when `go` exists, with 0
 * when nothing was wrong.
 *
 * sequence: one thread writes a running number into 10,000 places of private and as many of shared memory, one after the other; what a
 *           place held before is always the number of one turn ago.
 * chaos:    one thread does to its memory whatever a program can do (write, give back, move, protect, map anew, grow), and knows what
 *           every page should hold.
 * sparse:   the same, but little of it at a time, and pages that do not compress.
 * shared:   the same as chaos, by a process that has its memory from another (CLONE_VM).
 * mapped:   the same as fork, for memory that is mapped from an image: nothing is given back by madvise.
 * fork:     the same as chaos, and every now and then a child is forked that checks its own copy.
 * With the word "direct" a file is open with O_DIRECT, so that writes cannot be tracked. */
#include "probe.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE_BYTES = 4096, PLACES = 10000, PAGES = 8192 };

static uint64_t random_state = 88172645463325252u;
static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void *map_anywhere(size_t pages, int flags)
{
	void *memory = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		probe_differs("mmap: %s", strerror(errno));
	return memory;
}

static bool is_over(void)
{
	return access("go", F_OK) == 0;
}

static void say_round(uint64_t number)
{
	printf("round %llu\n", (unsigned long long)number);
	fflush(stdout);
}

static void sequence(void)
{
	uint64_t *private_ = map_anywhere(PLACES, MAP_PRIVATE), *shared = map_anywhere(PLACES, MAP_SHARED), number = 0;
	const size_t step = PAGE_BYTES / sizeof *private_;
	for (uint64_t turn = 0; !is_over(); turn++) {
		for (size_t i = 0; i < PLACES; i++, number++) {
			/* Scattered, so that neighbours are not written at the same time. */
			size_t place = (i * 7919) % PLACES * step;
			uint64_t wanted = turn ? number - PLACES + 1 : 0;
			if (private_[place] != wanted || shared[place] != wanted)
				probe_differs("turn %llu, place %zu: %llu and %llu, wanted %llu", (unsigned long long)turn, i,
					      (unsigned long long)private_[place], (unsigned long long)shared[place],
					      (unsigned long long)wanted);
			private_[place] = number + 1;
			shared[place] = number + 1;
		}
		if (turn % 50 == 0)
			say_round(turn / 50);
	}
}

static char *area;
static uint64_t *wanted; /* of each page: what it begins with; 0: zeros */

static void check_page(size_t page)
{
	uint64_t got = *(volatile uint64_t *)(area + page * PAGE_BYTES);
	if (got != wanted[page])
		probe_differs("page %zu: %llx, wanted %llx", page, (unsigned long long)got, (unsigned long long)wanted[page]);
}

static bool is_sparse, is_mapped;

static void write_pages(size_t page, size_t count)
{
	for (size_t i = page; i < page + count; i++) {
		for (size_t at = 8; is_sparse && at < PAGE_BYTES; at += 8)
			*(uint64_t *)(area + i * PAGE_BYTES + at) = random_next();
		wanted[i] = random_next() | 1;
		*(volatile uint64_t *)(area + i * PAGE_BYTES) = wanted[i];
	}
}

/* Page by page: while its writes are tracked a stretch may lie in several mappings that would be one otherwise, and mremap(2) does not
 * move those together (cairn-checkpoint(1), LIMITS). */
static void move(char *from, char *to, size_t size)
{
	for (size_t at = 0; at < size; at += PAGE_BYTES)
		if (mremap(from + at, PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to + at) != to + at)
			probe_differs("mremap: %s", strerror(errno));
}

/* @most: pages at once, seldom. */
static void disturb(size_t most)
{
	size_t count = 1 + random_next() % (random_next() % 8 ? 8 : most), page = random_next() % (PAGES - count);
	char *at = area + page * PAGE_BYTES;
	size_t size = count * PAGE_BYTES;
	switch (random_next() % 12) {
	case 0: /* given back: zeros */
		if (is_mapped)
			break;
		madvise(at, size, MADV_DONTNEED);
		memset(wanted + page, 0, count * sizeof *wanted);
		break;
	case 1: /* mapped anew in the same place */
		if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
			probe_differs("mmap: %s", strerror(errno));
		memset(wanted + page, 0, count * sizeof *wanted);
		break;
	case 2: { /* moved away and back */
		char *other = map_anywhere(1, MAP_PRIVATE);
		move(at, other, PAGE_BYTES);
		move(other, at, PAGE_BYTES);
		break;
	}
	case 3: { /* two pages change places; seldom, as their mappings stay apart */
		size_t second = random_next() % PAGES;
		if (second == page || random_next() % 64)
			break;
		char *other = map_anywhere(1, MAP_PRIVATE), *to = area + second * PAGE_BYTES;
		move(at, other, PAGE_BYTES);
		move(to, at, PAGE_BYTES);
		move(other, to, PAGE_BYTES);
		uint64_t kept = wanted[page];
		wanted[page] = wanted[second];
		wanted[second] = kept;
		break;
	}
	case 4: /* protections come and go */
		mprotect(at, size, PROT_READ);
		check_page(page);
		mprotect(at, size, PROT_READ | PROT_WRITE);
		break;
	case 5: /* overwritten with zeros */
		memset(at, 0, size);
		memset(wanted + page, 0, count * sizeof *wanted);
		break;
	default:
		write_pages(page, count);
	}
}

static void fork_and_check(void)
{
	pid_t child = fork();
	if (child == 0) {
		for (size_t i = 0; i < PAGES; i++)
			check_page(i);
		_exit(0);
	}
	int status;
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		probe_differs("the child: %s", strerror(errno));
}

static void chaos(bool forks)
{
	area = map_anywhere(PAGES, MAP_PRIVATE);
	wanted = map_anywhere(PAGES * sizeof *wanted / PAGE_BYTES, MAP_PRIVATE);
	madvise(area, (size_t)PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	write_pages(0, PAGES);
	for (uint64_t round = 0; !is_over(); round++) {
		for (int i = 0; i < (is_sparse ? 4 : 100); i++)
			disturb(is_sparse ? 16 : 1024);
		if (is_sparse)
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		for (size_t i = 0; i < PAGES; i++)
			check_page(i);
		if (forks && round % 4 == 0)
			fork_and_check();
		if (round % 4 == 0)
			say_round(round / 4);
	}
}

static int chaos_of_child(void *unused)
{
	(void)unused;
	chaos(false);
	return probe_end();
}

/* The parent only waits: the two have one thread-local storage. */
static int share(void)
{
	enum { STACK = 1 << 20 };
	char *stack = map_anywhere(STACK / PAGE_BYTES, MAP_PRIVATE);
	int status = -1;
	pid_t child = clone(chaos_of_child, stack + STACK, CLONE_VM | SIGCHLD, NULL);
	while (child > 0 && waitpid(child, &status, 0) < 0)
		;
	return status != 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (argc > 2)
		PROBE(open("direct", O_RDWR | O_CREAT | O_DIRECT, 0600));
	is_sparse = !strcmp(what, "sparse");
	is_mapped = !strcmp(what, "mapped");
	if (!strcmp(what, "shared"))
		return share();
	if (!strcmp(what, "sequence"))
		sequence();
	else
		chaos(is_mapped || !strcmp(what, "fork"));
	return probe_end();
}
