/* SPDX-License-Identifier: Apache-2.0 */
/* variant mdwe: what PR_SET_MDWE forbids stays forbidden, and memory that was executable before stays so */
/* variant merge: PR_SET_MEMORY_MERGE holds for what is mapped later, and memory that was taken out of it stays out */
/* variant sealed: sealed mappings come back sealed, with contents, locks and guard regions */
/* variant droppable: memory that may be dropped is such memory again, full or empty page by page */
/* variant growsdown: a mapping with MAP_GROWSDOWN still grows, to the same place, and its upper part does not */
/* variant reserve: memory without a reservation and 16 TB of reserved addresses are as they were */
#include "probe.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE = 4096 };

static unsigned char *map_at(void *at, size_t size, int protection, int flags)
{
	return PROBE((unsigned char *)mmap(at, size, protection, flags, -1, 0));
}

static unsigned char *map(size_t size, int protection)
{
	return map_at(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS);
}

static void mdwe(void)
{
	enum { SET = 65, GET = 66, REFUSE = 1, NO_INHERIT = 2 };
	unsigned char *code = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC), *data = map(3 * PAGE, PROT_READ | PROT_WRITE);
	static const unsigned char function[] = { 0xb8, 0x2a, 0x00, 0x00, 0x00, 0xc3 }; /* return 42 */
	memcpy(code, function, sizeof function);
	if (prctl(SET, REFUSE | NO_INHERIT, 0, 0, 0) < 0)
		probe_skip("PR_SET_MDWE: %s", strerror(errno));

	probe_save();

	int (*call)(void);
	memcpy(&call, &code, sizeof call);
	PROBE_SAME(prctl(GET, 0, 0, 0, 0), REFUSE | NO_INHERIT, "PR_GET_MDWE");
	PROBE_SAME(call(), 42, "what old code returns");
	PROBE_TRUE(mprotect(data, PAGE, PROT_READ | PROT_EXEC) == -1 && errno == EACCES, "data cannot be made executable");
	PROBE_TRUE(mmap(NULL, PAGE, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED, "no new such mapping");
}

static void merge(void)
{
	enum { SET = 67, GET = 68 };
	unsigned char *in = map(4 * PAGE, PROT_READ | PROT_WRITE), *out = map(4 * PAGE, PROT_READ | PROT_WRITE);
	memset(in, 7, 4 * PAGE);
	memset(out, 8, 4 * PAGE);
	if (prctl(SET, 1, 0, 0, 0) < 0)
		probe_skip("PR_SET_MEMORY_MERGE: %s", strerror(errno));
	PROBE(madvise(out, 4 * PAGE, MADV_UNMERGEABLE));

	probe_save();

	PROBE_SAME(prctl(GET, 0, 0, 0, 0), 1, "PR_GET_MEMORY_MERGE");
	PROBE_SAME(probe_has_flag(in, " mg"), true, "mergeable");
	PROBE_SAME(probe_has_flag(out, " mg"), false, "taken out of merging, mergeable");
	PROBE_SAME(probe_has_flag(map(4 * PAGE, PROT_READ), " mg"), true, "a new mapping, mergeable");
	PROBE_SAME(in[4 * PAGE - 1] + out[0], 15, "contents");
}

static void sealed(void)
{
	enum { GUARD_INSTALL = 102, SEAL = 462 };
	unsigned char *at = map(8 * PAGE, PROT_READ | PROT_WRITE);
	probe_fill(at, 6 * PAGE, 3);
	bool guarded = madvise(at + 6 * PAGE, PAGE, GUARD_INSTALL) == 0;
	PROBE(mprotect(at, 8 * PAGE, PROT_READ));
	bool locked = mlock(at, 2 * PAGE) == 0;
	if (syscall(SEAL, at, 8 * PAGE, 0) < 0)
		probe_skip("mseal: %s", strerror(errno));

	probe_save();

	PROBE_TRUE(munmap(at + PAGE, PAGE) == -1 && errno == EPERM, "munmap of a sealed mapping");
	PROBE_TRUE(mprotect(at + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EPERM, "mprotect of it");
	PROBE_TRUE(madvise(at + PAGE, PAGE, MADV_DONTNEED) == -1 && errno == EPERM, "MADV_DONTNEED of it");
	probe_filled(at, 6 * PAGE, 3, "contents");
	PROBE_SAME(probe_has_flag(at, " lo"), locked, "locked");
	int ends[2];
	PROBE(pipe(ends));
	PROBE_TRUE(!guarded || (write(ends[1], at + 6 * PAGE, 1) == -1 && errno == EFAULT), "its guard region");
}

static void droppable(void)
{
	enum { DROPPABLE = 0x08 };
	unsigned char *at = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		probe_skip("MAP_DROPPABLE: %s", strerror(errno));
	memset(at, 5, 12 * PAGE);

	probe_save();

	PROBE_SAME(probe_has_flag(at, " dp"), true, "droppable");
	PROBE_SAME(probe_has_flag(at, " wf"), true, "wiped on fork");
	for (int i = 0; i < 12; i++) {
		unsigned char all = at[i * PAGE];
		PROBE_TRUE(all == 5 || all == 0, "a page is there or dropped");
		for (int k = 1; k < PAGE; k++)
			if (at[i * PAGE + k] != all)
				probe_differs("page %d is neither full nor empty", i);
	}
	PROBE_SAME(at[13 * PAGE], 0, "an untouched page");
}

static void growsdown(void)
{
	enum { LOW = 64 * PAGE };
	/* Addresses that are free, with room below. */
	unsigned char *room = map(LOW + 1024 * PAGE, PROT_NONE);
	PROBE(munmap(room, LOW + 1024 * PAGE));
	unsigned char *at = map_at(room + LOW + 512 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED);
	unsigned char *lower = at - 10 * PAGE;
	at[0] = 1;
	at[-5 * PAGE] = 2; /* grows */
	PROBE(mprotect(at + 2 * PAGE, PAGE, PROT_READ));

	probe_save();

	PROBE_SAME(at[0], 1, "what was there");
	PROBE_SAME(at[-5 * PAGE], 2, "where it had grown to");
	lower[0] = 3;
	PROBE_SAME(lower[0], 3, "where it grows now");
	at[-200 * PAGE] = 4;
	PROBE_SAME(at[-200 * PAGE] + at[-100 * PAGE], 4, "and further");
	PROBE_SAME(probe_has_flag(lower, " gd"), true, "its lowest part grows");
}

static void reserve(void)
{
	const size_t terabyte = (size_t)1 << 40;
	unsigned char *at = mmap(NULL, 16 * terabyte, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		probe_skip("16 TB of addresses: %s", strerror(errno));
	unsigned char *none = map(64 * PAGE, PROT_NONE), *plain = map(64 * PAGE, PROT_READ | PROT_WRITE);
	plain[0] = 1;
	for (size_t i = 0; i < 10; i++)
		probe_fill(at + i * (terabyte + 12345 * (size_t)PAGE), PAGE, i);

	probe_save();

	PROBE_SAME(probe_has_flag(at, " nr"), true, "without a reservation");
	PROBE_SAME(probe_has_flag(plain, " nr"), false, "with one");
	for (size_t i = 0; i < 10; i++)
		probe_filled(at + i * (terabyte + 12345 * (size_t)PAGE), PAGE, i, "a touched page");
	PROBE_SAME(at[15 * terabyte + 7], 0, "an untouched page");
	PROBE_SAME(mprotect(none, PAGE, PROT_READ), 0, "mprotect of reserved addresses");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} variants[] = { { "mdwe", mdwe }, { "merge", merge }, { "sealed", sealed }, { "droppable", droppable }, { "growsdown", growsdown },
			 { "reserve", reserve } };
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
		if (argc > 1 && !strcmp(argv[1], variants[i].name))
			variants[i].run();
	return probe_end();
}
