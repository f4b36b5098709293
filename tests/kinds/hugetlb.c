/* SPDX-License-Identifier: Apache-2.0 */
/* alone: its huge pages are the machine's */
/* probe: huge pages of hugetlbfs, private and shared, with and without a descriptor, keep contents, holes, size and reservation */
#include "probe.h"

#include <linux/memfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>

enum { HUGE = 2 << 20, POOL = 40 };
static const char pool[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

static long number(const char *path)
{
	FILE *stream = fopen(path, "re");
	long value = -1;
	if (stream && fscanf(stream, "%ld", &value) != 1)
		value = -1;
	if (stream)
		fclose(stream);
	return value;
}

static long before;

static void set_pool(long pages)
{
	FILE *stream = fopen(pool, "we");
	if (stream) {
		fprintf(stream, "%ld", pages);
		fclose(stream);
	}
}

/* As many as this probe needs. */
static void want_pool(void)
{
	before = number(pool);
	if (before < POOL)
		set_pool(POOL);
	if (number(pool) < POOL)
		probe_skip("%d huge pages are not to be had (%s)", POOL, pool);
}

/* "2048 kB" of the mapping at @at in smaps. */
static long page_size_of(const void *at)
{
	FILE *stream = fopen("/proc/self/smaps", "re");
	char line[4200];
	bool here = false;
	long size = 0;
	while (stream && fgets(line, sizeof line, stream)) {
		unsigned long start, end;
		char found[5];
		if (sscanf(line, "%lx-%lx %4s", &start, &end, found) == 3)
			here = (unsigned long)at >= start && (unsigned long)at < end;
		else if (here)
			sscanf(line, "KernelPageSize: %ld", &size);
	}
	if (stream)
		fclose(stream);
	return size;
}

static unsigned char *map(size_t size, int protection, int flags, int fd, off_t offset)
{
	return PROBE((unsigned char *)mmap(NULL, size, protection, flags, fd, offset));
}

int main(void)
{
	want_pool();
	int anonymous = MAP_ANONYMOUS | MAP_HUGETLB;
	unsigned char *private = map(4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | anonymous, -1, 0);
	probe_fill(private, 100000, 1);
	probe_fill(private + 2 * HUGE + 4096, HUGE - 4096, 2);
	PROBE(mprotect(private + 2 * HUGE, HUGE, PROT_READ));
	unsigned char *loose = map(64 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | anonymous, -1, 0);
	probe_fill(loose + 33 * HUGE + 777, 5000, 3);
	unsigned char *shared = map(3 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | anonymous, -1, 0);
	probe_fill(shared + HUGE, 3000, 4);
	int fd = PROBE(memfd_create("huge one", MFD_HUGETLB | MFD_HUGE_2MB | MFD_ALLOW_SEALING));
	PROBE(ftruncate(fd, 3 * HUGE));
	unsigned char *file = map(2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, HUGE);
	unsigned char *copy = map(HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 2 * HUGE);
	probe_fill(file + HUGE, HUGE, 5);
	PROBE_TRUE(copy[0] == file[HUGE], "set-up: a private mapping of the file");
	copy[1] = 99;
	PROBE(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	int id = shmget(IPC_PRIVATE, 2 * HUGE, IPC_CREAT | SHM_HUGETLB | 0600);
	unsigned char *segment = id < 0 ? NULL : PROBE((unsigned char *)shmat(id, NULL, 0));
	if (segment)
		probe_fill(segment + HUGE + 5, 9999, 6);
	else
		printf("note: shmget(SHM_HUGETLB): %s\n", strerror(errno));
	pid_t child = PROBE(fork());
	if (!child) {
		probe_wait();
		while (*(volatile unsigned char *)shared != 17)
			;
		probe_filled(private, 100000, 1, "private huge pages of the child");
		shared[1] = 18;
		_exit(probe_faults != 0);
	}

	probe_save();

	probe_filled(private, 100000, 1, "private huge pages");
	probe_filled(private + 2 * HUGE + 4096, HUGE - 4096, 2, "read-only huge page");
	PROBE_SAME(private[3 * HUGE], 0, "an untouched huge page");
	probe_filled(loose + 33 * HUGE + 777, 5000, 3, "huge pages without a reservation");
	probe_filled(shared + HUGE, 3000, 4, "shared huge pages");
	*(volatile unsigned char *)shared = 17;
	probe_join(child, "child");
	PROBE_SAME(shared[1], 18, "what the child stored in a shared huge page");
	probe_filled(file + HUGE, HUGE, 5, "memfd of huge pages");
	PROBE_SAME(copy[1], 99, "private copy of a huge page of the memfd");
	PROBE_SAME(copy[2], file[HUGE + 2], "the rest of it");
	struct stat status;
	PROBE_SAME(fstat(fd, &status), 0, "fstat");
	PROBE_SAME(status.st_size, 3 * HUGE, "size of the memfd");
	PROBE_SAME(status.st_blksize, HUGE, "page size of the memfd");
	PROBE_SAME(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW, "seals of the memfd");
	PROBE_SAME(page_size_of(private), 2048, "page size of the private mapping");
	PROBE_SAME(page_size_of(loose), 2048, "page size of the one without a reservation");
	PROBE_SAME(page_size_of(shared), 2048, "page size of the shared mapping");
	PROBE_SAME(page_size_of(copy), 2048, "page size of the mapped memfd");
	if (segment) {
		probe_filled(segment + HUGE + 5, 9999, 6, "segment of huge pages");
		PROBE_SAME(page_size_of(segment), 2048, "page size of the segment");
		PROBE(shmctl(id, IPC_RMID, NULL));
		PROBE(shmdt(segment));
	}
	if (before < POOL)
		set_pool(before);
	return probe_end();
}
