/* SPDX-License-Identifier: Apache-2.0 */
/* variant plain: a regular file keeps its offset, its flags, and what copies of its descriptor share */
/* variant deleted: a deleted file keeps its contents, its holes and its descriptors */
/* variant odd: a file opened by O_PATH, one with blanks in its name and one with a hole of 5 GiB stay open */
#include "probe.h"

#include <sys/stat.h>

static void plain(void)
{
	char seen[64];
	int fd = PROBE(open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	PROBE(write(fd, "0123456789abcdefghij", 20));
	PROBE(lseek(fd, 7, SEEK_SET));
	int copy = PROBE(dup2(fd, 200)), own = PROBE(open("file", O_RDONLY | O_NOATIME));
	PROBE(lseek(own, 3, SEEK_SET));
	int append = PROBE(open("log", O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0600));
	PROBE(write(append, "first\n", 6));

	probe_save();

	PROBE_SAME(lseek(fd, 0, SEEK_CUR), 7, "offset");
	PROBE_SAME(lseek(own, 0, SEEK_CUR), 3, "offset of the second description");
	PROBE_SAME(read(copy, seen, 4), 4, "read by the copy");
	PROBE_TRUE(!memcmp(seen, "789a", 4), "what the copy reads");
	PROBE_SAME(lseek(fd, 0, SEEK_CUR), 11, "offset after a read by the copy");
	PROBE_SAME(lseek(own, 0, SEEK_CUR), 3, "offset of the second description after that");
	PROBE_SAME(fcntl(own, F_GETFL) & (O_ACCMODE | O_NOATIME), O_RDONLY | O_NOATIME, "flags");
	PROBE_SAME(fcntl(append, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_WRONLY | O_APPEND | O_NONBLOCK,
		   "flags of the log");
	PROBE_SAME(fcntl(fd, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(fcntl(copy, F_GETFD), 0, "close-on-exec flag of the copy");
	PROBE_SAME(write(append, "second\n", 7), 7, "append");
	struct stat status;
	PROBE_SAME(stat("log", &status), 0, "stat");
	PROBE_SAME(status.st_size, 13, "size of the log");
}

static void deleted(void)
{
	static char data[100000], seen[100000];
	probe_fill(data, sizeof data, 11);
	int fd = PROBE(open("gone", O_RDWR | O_CREAT, 0640)), reader = PROBE(open("gone", O_RDONLY));
	PROBE(pwrite(fd, data, sizeof data, 0));
	PROBE(pwrite(fd, data, 1000, 3000001));
	PROBE(lseek(fd, 12345, SEEK_SET));
	PROBE(unlink("gone"));

	probe_save();

	struct stat status, other;
	PROBE_SAME(fstat(fd, &status), 0, "fstat");
	PROBE_SAME(fstat(reader, &other), 0, "fstat of the reader");
	PROBE_SAME(status.st_size, 3001001, "size");
	PROBE_SAME(status.st_mode & 07777, 0640, "mode");
	PROBE_SAME(status.st_nlink, 0, "links");
	PROBE_SAME(status.st_ino, other.st_ino, "inode of the second description");
	PROBE_SAME(lseek(fd, 0, SEEK_CUR), 12345, "offset");
	PROBE_SAME(pread(reader, seen, sizeof seen, 0), (long)sizeof seen, "read");
	probe_same_bytes(seen, data, sizeof data, "contents");
	PROBE_SAME(pread(reader, seen, 1000, 3000001), 1000, "read behind the hole");
	probe_same_bytes(seen, data, 1000, "contents behind the hole");
	PROBE_SAME(pwrite(fd, "new", 3, 0), 3, "write");
	PROBE_SAME(pread(reader, seen, 3, 0), 3, "read of what was written");
	PROBE_TRUE(!memcmp(seen, "new", 3), "both see the same file");
	PROBE_TRUE(access("gone", F_OK) && errno == ENOENT, "no name came back");
}

static void odd(void)
{
	int path = PROBE(open("/usr", O_PATH | O_CLOEXEC));
	int blank = PROBE(open("a name \n with (deleted)", O_RDWR | O_CREAT, 0600));
	PROBE(write(blank, "blank", 5));
	int large = PROBE(open("large", O_RDWR | O_CREAT, 0600));
	PROBE(pwrite(large, "end", 3, 5368709120));
	PROBE(lseek(large, 5368709119, SEEK_SET));
	int excl = PROBE(open("excl", O_WRONLY | O_CREAT | O_EXCL | O_TRUNC, 0600));
	PROBE(write(excl, "kept", 4));

	probe_save();

	struct stat status;
	PROBE_TRUE((fcntl(path, F_GETFL) & O_PATH) != 0, "O_PATH is kept");
	PROBE_SAME(fstat(path, &status), 0, "fstat of O_PATH");
	PROBE_TRUE(S_ISDIR(status.st_mode), "O_PATH is of a directory");
	PROBE_SAME(lseek(blank, 0, SEEK_CUR), 5, "offset in a file with an odd name");
	PROBE_SAME(lseek(large, 0, SEEK_CUR), 5368709119, "offset beyond 4 GiB");
	PROBE_SAME(fstat(excl, &status), 0, "fstat");
	PROBE_SAME(status.st_size, 4, "size of a file that was opened with O_TRUNC");
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "plain";
	if (!strcmp(variant, "plain"))
		plain();
	else if (!strcmp(variant, "deleted"))
		deleted();
	else
		odd();
	return probe_end();
}
