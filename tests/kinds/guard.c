/* SPDX-License-Identifier: Apache-2.0 */
/* variant none: reserved memory without access and the gaps between mappings stay free of contents */
/* variant guard: guard regions made by MADV_GUARD_INSTALL still guard */
#include "probe.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { PAGE = 4096 };
static sigjmp_buf back;
static volatile int caught;

static void on_fault(int number)
{
	caught = number;
	siglongjmp(back, 1);
}

static int touch(volatile unsigned char *at)
{
	caught = 0;
	if (!sigsetjmp(back, 1))
		(void)*at;
	return caught;
}

static void none(void)
{
	size_t large = (size_t)64 << 30;
	unsigned char *reserved = PROBE((unsigned char *)mmap(NULL, large, PROT_NONE,
							      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	PROBE(mprotect(reserved + 10 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE));
	probe_fill(reserved + 10 * PAGE, 2 * PAGE, 3);
	PROBE(munmap(reserved + 20 * PAGE, PAGE));

	probe_save();

	PROBE_SAME(touch(reserved), SIGSEGV, "a read of reserved memory");
	PROBE_SAME(touch(reserved + 9 * PAGE), SIGSEGV, "a read before the used part");
	PROBE_SAME(touch(reserved + 20 * PAGE), SIGSEGV, "a read of the gap");
	probe_filled(reserved + 10 * PAGE, 2 * PAGE, 3, "used part");
	PROBE_SAME(mprotect(reserved + large - PAGE, PAGE, PROT_READ | PROT_WRITE), 0, "use of the last page");
	reserved[large - 1] = 1;
}

static void guard(void)
{
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, 30 * PAGE, PROT_READ | PROT_WRITE,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	probe_fill(at, 30 * PAGE, 5);
	if (madvise(at + 4 * PAGE, 3 * PAGE, 102))
		probe_skip("this kernel has no MADV_GUARD_INSTALL (6.13)");

	probe_save();

	PROBE_SAME(touch(at + 3 * PAGE), 0, "a read before the guard");
	for (int i = 4; i < 7; i++)
		PROBE_SAME(touch(at + i * PAGE), SIGSEGV, "a read in the guard");
	PROBE_SAME(touch(at + 7 * PAGE), 0, "a read behind the guard");
	probe_filled(at, 4 * PAGE, 5, "contents before the guard");
	PROBE_SAME(madvise(at + 4 * PAGE, 3 * PAGE, 103), 0, "removal of the guard");
	PROBE_SAME(touch(at + 5 * PAGE), 0, "a read where the guard was");
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_fault };
	PROBE(sigaction(SIGSEGV, &action, NULL));
	if (argc > 1 && !strcmp(argv[1], "guard"))
		guard();
	else
		none();
	return probe_end();
}
