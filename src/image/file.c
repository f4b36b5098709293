/* SPDX-License-Identifier: Apache-2.0 */
/* The file of an image while it is written: without a name where the file system can (O_TMPFILE), so that
 * not even a killed Cairn leaves something behind; under a temporary name beside its own otherwise. Its
 * name appears when it is whole and on disk, and takes the place of an older image in one step. */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"

struct image_file {
	int fd;
	int directory;   /* -1: stdout or /dev/null, nothing to name */
	char *path;      /* as the user gave it, for faults */
	char *name;      /* in the directory */
	char *temporary; /* in the directory; NULL: the file has no name yet */
};

static int create_fault(const char *path, int error, struct fault *fault)
{
	const char *remedy = "try another --output";
	switch (error) {
	case EACCES:
	case EPERM:
		remedy = "try a directory that you may write to";
		break;
	case ENOENT:
		remedy = "make the directory first, or try another --output";
		break;
	case ENOTDIR:
		remedy = "a part of the path is a file; try another --output";
		break;
	case EROFS:
		remedy = "try a directory on a file system that is not read-only";
		break;
	case ENOSPC:
	case EDQUOT:
		remedy = "free some space, or try another --output";
		break;
	case ENAMETOOLONG:
		remedy = "try a shorter name";
		break;
	}
	return fault_set(fault, error == EACCES || error == EPERM ? FAULT_PERMISSION : FAULT_FAILED, error,
			 "%s: %s; %s", path, strerror(error), remedy);
}

static int stdout_take(struct image_file *file, struct fault *fault)
{
	if (isatty(STDOUT_FILENO))
		return fault_set(fault, FAULT_USAGE, 0,
				 "stdout: an image is not for a terminal; try --output FILE, or a pipe");
	file->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	return file->fd < 0 ? create_fault("stdout", errno, fault) : 0;
}

static bool is_null_device(const struct stat *status)
{
	return S_ISCHR(status->st_mode) && status->st_rdev == makedev(1, 3);
}

/* What may not be renamed over. 1: it is /dev/null, to be written as it is. */
static int target_check(const char *path, struct fault *fault)
{
	struct stat status;
	if (lstat(path, &status))
		return errno == ENOENT ? 0 : create_fault(path, errno, fault);
	if (S_ISREG(status.st_mode))
		return 0;
	if (is_null_device(&status))
		return 1;
	const char *what = S_ISDIR(status.st_mode) ? "is a directory; try a file name in it" :
			   S_ISLNK(status.st_mode) ? "is a symbolic link; try the name of a file" :
			   S_ISFIFO(status.st_mode) ? "is a FIFO; try --output - with stdout sent to it" :
						      "is not a regular file; try another --output";
	return fault_set(fault, FAULT_FAILED, EEXIST, "%s: %s", path, what);
}

/* A name beside @name that nobody else has; no longer than NAME_MAX. */
static char *temporary_name(const char *name)
{
	uint64_t random = 0;
	while (getrandom(&random, sizeof random, 0) < 0 && errno == EINTR)
		;
	return memory_format(".%.200s.%016llx.part", name, (unsigned long long)random);
}

/* Descriptor of a new file in file->directory. */
static int file_open(struct image_file *file)
{
	int fd = openat(file->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	/* EISDIR, ENOENT: a kernel or file system that does not know the flag and saw O_DIRECTORY | O_RDWR. */
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL))
		return fd;
	_free_ char *name = temporary_name(file->name);
	fd = openat(file->directory, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0) {
		file->temporary = name;
		name = NULL;
	}
	return fd;
}

static int file_begin(struct image_file *file, struct fault *fault)
{
	_free_ char *for_dirname = memory_string(file->path);
	_free_ char *for_basename = memory_string(file->path);
	file->name = memory_string(basename(for_basename));
	if (strlen(file->name) > 255)
		return create_fault(file->path, ENAMETOOLONG, fault);
	file->directory = open(dirname(for_dirname), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (file->directory < 0)
		return create_fault(file->path, errno, fault);
	file->fd = file_open(file);
	if (file->fd < 0)
		return create_fault(file->path, errno, fault);
	fchmod(file->fd, 0600); /* the umask may have taken bits away */
	return 0;
}

static int file_fill(struct image_file *file, struct fault *fault)
{
	const char *path = file->path;
	if (!strcmp(path, "-"))
		return stdout_take(file, fault);
	size_t length = strlen(path);
	if (!length || path[length - 1] == '/')
		return fault_set(fault, FAULT_FAILED, EISDIR, "'%s' names no file; try a file name", path);
	int rc = target_check(path, fault);
	if (rc < 0)
		return rc;
	if (!rc)
		return file_begin(file, fault);
	file->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	return file->fd < 0 ? create_fault(path, errno, fault) : 0;
}

int image_file_create(const char *path, struct image_file **ret_file, struct fault *fault)
{
	struct image_file *file = memory_new(sizeof *file);
	file->fd = file->directory = -1;
	file->path = memory_string(path);
	int rc = file_fill(file, fault);
	if (rc) {
		image_file_free(file);
		return rc;
	}
	*ret_file = file;
	return 0;
}

int image_file_fd(const struct image_file *file)
{
	return file->fd;
}

/* Gives the nameless file the name @name; 0 or a negative errno. */
static int file_link(struct image_file *file, const char *name)
{
	char self[64];
	snprintf(self, sizeof self, "/proc/self/fd/%d", file->fd);
	if (!linkat(AT_FDCWD, self, file->directory, name, AT_SYMLINK_FOLLOW))
		return 0;
	int error = errno;
	/* Without /proc; before Linux 6.10 this wants CAP_DAC_READ_SEARCH. */
	if (error == ENOENT && !linkat(file->fd, "", file->directory, name, AT_EMPTY_PATH))
		return 0;
	return -error;
}

/* linkat never replaces: when there is an older image, a second name and a rename over it do. */
static int file_name(struct image_file *file)
{
	if (!file->temporary) {
		int rc = file_link(file, file->name);
		if (rc != -EEXIST)
			return rc;
		char *name = temporary_name(file->name);
		rc = file_link(file, name);
		if (rc) {
			free(name);
			return rc;
		}
		file->temporary = name;
	}
	if (renameat(file->directory, file->temporary, file->directory, file->name))
		return -errno;
	free(file->temporary);
	file->temporary = NULL;
	return 0;
}

int image_file_commit(struct image_file *file, struct fault *fault)
{
	/* EINVAL, EROFS: a pipe or a device, which has nothing to sync. */
	if (fsync(file->fd) && errno != EINVAL && errno != EROFS)
		return fault_set(fault, FAULT_FAILED, errno, "cannot be brought to the disk: %s; try another --output", strerror(errno));
	if (file->directory < 0)
		return 0;
	int rc = file_name(file);
	if (rc)
		return fault_set(fault, fault_class_of(-rc), -rc, "cannot get its name: %s; try another --output", strerror(-rc));
	if (fsync(file->directory) && errno != EINVAL)
		return fault_set(fault, FAULT_FAILED, errno, "is there, and whole, but its directory cannot be brought to the disk: %s; try sync(1) before you "
				 "rely on it", strerror(errno));
	return 0;
}

void image_file_free(struct image_file *file)
{
	if (!file)
		return;
	if (file->temporary)
		unlinkat(file->directory, file->temporary, 0);
	fd_close_scoped(&file->fd);
	fd_close_scoped(&file->directory);
	free(file->temporary);
	free(file->name);
	free(file->path);
	free(file);
}
