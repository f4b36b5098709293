/* SPDX-License-Identifier: Apache-2.0 */
/* variant two: memory shared across fork is shared afterwards, at other addresses and offsets too; private memory is not */
/* variant three: memory that three processes see at different offsets, and of which one has unmapped a half, is one object afterwards */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 32 };

/* What each of three sees: [first, first + count) of the object's pages at its own address. */
struct sight {
	int first, count, gone; /* gone: pages from the middle on that it has unmapped */
};

static void check_sight(const struct sight *sight, const unsigned char *at, const char *who)
{
	for (int i = 0; i < sight->count - sight->gone; i++)
		if (at[i * PAGE] != (unsigned char)(sight->first + i + 1))
			probe_differs("%s: page %d shows %d, wanted %d", who, sight->first + i, at[i * PAGE], sight->first + i + 1);
	char unmapped;
	if (sight->gone && mincore((void *)(at + (sight->count - sight->gone) * PAGE), PAGE, (unsigned char *)&unmapped) == 0)
		probe_differs("%s: has again what it had unmapped", who);
}

static int three(void)
{
	static const struct sight sights[3] = { { 0, PAGES, 0 }, { 7, PAGES - 7, 0 }, { 3, 20, 10 } };
	int fd = PROBE((int)syscall(SYS_memfd_create, "three", 0));
	PROBE(ftruncate(fd, PAGES * PAGE));
	volatile int *turn = PROBE((volatile int *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t children[2];
	unsigned char *at = NULL;
	int who;
	for (who = 2; who >= 0; who--)
		if (who == 0 || !(children[who - 1] = PROBE(fork())))
			break;
	const struct sight *sight = &sights[who];
	at = PROBE((unsigned char *)mmap(NULL, (size_t)sight->count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, sight->first * PAGE));
	if (sight->gone)
		PROBE(munmap(at + (sight->count - sight->gone) * PAGE, (size_t)sight->gone * PAGE));
	PROBE(close(fd));
	if (who == 0)
		for (int i = 0; i < PAGES; i++)
			at[i * PAGE] = (unsigned char)(i + 1);
	__atomic_add_fetch(turn, 1, __ATOMIC_SEQ_CST);
	while (*turn < 3)
		;
	if (who) {
		probe_wait();
		check_sight(sight, at, who == 1 ? "the second" : "the third");
		while (*turn != 2 + 2 * who)
			;
		at[5 * PAGE + 9] = (unsigned char)(100 + who);
		++*turn;
		fflush(stdout);
		_exit(probe_faults != 0);
	}
	probe_save();
	check_sight(sight, at, "the first");
	for (int child = 1; child <= 2; child++) {
		*turn = 2 + 2 * child;
		while (*turn != 3 + 2 * child)
			;
		PROBE_SAME(at[(sights[child].first + 5) * PAGE + 9], 100 + child, "what another one stored, seen at another offset");
		probe_join(children[child - 1], "child");
	}
	return probe_end();
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "three"))
		return three();
	unsigned char *shared = PROBE((unsigned char *)mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
							    MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	unsigned char *private = PROBE((unsigned char *)mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
							     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	probe_fill(shared, PAGES * PAGE, 1);
	probe_fill(private, PAGES * PAGE, 2);
	volatile int *turn = PROBE((volatile int *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t child = PROBE(fork());
	if (!child) {
		/* Only the upper half, elsewhere. */
		unsigned char *moved = PROBE((unsigned char *)mremap(shared + PAGES / 2 * PAGE, PAGES / 2 * PAGE,
								     PAGES / 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP) == (void *)-1
						     ? (unsigned char *)mremap(shared + PAGES / 2 * PAGE, 0, PAGES / 2 * PAGE,
									       MREMAP_MAYMOVE)
						     : shared);
		if (moved == shared)
			moved = shared + PAGES / 2 * PAGE;
		else
			PROBE(munmap(shared, PAGES * PAGE));
		private[0] ^= 0xff;
		*turn = 1;
		probe_wait();
		while (*turn != 2)
			;
		PROBE_SAME(moved[5], 201, "what the parent stored, seen by the child");
		moved[6] = 202;
		private[0] ^= 0xff;
		probe_filled(private, PAGES * PAGE, 2, "private memory of the child");
		*turn = 3;
		_exit(probe_faults != 0);
	}
	while (*turn != 1)
		;

	probe_save();

	probe_filled(shared, PAGES * PAGE, 1, "shared memory");
	probe_filled(private, PAGES * PAGE, 2, "private memory of the parent");
	private[7] = 99;
	shared[PAGES / 2 * PAGE + 5] = 201;
	*turn = 2;
	probe_join(child, "child");
	PROBE_SAME(*turn, 3, "turn");
	PROBE_SAME(shared[PAGES / 2 * PAGE + 6], 202, "what the child stored, seen by the parent");
	return probe_end();
}
