/* SPDX-License-Identifier: Apache-2.0 */
/* The path is walked here, component by component, links too, as the kernel does it. A directory can be changed by its owner, and by those whom
 * its mode lets write; with the sticky bit these cannot take away or replace what is not theirs, so there the entry has
 * to be root's as well. An entry of a directory that only root can change was put there by root. Who can change none of it could not have
 * led the open to another file before, either, since it ends at the same file. */
#include "api/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"

enum { MOST_LINKS = 40 }; /* as the kernel: include/linux/namei.h */

struct walk {
	const char *path;       /* as the user gave it */
	char rest[2 * PATH_MAX]; /* what is still to be walked */
	char done[2 * PATH_MAX]; /* the directory `at`, for faults; "" is the root directory */
	int at;
	struct stat at_stat;
	int links;
	uid_t root_owner;       /* of the root directory: in a user namespace root can be a number that is not known there */
	uid_t caller;           /* who called root by sudo; 0: nobody */
};

static int distrust(const struct walk *walk, const char *where, const char *why, struct fault *fault)
{
	return fault_set(fault, FAULT_PERMISSION, EPERM,
			 "%s: %s %s, so others could have put any image there; try --trust-image, or a directory that only root "
			 "can change", walk->path, where, why);
}

static int unknown(const struct walk *walk, int error, struct fault *fault)
{
	return fault_set(fault, FAULT_PERMISSION, error,
			 "%s: who could have written it cannot be told (%s: %s); try --trust-image", walk->path,
			 walk->done[0] ? walk->done : "/", strerror(error));
}

static uid_t caller_of_sudo(void)
{
	const char *text = getenv("SUDO_UID");
	char *end = NULL;
	unsigned long uid = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
	return end && !*end && uid < UINT_MAX ? (uid_t)uid : 0;
}

/* In a home directory, whoever may become root there by sudo can do no more than he may anyway; his private group is his alone. */
static bool is_trusted(const struct walk *walk, uid_t uid)
{
	return uid == 0 || uid == walk->root_owner || (walk->caller && uid == walk->caller);
}

static bool others_may_write(const struct walk *walk, const struct stat *directory)
{
	bool private_group = walk->caller && directory->st_uid == walk->caller && directory->st_gid == walk->caller;
	return directory->st_mode & S_IWOTH || (directory->st_mode & S_IWGRP && !private_group);
}

/* Takes @fd, a directory. */
static int enter(struct walk *walk, int fd, struct fault *fault)
{
	char where[PATH_MAX], why[64];
	if (fd < 0 || fstat(fd, &walk->at_stat) < 0)
		return unknown(walk, errno, fault);
	if (walk->at >= 0)
		close(walk->at);
	walk->at = fd;
	if (!walk->done[0])
		walk->root_owner = walk->at_stat.st_uid;
	snprintf(where, sizeof where, "%.300s", walk->done[0] ? walk->done : "/");
	snprintf(why, sizeof why, "belongs to user %u", walk->at_stat.st_uid);
	if (!is_trusted(walk, walk->at_stat.st_uid))
		return distrust(walk, where, why, fault);
	if (others_may_write(walk, &walk->at_stat) && !(walk->at_stat.st_mode & S_ISVTX))
		return distrust(walk, where, "can be written to by others", fault);
	return 0;
}

static int enter_root(struct walk *walk, struct fault *fault)
{
	walk->done[0] = 0;
	return enter(walk, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), fault);
}

/* What a symbolic link says comes before the rest. */
static int follow(struct walk *walk, int link, struct fault *fault)
{
	char target[PATH_MAX], rest[sizeof walk->rest];
	ssize_t length = readlinkat(link, "", target, sizeof target);
	if (length < 0)
		return unknown(walk, errno, fault);
	int size = snprintf(rest, sizeof rest, "%.*s/%s", (int)length, target, walk->rest);
	if (length == sizeof target || size >= (int)sizeof rest || ++walk->links > MOST_LINKS)
		return unknown(walk, ELOOP, fault);
	memcpy(walk->rest, rest, (size_t)size + 1);
	return target[0] == '/' ? enter_root(walk, fault) : 0;
}

/* Cuts the next component off; false: there is none. */
static bool next(struct walk *walk, char ret_name[NAME_MAX + 1])
{
	const char *from = walk->rest + strspn(walk->rest, "/");
	size_t length = strcspn(from, "/");
	snprintf(ret_name, NAME_MAX + 1, "%.*s", (int)length, from);
	const char *behind = from + length + strspn(from + length, "/");
	memmove(walk->rest, behind, strlen(behind) + 1);
	return length > 0;
}

/* A link of /proc that leads to an open file, not to a path: /dev/stdin, <(command). Whoever started Cairn opened it. */
static bool is_descriptor(const struct walk *walk)
{
	struct statfs system;
	return !walk->rest[0] && fstatfs(walk->at, &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

/* One component. *ret_fd: the file at the end of the walk, else -1. */
static int step(struct walk *walk, const char *name, int *ret_fd, struct fault *fault)
{
	struct stat stat_;
	*ret_fd = -1;
	_close_ int fd = openat(walk->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat_) < 0)
		return unknown(walk, errno, fault);
	if (S_ISLNK(stat_.st_mode) && is_descriptor(walk)) {
		*ret_fd = openat(walk->at, name, O_PATH | O_CLOEXEC);
		return *ret_fd < 0 ? unknown(walk, errno, fault) : 0;
	}
	if (others_may_write(walk, &walk->at_stat) && !is_trusted(walk, stat_.st_uid)) {
		char where[PATH_MAX];
		snprintf(where, sizeof where, "%.300s/%.100s", walk->done, name);
		return distrust(walk, where, "does not belong to root, and its directory can be written to by others", fault);
	}
	if (S_ISLNK(stat_.st_mode))
		return follow(walk, fd, fault);
	if (S_ISDIR(stat_.st_mode)) {
		size_t used = strlen(walk->done);
		if (strcmp(name, "."))
			snprintf(walk->done + used, sizeof walk->done - used, "/%s", name);
		return enter(walk, fd_steal(&fd), fault);
	}
	*ret_fd = fd_steal(&fd);
	return 0;
}

static int walk_to_end(struct walk *walk, int *ret_fd, struct fault *fault)
{
	char name[NAME_MAX + 1], cwd[PATH_MAX] = "";
	if (walk->path[0] != '/' && !getcwd(cwd, sizeof cwd))
		return unknown(walk, errno, fault);
	if (snprintf(walk->rest, sizeof walk->rest, "%s/%s", cwd, walk->path) >= (int)sizeof walk->rest)
		return unknown(walk, ENAMETOOLONG, fault);
	int rc = enter_root(walk, fault);
	*ret_fd = -1;
	while (rc == 0 && *ret_fd < 0 && next(walk, name))
		rc = step(walk, name, ret_fd, fault);
	return rc;
}

int trust_check(const char *path, int fd, struct fault *fault)
{
	struct stat opened, found;
	struct walk walk = { .path = path, .at = -1, .caller = caller_of_sudo() };
	if (fstat(fd, &opened) < 0)
		return unknown(&walk, errno, fault);
	if (S_ISDIR(opened.st_mode))
		return 0; /* no image, as the reader says */
	if (opened.st_uid != 0 || (opened.st_mode & 022))
		return fault_set(fault, FAULT_PERMISSION, EPERM,
				 "%s: %s, so others could have put anything into it; try --trust-image, or chown root and "
				 "chmod go-w", path, opened.st_uid != 0 ? "does not belong to root" : "is writable by others");
	int end = -1, rc = walk_to_end(&walk, &end, fault);
	if (rc == 0 && (end < 0 || walk.rest[0] || fstat(end, &found) < 0 || found.st_dev != opened.st_dev ||
			found.st_ino != opened.st_ino))
		rc = fault_set(fault, FAULT_VANISHED, ESTALE, "%s: another file got its name meanwhile; try again", path);
	if (end >= 0)
		close(end);
	if (walk.at >= 0)
		close(walk.at);
	return rc;
}

int trust_check_mapped(const char *path, int fd, struct fault *fault)
{
	struct stat file, root;
	if (fstat(fd, &file) < 0 || stat("/", &root) < 0)
		return fault_set(fault, FAULT_PERMISSION, errno, "%s: who could write to it cannot be told: %s", path, strerror(errno));
	/* In a user namespace root is a number that is not known there, and so is everybody else: the Cairn outside has asked as well. */
	bool owned = file.st_uid == geteuid() || file.st_uid == 0 || file.st_uid == root.st_uid;
	if (owned && !(file.st_mode & 022))
		return 0;
	return fault_set(fault, FAULT_PERMISSION, EPERM, "%s: %s, so others could change the memory of a program that runs on it; try --lazy without "
			 "\"=mapped\", or a copy of your own with chmod go-w", path, owned ? "is writable by others" : "belongs to another user");
}
