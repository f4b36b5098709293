/* SPDX-License-Identifier: Apache-2.0 */
/* probe: working directory, umask and the position in an open directory are kept */
#include "probe.h"

#include <dirent.h>
#include <sys/stat.h>

int main(void)
{
	char wanted[PATH_MAX], seen[PATH_MAX];
	PROBE(mkdir("a b", 0700));
	PROBE(mkdir("a b/c", 0700));
	PROBE(chdir("a b/c"));
	PROBE_TRUE(getcwd(wanted, sizeof wanted), "getcwd");
	for (int i = 0; i < 40; i++) {
		char name[20];
		snprintf(name, sizeof name, "file%d", i);
		int file = PROBE(open(name, O_CREAT | O_WRONLY, 0600));
		close(file);
	}
	umask(0137);
	int fd = PROBE(open(".", O_RDONLY | O_DIRECTORY));
	static char entries[512];
	long first = PROBE(syscall(SYS_getdents64, fd, entries, sizeof entries));
	long position = PROBE(lseek(fd, 0, SEEK_CUR));

	probe_save();

	PROBE_TRUE(getcwd(seen, sizeof seen) && !strcmp(seen, wanted), "working directory");
	PROBE_SAME(umask(0), 0137, "umask");
	PROBE_SAME(lseek(fd, 0, SEEK_CUR), position, "position in the directory");
	int rest = 0, before = 0;
	for (long at = 0; at < first; at += ((struct dirent *)(entries + at))->d_reclen)
		before++;
	for (long n; (n = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0;)
		for (long at = 0; at < n; at += ((struct dirent *)(entries + at))->d_reclen)
			rest++;
	PROBE_SAME(before + rest, 42, "entries before and after");
	return probe_end();
}
