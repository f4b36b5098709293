/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a shared mapping of a file is the file: nothing is lost, stores reach it, protections stay */
#include "probe.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 20 };

int main(void)
{
	static unsigned char data[PAGES * PAGE], seen[PAGES * PAGE];
	probe_fill(data, sizeof data, 8);
	int fd = PROBE(open("shared", O_RDWR | O_CREAT, 0600));
	PROBE(ftruncate(fd, sizeof data));
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, sizeof data, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	unsigned char *view = PROBE((unsigned char *)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 7 * PAGE));
	int reader = PROBE(open("shared", O_RDONLY));
	unsigned char *locked = PROBE((unsigned char *)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 9 * PAGE));
	close(reader);
	close(fd);
	memcpy(at, data, sizeof data);

	probe_save();

	probe_same_bytes(at, data, sizeof data, "contents");
	probe_same_bytes(view, data + 7 * PAGE, PAGE, "the view");
	at[7 * PAGE] = 1;
	at[9 * PAGE] = 2;
	PROBE_SAME(view[0], 1, "a store seen in the view");
	PROBE_SAME(locked[0], 2, "a store seen in the other mapping");
	fd = PROBE(open("shared", O_RDONLY));
	PROBE_SAME(read(fd, seen, sizeof seen), (long)sizeof seen, "read");
	probe_same_bytes(seen, at, sizeof seen, "the file");
	PROBE_SAME(mprotect(locked, PAGE, PROT_READ | PROT_WRITE), -1, "mprotect of a mapping of a read-only file");
	PROBE_SAME(errno, EACCES, "its error");
	PROBE_SAME(mprotect(view, PAGE, PROT_READ | PROT_WRITE), 0, "mprotect of a mapping of a writable file");
	return probe_end();
}
