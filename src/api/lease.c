/* SPDX-License-Identifier: Apache-2.0 */
/* The mark is IMAGE.restored. Whoever holds its lock (flock(2), which dies with its owner, and which NFS passes on) may restore; what it says of
 * this very image counts for good. A mark of another image at the same path, or an empty one that a dead Cairn left, does not. */
#include "api/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"

/* Locked, and still the file of that name: its last owner may have taken the name away meanwhile. 1: yes, 0: again. */
static int lock(int fd, const char *path, struct fault *fault)
{
	struct stat own, named;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ?
			fault_set(fault, FAULT_FAILED, EBUSY, "is being restored by another at this moment (%s is locked); try later, or without --once", path) :
			fault_set(fault, FAULT_FAILED, errno, "lock %s: %s; try without --once", path, strerror(errno));
	return fstat(fd, &own) == 0 && stat(path, &named) == 0 && own.st_ino == named.st_ino && own.st_dev == named.st_dev;
}

static int open_locked(const char *path, int *ret_fd, struct fault *fault)
{
	for (int tries = 0; tries < 100; tries++) {
		_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return fault_set(fault, fault_class_of(errno), errno, "%s: %s; try without --once", path, strerror(errno));
		int rc = lock(fd, path, fault);
		if (rc < 0)
			return rc;
		if (rc > 0) {
			*ret_fd = fd_steal(&fd);
			return 0;
		}
	}
	return fault_set(fault, FAULT_FAILED, EBUSY, "%s: is made and taken away all the time; try later", path);
}

static char *word_of(const uint8_t id[16])
{
	char hex[33];
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", id[i]);
	return memory_format("image %s was restored", hex);
}

int lease_take(const char *path, const uint8_t id[16], struct lease *ret_lease, struct fault *fault)
{
	struct lease lease = { .fd = -1, .path = memory_format("%s.restored", path), .word = word_of(id) };
	char text[256] = "";
	int rc = open_locked(lease.path, &lease.fd, fault);
	if (rc == 0 && pread(lease.fd, text, sizeof text - 1, 0) > 0 && !strncmp(text, lease.word, strlen(lease.word))) {
		text[strcspn(text, "\n")] = 0;
		rc = fault_set(fault, FAULT_FAILED, EALREADY, "%s (%s); try another image, or without --once", text, lease.path);
	}
	if (rc < 0) {
		lease_finish(&lease); /* not given back: what the mark says stays */
		return rc;
	}
	*ret_lease = lease;
	return 0;
}

int lease_use(struct lease *lease, struct fault *fault)
{
	char host[65] = "", when[32] = "";
	time_t now = time(NULL);
	struct tm local;
	if (lease->fd < 0)
		return 0;
	gethostname(host, sizeof host - 1);
	if (localtime_r(&now, &local))
		strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
	if (ftruncate(lease->fd, 0) < 0 || dprintf(lease->fd, "%s on %s, %s\n", lease->word, host, when) < 0 || fsync(lease->fd) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s; try without --once", lease->path, strerror(errno));
	return 0;
}

void lease_give_back(struct lease *lease)
{
	if (lease->fd >= 0)
		unlink(lease->path);
	lease_finish(lease);
}

void lease_finish(struct lease *lease)
{
	if (lease->fd >= 0)
		close(lease->fd);
	free(lease->path);
	free(lease->word);
	*lease = (struct lease){ .fd = -1 };
}
