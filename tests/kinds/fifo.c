/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a FIFO keeps its name, its contents and its ends */
#include "probe.h"

#include <poll.h>
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

	/* Open before its first writer comes: no POLLHUP, though nobody is there; and another that a writer has left. */
	PROBE(mkfifo("early", 0600));
	PROBE(mkfifo("left", 0600));
	struct pollfd early = { PROBE(open("early", O_RDONLY | O_NONBLOCK)), POLLIN, 0 };
	struct pollfd left = { PROBE(open("left", O_RDONLY | O_NONBLOCK)), POLLIN, 0 };
	int gone = PROBE(open("left", O_WRONLY));
	PROBE(close(gone));
	PROBE(fcntl(early.fd, F_SETFL, 0));

	/* Without a name. */
	PROBE(mkfifo("deleted", 0600));
	PROBE(chmod("deleted", 0620));
	struct pollfd deleted = { PROBE(open("deleted", O_RDWR | O_NONBLOCK)), POLLIN, 0 };
	int way_in = PROBE(open("deleted", O_WRONLY));
	PROBE(unlink("deleted"));
	PROBE(write(way_in, "xyz", 3));

	probe_save();

	PROBE_SAME(poll(&early, 1, 0), 0, "events of a FIFO before its first writer");
	PROBE_SAME(read(early.fd, seen, 1), 0, "read of it");
	PROBE_SAME(fcntl(early.fd, F_GETFL) & ~O_LARGEFILE_BIT, O_RDONLY, "its flags");
	PROBE_SAME(poll(&left, 1, 0), 1, "events of a FIFO whose writer has gone");
	PROBE_SAME(left.revents, POLLHUP, "POLLHUP");
	int first = PROBE(open("early", O_WRONLY));
	PROBE_SAME(write(first, "1", 1), 1, "its first writer");
	PROBE_SAME(read(early.fd, seen, 1), 1, "what that wrote");
	PROBE(close(first));
	PROBE_SAME(poll(&early, 1, 0), 1, "events when it has gone");
	PROBE(close(early.fd));
	early.fd = PROBE(open("early", O_RDONLY | O_NONBLOCK));

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

	PROBE_SAME(poll(&deleted, 1, 0), 1, "events of a deleted FIFO");
	PROBE_SAME(read(deleted.fd, seen, sizeof seen), 3, "bytes in it");
	PROBE_SAME(write(way_in, "z", 1), 1, "write to it");
	PROBE_SAME(read(deleted.fd, seen, sizeof seen), 1, "read of that");
	PROBE_SAME(fstat(way_in, &by_fd), 0, "fstat of it");
	PROBE_SAME(by_fd.st_nlink, 0, "names of it");
	PROBE_SAME(by_fd.st_mode, S_IFIFO | 0620, "its mode");
	PROBE_SAME(stat("deleted", &by_name), -1, "its name");

	/* Programs tidy up at their end: the next restore of the same image finds no FIFO. */
	PROBE_SAME(stat("fifo", &by_name), 0, "the name again");
	PROBE_SAME(by_name.st_mode, S_IFIFO | 0640, "its mode");
	PROBE(unlink("fifo"));
	PROBE(unlink("early"));
	return probe_end();
}
