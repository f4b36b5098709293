/* SPDX-License-Identifier: Apache-2.0 */
/* An image that comes through a pipe is kept in a temporary file, as it is read at random. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "image/reader.h"

/* Where a pipe goes to be read at random: on disk before in memory. Negative errno. */
static int spool_create(void)
{
	const char *directory = getenv("TMPDIR");
	int fd = open(directory && *directory ? directory : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("cairn-image", MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Takes what is left in @from; *ret_fd becomes the file with it. */
static int spool_fill(int from, int to, struct fault *fault)
{
	enum { STEP = 1 << 20 };
	_free_ uint8_t *buffer = memory_new(STEP);
	for (uint64_t total = 0;;) {
		ssize_t n = read(from, buffer, STEP);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fault_set(fault, FAULT_FAILED, errno, "reading: %s; try a file", strerror(errno));
		if (!n)
			return 0;
		/* A foreign stream may be endless. A first read that is short says nothing yet. */
		if (!total && (size_t)n >= sizeof LAYOUT_MAGIC && memcmp(buffer, LAYOUT_MAGIC, sizeof LAYOUT_MAGIC - 1))
			return reader_foreign(fault);
		int rc = fd_write_full(to, buffer, (size_t)n);
		if (rc)
			return fault_set(fault, FAULT_FAILED, -rc, "keeping it in a temporary file: %s; try TMPDIR with "
					 "more space", strerror(-rc));
		total += (uint64_t)n;
	}
}

int spool_take(int *fd, struct fault *fault)
{
	_close_ int from = fd_steal(fd);
	_close_ int to = spool_create();
	if (to < 0)
		return fault_set(fault, FAULT_FAILED, -to, "a temporary file for it: %s; try another TMPDIR",
				 strerror(-to));
	int rc = spool_fill(from, to, fault);
	if (rc)
		return rc;
	*fd = fd_steal(&to);
	return 0;
}
