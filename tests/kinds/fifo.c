/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a FIFO keeps its name, its contents and its ends */
#include "probe.h"

#include <sys/stat.h>

enum { O_LARGEFILE_BIT = 0100000 }; /* the kernel's; libc's O_LARGEFILE is 0 here */

int main(void)
{
	char data[3000], seen[4000];
	probe_fill(data, sizeof data, 3);
	PROBE(mkfifo("fifo", 0640));
	int both = PROBE(open("fifo", O_RDWR | O_CLOEXEC));
	int writer = PROBE(open("fifo", O_WRONLY));
	int reader = PROBE(open("fifo", O_RDONLY | O_NONBLOCK));
	PROBE(write(writer, data, sizeof data));

	probe_save();

	struct stat by_name, by_fd;
	PROBE_SAME(stat("fifo", &by_name), 0, "stat of the name");
	PROBE_SAME(fstat(reader, &by_fd), 0, "fstat");
	PROBE_SAME(by_fd.st_ino, by_name.st_ino, "inode");
	PROBE_SAME(fcntl(both, F_GETFL) & ~O_LARGEFILE_BIT, O_RDWR, "flags");
	PROBE_SAME(fcntl(reader, F_GETFL) & ~O_LARGEFILE_BIT, O_RDONLY | O_NONBLOCK, "flags of the reader");
	PROBE_SAME(read(reader, seen, sizeof seen), (long)sizeof data, "bytes in the FIFO");
	probe_same_bytes(seen, data, sizeof data, "contents");
	PROBE_SAME(write(writer, "abc", 3), 3, "write after the restore");
	PROBE_SAME(read(both, seen, sizeof seen), 3, "read after the restore");
	return probe_end();
}
