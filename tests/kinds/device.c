/* SPDX-License-Identifier: Apache-2.0 */
/* probe: null, zero, full, random and urandom stay open and behave */
#include "probe.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

int main(void)
{
	static const struct { const char *path; int flags; unsigned minor; } devices[] = {
		{ "/dev/null", O_RDWR, 3 },    { "/dev/zero", O_RDONLY | O_CLOEXEC, 5 }, { "/dev/full", O_WRONLY, 7 },
		{ "/dev/random", O_RDONLY, 8 }, { "/dev/urandom", O_RDWR | O_NONBLOCK, 9 },
	};
	int fds[5];
	for (int i = 0; i < 5; i++)
		fds[i] = PROBE(open(devices[i].path, devices[i].flags));

	probe_save();

	char bytes[16];
	for (int i = 0; i < 5; i++) {
		struct stat status;
		PROBE_SAME(fstat(fds[i], &status), 0, devices[i].path);
		PROBE_SAME(status.st_rdev, makedev(1, devices[i].minor), devices[i].path);
		PROBE_SAME(fcntl(fds[i], F_GETFL) & (O_ACCMODE | O_NONBLOCK), devices[i].flags & ~O_CLOEXEC,
			   devices[i].path);
		PROBE_SAME(fcntl(fds[i], F_GETFD), devices[i].flags & O_CLOEXEC ? FD_CLOEXEC : 0, devices[i].path);
	}
	PROBE_SAME(read(fds[0], bytes, 16), 0, "read of null");
	PROBE_SAME(read(fds[1], bytes, 16), 16, "read of zero");
	PROBE_SAME(write(fds[2], bytes, 16), -1, "write to full");
	PROBE_SAME(errno, ENOSPC, "error of full");
	PROBE_SAME(read(fds[4], bytes, 16), 16, "read of urandom");
	return probe_end();
}
