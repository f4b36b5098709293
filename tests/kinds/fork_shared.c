/* SPDX-License-Identifier: Apache-2.0 */
/* probe: memory shared across fork is shared afterwards, at other addresses and offsets too; private memory is not */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 32 };

int main(void)
{
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
