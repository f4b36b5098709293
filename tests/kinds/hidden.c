/* SPDX-License-Identifier: Apache-2.0 */
/* variant memory: shared memory without a descriptor keeps its size, its holes, and what no mapping shows any more */
/* variant file: a deleted file without a descriptor keeps what its mappings show, whoever maps which part */
/* variant copied: private mappings of a deleted file without a descriptor, all of whose pages are modified, keep them */
#include "probe.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 64, SPARSE = 16384 };

static sigjmp_buf bus;
static void on_bus(int signal)
{
	siglongjmp(bus, signal);
}

static bool is_beyond(const volatile unsigned char *at)
{
	if (sigsetjmp(bus, 1))
		return true;
	(void)*at;
	return false;
}

static unsigned char *map(size_t pages, int flags, int fd)
{
	return PROBE((unsigned char *)mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0));
}

static size_t count_pages(unsigned char *at, size_t pages)
{
	static unsigned char seen[SPARSE];
	size_t count = 0;
	PROBE(mincore(at, pages * PAGE, seen));
	for (size_t i = 0; i < pages; i++)
		count += seen[i] & 1;
	return count;
}

/* The whole object again, from a mapping of its page @page. */
static unsigned char *again(unsigned char *part, size_t page, size_t pages)
{
	unsigned char *place = PROBE((unsigned char *)mmap(NULL, 2 * pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	unsigned char *twin = PROBE((unsigned char *)mremap(part, 0, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place));
	if (page)
		PROBE(remap_file_pages(twin, pages * PAGE, 0, 0, MAP_NONBLOCK));
	return twin;
}

static void memory(void)
{
	static unsigned char data[PAGES * PAGE];
	probe_fill(data, sizeof data, 31);
	unsigned char *cut = map(PAGES, MAP_SHARED | MAP_ANONYMOUS, -1);
	memcpy(cut, data, sizeof data);
	/* Nobody maps its first 5 pages, 20 to 29, and 50 to its end; one page is not readable. */
	PROBE(munmap(cut, 5 * PAGE));
	PROBE(munmap(cut + 20 * PAGE, 10 * PAGE));
	PROBE(munmap(cut + 50 * PAGE, 14 * PAGE));
	PROBE(mprotect(cut + 7 * PAGE, PAGE, PROT_NONE));
	PROBE(mprotect(cut + 40 * PAGE, 3 * PAGE, PROT_READ));

	unsigned char *sparse = map(SPARSE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	sparse[77 * PAGE + 1] = 1;
	sparse[9000 * PAGE + 2] = 2;

	unsigned char *longer = map(8, MAP_SHARED | MAP_ANONYMOUS, -1);
	longer = PROBE((unsigned char *)mremap(longer, 8 * PAGE, 12 * PAGE, MREMAP_MAYMOVE));
	longer[7 * PAGE] = 8;

	int fd = PROBE(memfd_create("no descriptor", 0));
	PROBE(ftruncate(fd, 6 * PAGE));
	unsigned char *copy = map(6, MAP_PRIVATE, fd), *two = PROBE((unsigned char *)mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
											  MAP_SHARED, fd, 3 * PAGE));
	PROBE(pwrite(fd, data, 6 * PAGE, 0));
	close(fd);
	copy[4 * PAGE + 1] ^= 1;
	two[0] ^= 2;

	probe_save();

	signal(SIGBUS, on_bus);
	PROBE_SAME(count_pages(sparse, SPARSE), 2, "pages that a sparse object has");
	PROBE_SAME(sparse[77 * PAGE + 1], 1, "a page of it");
	PROBE_SAME(sparse[9000 * PAGE + 2], 2, "another page of it");
	PROBE(mprotect(cut + 7 * PAGE, PAGE, PROT_READ | PROT_WRITE));
	probe_same_bytes(cut + 5 * PAGE, data + 5 * PAGE, 15 * PAGE, "before the gap");
	probe_same_bytes(cut + 30 * PAGE, data + 30 * PAGE, 20 * PAGE, "behind the gap");
	unsigned char *whole = again(cut + 5 * PAGE, 5, PAGES + 1);
	probe_same_bytes(whole, data, sizeof data, "the whole object");
	PROBE_TRUE(is_beyond(whole + PAGES * PAGE), "the object ends where it ended");
	whole[12 * PAGE] ^= 1;
	PROBE_SAME(cut[12 * PAGE], whole[12 * PAGE], "a store through the other mapping");
	PROBE_SAME(longer[7 * PAGE], 8, "the last page of the object behind a longer mapping");
	PROBE_TRUE(is_beyond(longer + 8 * PAGE), "what a mapping shows beyond the end of the object");
	two[0] ^= 2;
	copy[4 * PAGE + 1] ^= 1;
	probe_same_bytes(copy, data, 6 * PAGE, "private mapping of a memfd without a descriptor");
	probe_same_bytes(two, data + 3 * PAGE, 2 * PAGE, "shared mapping of it");
}

static void file(void)
{
	static unsigned char data[PAGES * PAGE];
	probe_fill(data, sizeof data, 32);
	int fd = PROBE(open("gone", O_RDWR | O_CREAT | O_TRUNC, 0600));
	PROBE(write(fd, data, sizeof data - 1000));
	unsigned char *low = PROBE((unsigned char *)mmap(NULL, 10 * PAGE, PROT_READ, MAP_SHARED, fd, 0));
	unsigned char *text = PROBE((unsigned char *)mmap(NULL, 20 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 8 * PAGE));
	unsigned char *modified = PROBE((unsigned char *)mmap(NULL, 37 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 28 * PAGE));
	PROBE(unlink("gone"));
	close(fd);
	modified[9 * PAGE] ^= 1;
	int ready[2], go[2];
	PROBE(pipe(ready));
	PROBE(pipe(go));
	pid_t child = PROBE(fork());
	if (!child) {
		char byte;
		munmap(low, 10 * PAGE);
		PROBE_SAME(write(ready[1], "r", 1), 1, "set-up: write");
		PROBE_SAME(read(go[0], &byte, 1), 1, "read");
		probe_same_bytes(text, data + 8 * PAGE, 20 * PAGE, "text of the child");
		_exit(probe_faults != 0);
	}
	char byte;
	PROBE(read(ready[0], &byte, 1));
	PROBE(munmap(text, 20 * PAGE));

	probe_save();

	signal(SIGBUS, on_bus);
	PROBE_SAME(write(go[1], "g", 1), 1, "write");
	probe_join(child, "child");
	probe_same_bytes(low, data, 10 * PAGE, "shared mapping");
	modified[9 * PAGE] ^= 1;
	probe_same_bytes(modified, data + 28 * PAGE, 36 * PAGE - 1000, "private mapping");
	static const unsigned char zeros[1000];
	probe_same_bytes(modified + 36 * PAGE - 1000, zeros, 1000, "the rest of the last page");
	PROBE_TRUE(is_beyond(modified + 36 * PAGE), "the file ends where it ended");
}

static void copied(void)
{
	enum { COUNT = 3 };
	int fd = PROBE(open("copied", O_RDWR | O_CREAT | O_EXCL, 0600));
	PROBE(ftruncate(fd, PAGES * PAGE));
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 5 * PAGE));
	unsigned char *again = PROBE((unsigned char *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	PROBE(close(fd));
	PROBE(unlink("copied"));
	probe_fill(at, COUNT * PAGE, 81);
	probe_fill(again, PAGE, 82);

	probe_save();

	probe_filled(at, COUNT * PAGE, 81, "modified pages");
	probe_filled(again, PAGE, 82, "a modified page of another mapping");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "file"))
		file();
	else if (argc > 1 && !strcmp(argv[1], "copied"))
		copied();
	else
		memory();
	return probe_end();
}
