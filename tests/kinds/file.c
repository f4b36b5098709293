/* SPDX-License-Identifier: Apache-2.0 */
/* variant plain: a regular file keeps its offset, its flags, and what copies of its descriptor share */
/* variant deleted: a deleted file keeps its contents, its holes and its descriptors */
/* variant links: files that lost a name stay the file of their others, share what they shared, and may be given names */
/* variant system: files of /proc and /sys that a program has open are open at their positions */
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

static void links(void)
{
	struct stat status, other;
	char seen[16];
	/* One name is gone, another stays. */
	int lost = PROBE(open("first", O_RDWR | O_CREAT, 0600));
	PROBE(write(lost, "first", 5));
	PROBE(link("first", "second"));
	PROBE(unlink("first"));
	/* Both names of a file are gone, and two descriptions were opened by different ones. */
	int a = PROBE(open("a", O_RDWR | O_CREAT, 0600));
	PROBE(link("a", "b"));
	int b = PROBE(open("b", O_RDWR));
	PROBE(write(a, "both gone", 9));
	PROBE(unlink("a"));
	PROBE(unlink("b"));
	/* Another file has the name now. */
	int old = PROBE(open("same", O_RDWR | O_CREAT, 0600));
	PROBE(write(old, "old", 3));
	int new = PROBE(open("new", O_RDWR | O_CREAT, 0600));
	PROBE(write(new, "new one", 7));
	PROBE(rename("new", "same"));
	/* Never had a name. */
	int nameless = PROBE(open(".", O_TMPFILE | O_RDWR, 0640));
	PROBE(write(nameless, "nameless", 8));
	PROBE(lseek(nameless, 4, SEEK_SET));
	PROBE(symlink("nowhere", "link"));
	int symbolic = PROBE(open("link", O_PATH | O_NOFOLLOW));
	int path = PROBE(open("gone", O_RDWR | O_CREAT, 0600));
	PROBE(write(path, "path", 4));
	int only_path = PROBE(open("gone", O_PATH));
	PROBE(dup2(only_path, path));
	PROBE(unlink("gone"));

	probe_save();

	PROBE_SAME(write(lost, "+more", 5), 5, "write");
	int second = PROBE(open("second", O_RDONLY));
	PROBE_SAME(read(second, seen, 16), 10, "what the other name shows");
	PROBE_SAME(fstat(lost, &status), 0, "fstat");
	PROBE_SAME(stat("second", &other), 0, "stat");
	PROBE_SAME(status.st_ino, other.st_ino, "inode of a file that lost one name");
	PROBE_SAME(pwrite(b, "BOTH", 4, 0), 4, "write");
	PROBE_SAME(pread(a, seen, 16, 0), 9, "read");
	PROBE_TRUE(!memcmp(seen, "BOTH gone", 9), "one file by two names that are gone");
	PROBE_SAME(pread(old, seen, 16, 0), 3, "the replaced file");
	PROBE_SAME(pread(new, seen, 16, 0), 7, "the file that replaced it");
	PROBE_SAME(fstat(new, &status), 0, "fstat");
	PROBE_SAME(stat("same", &other), 0, "stat");
	PROBE_SAME(status.st_ino, other.st_ino, "inode of the file that replaced");
	PROBE_SAME(read(nameless, seen, 16), 4, "read of a file that never had a name");
	char link_[64];
	snprintf(link_, sizeof link_, "/proc/self/fd/%d", nameless);
	PROBE_SAME(linkat(AT_FDCWD, link_, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), 0, "giving it a name");
	PROBE_SAME(stat("named", &status), 0, "stat");
	PROBE_SAME(status.st_mode & 0777, 0640, "its mode");
	PROBE_SAME(readlinkat(symbolic, "", link_, sizeof link_), 7, "a symbolic link opened by O_PATH");
	PROBE_SAME(fstat(path, &status), 0, "fstat of a deleted file opened by O_PATH");
	PROBE_SAME(status.st_size, 4, "its size");
	PROBE_TRUE((fcntl(path, F_GETFL) & O_PATH) != 0, "it is opened by O_PATH");
}

static void system_(void)
{
	char first[64] = "", again[64] = "";
	int status = PROBE(open("/proc/self/status", O_RDONLY)), maps = PROBE(open("/proc/self/task", O_RDONLY | O_DIRECTORY));
	int release = PROBE(open("/proc/sys/kernel/osrelease", O_RDONLY)), mm = PROBE(open("/sys/kernel/mm", O_RDONLY | O_DIRECTORY));
	int cpus = PROBE(open("/sys/devices/system/cpu/possible", O_RDONLY));
	PROBE(read(status, first, 30));
	PROBE(read(cpus, first + 32, 1));

	probe_save();

	char rest[8192];
	PROBE_SAME(lseek(status, 0, SEEK_CUR), 30, "position in /proc/self/status");
	PROBE_TRUE(read(status, rest, sizeof rest) > 100, "the rest of it can be read");
	PROBE_SAME(pread(status, again, 30, 0), 30, "read from the start");
	probe_same_bytes(again, first, 30, "/proc/self/status");
	PROBE_SAME(faccessat(maps, "..", F_OK, 0), 0, "a directory of /proc");
	PROBE_SAME(lseek(release, 0, SEEK_CUR), 0, "position in a sysctl");
	PROBE_TRUE(read(release, rest, sizeof rest) > 2, "a sysctl can be read");
	PROBE_SAME(lseek(cpus, 0, SEEK_CUR), 1, "position in a file of /sys");
	PROBE_SAME(faccessat(mm, "transparent_hugepage", F_OK, 0), 0, "a directory of /sys");
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
	else if (!strcmp(variant, "links"))
		links();
	else if (!strcmp(variant, "system"))
		system_();
	else
		odd();
	return probe_end();
}
