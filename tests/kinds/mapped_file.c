/* SPDX-License-Identifier: Apache-2.0 */
/* variant private: a private mapping of a file keeps its modified pages and shows the file's others */
/* variant deleted: a mapping of a deleted file keeps its contents, private and shared */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 40 };
static unsigned char data[PAGES * PAGE];

static int make(const char *name)
{
	int fd = PROBE(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
	probe_fill(data, sizeof data, 4);
	PROBE_SAME(write(fd, data, sizeof data - 100), (long)sizeof data - 100, "set-up: write");
	return fd;
}

static unsigned char *map(int fd, int protection, int flags, off_t offset)
{
	return PROBE((unsigned char *)mmap(NULL, sizeof data - (size_t)offset, protection, flags, fd, offset));
}

static void private(void)
{
	int fd = make("mapped");
	unsigned char *at = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	unsigned char *part = map(fd, PROT_READ, MAP_PRIVATE, 3 * PAGE);
	close(fd);
	for (int i = 0; i < PAGES; i += 3)
		at[i * PAGE + 17] ^= 0xa5;
	memset(at + 5 * PAGE, 0, PAGE); /* modified into zeros, where the file has none */
	at[sizeof data - 1] = 42;       /* beyond the file's end */

	probe_save();

	for (int i = 0; i < PAGES; i += 3)
		at[i * PAGE + 17] ^= 0xa5;
	static const unsigned char zeros[PAGE];
	probe_same_bytes(at + 5 * PAGE, zeros, PAGE, "page that was modified into zeros");
	memcpy(at + 5 * PAGE, data + 5 * PAGE, PAGE);
	probe_same_bytes(at, data, sizeof data - 100, "private mapping");
	PROBE_SAME(at[sizeof data - 1], 42, "byte beyond the file's end");
	probe_same_bytes(part, data + 3 * PAGE, sizeof data - 100 - 3 * PAGE, "unmodified mapping");
	/* Unmodified pages are still the file's. */
	fd = PROBE(open("mapped", O_RDWR));
	PROBE(pwrite(fd, "changed", 7, 10 * PAGE));
	PROBE_TRUE(!memcmp(part + 7 * PAGE, "changed", 7), "an unmodified page shows a change of the file");
	PROBE_TRUE(*probe_proc("maps", "") != 0, "maps");
}

static void deleted(void)
{
	int fd = make("gone");
	unsigned char *modified = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	unsigned char *shared = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE);
	PROBE(unlink("gone"));
	close(fd);
	modified[2 * PAGE] ^= 1;
	shared[0] ^= 1;

	probe_save();

	modified[2 * PAGE] ^= 1;
	PROBE_SAME(modified[PAGE], shared[0], "private page that was not modified shows the shared one");
	shared[0] ^= 1;
	probe_same_bytes(modified, data, sizeof data - 100, "private mapping of a deleted file");
	probe_same_bytes(shared, data + PAGE, sizeof data - 100 - PAGE, "shared mapping of a deleted file");
	PROBE_TRUE(access("gone", F_OK) && errno == ENOENT, "no name came back");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "deleted"))
		deleted();
	else
		private();
	return probe_end();
}
