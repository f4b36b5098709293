/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files and directories: path, flags and position from /proc/PID/fd and fdinfo. Opened again by path after their identity was
 * checked: a file that the program only reads must be the same, one that it writes must have the size it had. A
 * deleted file's contents are in the image; it comes back without a name. Locks: flock and POSIX locks from fdinfo, taken
 * again; OFD locks as well. A file that has other links than the one opened keeps its contents only in the copy. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "kinds/files/open_file.h"
#include "kinds/identity.h"
#include "kinds/table.h"

static bool probe(const struct frozen_file *file)
{
	return (S_ISREG(file->stat.st_mode) || S_ISDIR(file->stat.st_mode) || (file->info.flags & O_PATH)) &&
	       file->link[0] == '/' && strncmp(file->link, "/memfd:", 7);
}

/* Files that the kernel makes up have no size or time to compare. */
static bool is_made_up(const char *path)
{
	struct statfs fs;
	return statfs(path, &fs) == 0 &&
	       (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC || fs.f_type == CGROUP_SUPER_MAGIC ||
		fs.f_type == CGROUP2_SUPER_MAGIC || fs.f_type == DEBUGFS_MAGIC || fs.f_type == TRACEFS_MAGIC);
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct stat named;
	(void)harvest;
	if (!file->deleted && stat(file->link, &named) == 0 && named.st_dev == file->stat.st_dev &&
	    named.st_ino == file->stat.st_ino)
		return 0;
	if (file->deleted && S_ISREG(file->stat.st_mode) && !(file->info.flags & O_PATH))
		return 0;
	if (!file->deleted && S_ISREG(file->stat.st_mode))
		return 0; /* another file has its name now, or it lies under a mount: as if deleted */
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "%s: is deleted or hidden, and no regular file whose contents could be kept; try again when the "
			 "program has closed it", file->link);
}

/* One "lock:" line of fdinfo: "1: FLOCK  ADVISORY  WRITE 4121 fe:00:1234 0 EOF" (fs/locks.c lock_get_status). */
static void add_lock(struct harvest *harvest, Cairn__RegularFile *message, const char *value)
{
	char type[16], access[16], end[32];
	int pid;
	unsigned long long start;
	if (sscanf(value, "%*d: %15s %*15s %15s %d %*s %llu %31s", type, access, &pid, &start, end) != 5)
		return;
	Cairn__Lock *lock = HARVEST_MESSAGE(harvest, Cairn__Lock, cairn__lock__init);
	lock->type = !strcmp(type, "FLOCK") ? 0 : !strcmp(type, "OFDLCK") ? 2 : 1;
	lock->write = !strcmp(access, "WRITE");
	lock->pid = pid > 0 ? (uint32_t)pid : 0;
	lock->start = start;
	lock->end = strcmp(end, "EOF") ? strtoull(end, NULL, 10) : UINT64_MAX;
	Cairn__Lock **locks = ARENA_ARRAY(&harvest->arena, Cairn__Lock *, message->n_locks + 1);
	if (message->n_locks)
		memcpy(locks, message->locks, message->n_locks * sizeof *locks);
	locks[message->n_locks++] = lock;
	message->locks = locks;
}

static void capture_locks(struct harvest *harvest, struct frozen_file *file, Cairn__RegularFile *message)
{
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	while (fdinfo_next(&cursor, &key, &value))
		if (!strcmp(key, "lock"))
			add_lock(harvest, message, value);
}

static int capture_deleted(struct harvest *harvest, struct frozen_file *file, Cairn__RegularFile *message,
			   struct fault *fault)
{
	bool is_new;
	message->contents = harvest_object(harvest, file->stat.st_dev, file->stat.st_ino, &is_new);
	if (!is_new)
		return 0;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/fd/%d", file->pid, file->fd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "deleted file %s: %s", file->link, strerror(errno));
	harvest_contents(harvest, message->contents, fd, (uint64_t)file->stat.st_size);
	Cairn__DeletedFile *deleted = HARVEST_MESSAGE(harvest, Cairn__DeletedFile, cairn__deleted_file__init);
	deleted->id = message->contents;
	deleted->path = (char *)file->link;
	deleted->identity = message->identity;
	harvest_add(harvest, &kind_deleted_file, &deleted->base);
	return 0;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__RegularFile *message = HARVEST_MESSAGE(harvest, Cairn__RegularFile, cairn__regular_file__init);
	struct stat named;
	int rc = 0;
	message->open = open_file_capture(harvest, file);
	message->path = (char *)file->link;
	message->identity = identity_capture(harvest, -1, &file->stat);
	if (file->deleted || stat(file->link, &named) < 0 || named.st_dev != file->stat.st_dev ||
	    named.st_ino != file->stat.st_ino) {
		message->deleted = true;
		rc = capture_deleted(harvest, file, message, fault);
	}
	capture_locks(harvest, file, message);
	if (rc == 0)
		harvest_add(harvest, &kind_regular_file, &message->base);
	return rc;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	if (!message->open || !message->identity || !identity_path_valid(message->path) ||
	    (message->deleted && !message->contents))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a regular file has impossible values");
	if (message->deleted)
		return 0;
	return identity_check(message->path, message->identity, is_made_up(message->path), fault);
}

static int take_locks(const Cairn__RegularFile *message, int fd, struct fault *fault)
{
	for (size_t i = 0; i < message->n_locks; i++) {
		const Cairn__Lock *lock = message->locks[i];
		struct flock range = {
			.l_type = lock->write ? F_WRLCK : F_RDLCK,
			.l_whence = SEEK_SET,
			.l_start = (off_t)lock->start,
			.l_len = lock->end == UINT64_MAX ? 0 : (off_t)(lock->end - lock->start + 1),
		};
		int rc = 0;
		if (lock->type == 0)
			rc = flock(fd, (lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB);
		else if (lock->type == 2)
			rc = fcntl(fd, F_OFD_SETLK, &range);
		if (rc < 0)
			return fault_set(fault, FAULT_FAILED, errno,
					 "%s: its lock is held by somebody else now (%s); try `lslocks`, and end that "
					 "process", message->path, strerror(errno));
	}
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	char path[64];
	int rc;
	if (message->deleted) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", workshop_fd(workshop, message->contents));
		rc = open_file_make(workshop, message->open, path, true, fault);
	} else {
		rc = open_file_make(workshop, message->open, message->path, true, fault);
	}
	return rc < 0 ? rc : take_locks(message, workshop_fd(workshop, message->open->file), fault);
}

/* Only what this program may have written itself is cut off. */
static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	int fd = workshop_fd(workshop, message->open->file);
	struct stat now;
	if (!workshop->roll_back || message->deleted || fd < 0 || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ||
	    fstat(fd, &now) < 0 || !S_ISREG(now.st_mode) || (uint64_t)now.st_size <= message->identity->size ||
	    is_made_up(message->path))
		return 0;
	if (ftruncate(fd, (off_t)message->identity->size) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: cut back to %llu bytes: %s", message->path,
				 (unsigned long long)message->identity->size, strerror(errno));
	return 0;
}

/* POSIX locks belong to a process: it takes them itself. */
static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch,
		    struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	(void)fault;
	for (size_t i = 0; i < message->n_locks; i++) {
		const Cairn__Lock *lock = message->locks[i];
		if (lock->type != 1 || workshop_task(thread->process->workshop, lock->pid) != thread->process->pid)
			continue;
		struct flock range = {
			.l_type = lock->write ? F_WRLCK : F_RDLCK,
			.l_whence = SEEK_SET,
			.l_start = (off_t)lock->start,
			.l_len = lock->end == UINT64_MAX ? 0 : (off_t)(lock->end - lock->start + 1),
		};
		batch_group(batch, 1, 64);
		struct batch_place place = batch_data(batch, &range, sizeof range);
		batch_call(batch, fcntl, (uint64_t)fd, F_SETLK, place.address);
	}
	return 0;
}

const struct kind kind_regular_file = {
	.name = "regular file",
	.tag = 50,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__regular_file__descriptor,
	.owner_field = "open",
	.path_field = "path",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check,
	.make = make,
	.commit = commit,
	.connect = connect_,
};

/* ---- the contents behind deleted ones ---- */

static int check_deleted(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__DeletedFile *message = (const Cairn__DeletedFile *)base;
	if (!message->id || !message->identity || !identity_path_valid(message->path))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a deleted file has impossible values");
	return 0;
}

static int make_deleted(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__DeletedFile *message = (const Cairn__DeletedFile *)base;
	int fd, rc = identity_make_deleted(message->path, message->identity, &fd, fault);
	if (rc == 0)
		workshop_put(workshop, message->id, fd);
	return rc;
}

const struct kind kind_deleted_file = {
	.name = "deleted file",
	.tag = 34,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__deleted_file__descriptor,
	.owner_field = "id",
	.path_field = "path",
	.check = check_deleted,
	.make = make_deleted,
};
