/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files and directories: path, flags and position from /proc/PID/fd and fdinfo. Opened again by path after their identity was
 * checked: a file that the program only reads must be the same, one that it writes must have the size it had. A
 * deleted file's contents are in the image; it comes back without a name, as a deleted directory does, which is empty.
 * Locks: flock, POSIX and OFD locks and leases, from fdinfo (of every process that has the file: each sees its own), taken again before anything runs; one that somebody else holds now
 * is a fault with his PID. A file that lost the name
 * by which it was opened, but has others, is opened by one of those in the same directory; a copy would be another file. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/locks.h"
#include "kinds/files/open_file.h"
#include "kinds/files/saved_file.h"
#include "kinds/identity.h"
#include "kinds/table.h"

/* Lock.type */
enum { LOCK_FLOCK, LOCK_POSIX, LOCK_OFD, LOCK_LEASE };

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

/* /proc/PID/...: it comes with the process. */
static bool is_of_process(const char *path)
{
	return !strncmp(path, "/proc/", 6) && path[6] >= '0' && path[6] <= '9';
}

static bool is_named(const struct frozen_file *file, const char *path)
{
	struct stat named;
	return lstat(path, &named) == 0 && named.st_dev == file->stat.st_dev && named.st_ino == file->stat.st_ino;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct arena arena = { 0 };
	bool regular = S_ISREG(file->stat.st_mode);
	if (saved_file_is_wanted(harvest, file) && !is_made_up(file->link)) {
		int rc = saved_file_refuse(file, fault);
		if (rc < 0)
			return rc;
	}
	if (is_named(file, file->link) || is_made_up(file->link) || ((regular || S_ISDIR(file->stat.st_mode)) && file->stat.st_nlink == 0))
		return 0;
	bool found = regular && identity_other_name(&arena, file->link, file->stat.st_dev, file->stat.st_ino);
	arena_finish(&arena);
	if (found)
		return 0;
	if (regular)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "%s: this name means something else here, and of its %lu others none is in that directory: a copy would be "
				 "another file; try to give the file its name again (ln), or to close it", file->link,
				 (unsigned long)file->stat.st_nlink);
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "%s: is deleted or hidden, and no regular file whose contents could be kept; try again when the "
			 "program has closed it", file->link);
}

static bool is_known(const Cairn__RegularFile *message, const Cairn__Lock *lock)
{
	for (size_t i = 0; i < message->n_locks; i++) {
		const Cairn__Lock *other = message->locks[i];
		if (other->type == lock->type && other->pid == lock->pid && other->start == lock->start && other->end == lock->end &&
		    other->write == lock->write)
			return true;
	}
	return false;
}

/* A lock belongs to the descriptor table (fs/locks.c posix_lock_inode, fl_owner), and names the process that has set it: of those that share a table
 * the one that brings it back takes the locks. */
static uint32_t holder_of(const struct harvest *harvest, pid_t pid)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		if (process->pid == pid && !frozen_owns(process, SHARE_FILES))
			return (uint32_t)process->shares[SHARE_FILES]->pid;
	}
	return pid > 0 ? (uint32_t)pid : 0;
}

/* One "lock:" line of fdinfo. Seen through several descriptors of a process, a lock is said several times. */
static int add_lock(struct harvest *harvest, Cairn__RegularFile *message, const char *value, struct fault *fault)
{
	static const uint32_t types[] = {
		[LOCK_TYPE_FLOCK] = LOCK_FLOCK, [LOCK_TYPE_POSIX] = LOCK_POSIX, [LOCK_TYPE_OFD] = LOCK_OFD,
		[LOCK_TYPE_LEASE] = LOCK_LEASE,
	};
	struct file_lock seen;
	if (!lock_parse(value, &seen) || seen.type == LOCK_TYPE_OTHER)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: a lock of an unknown sort (%s); try again when the program has "
				 "given it up", message->path, value);
	if (seen.breaking)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "%s: its lease is being broken; try again when the program "
					   "has given it up", message->path);
	Cairn__Lock *lock = HARVEST_MESSAGE(harvest, Cairn__Lock, cairn__lock__init);
	lock->type = types[seen.type];
	lock->write = seen.write;
	lock->pid = holder_of(harvest, seen.pid);
	lock->start = seen.start;
	lock->end = seen.end;
	if (is_known(message, lock))
		return 0;
	Cairn__Lock **locks = ARENA_ARRAY(&harvest->arena, Cairn__Lock *, message->n_locks + 1);
	if (message->n_locks)
		memcpy(locks, message->locks, message->n_locks * sizeof *locks);
	locks[message->n_locks++] = lock;
	message->locks = locks;
	return 0;
}

static int capture_locks(struct harvest *harvest, struct frozen_file *file, Cairn__RegularFile *message,
			 struct fault *fault)
{
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	int rc = 0;
	while (rc == 0 && fdinfo_next(&cursor, &key, &value))
		if (!strcmp(key, "lock"))
			rc = add_lock(harvest, message, value, fault);
	return rc;
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

static int capture_saved(struct harvest *harvest, const struct frozen_file *file, const char *path, struct fault *fault)
{
	char link[64];
	if (!saved_file_is_wanted(harvest, file) || is_made_up(path))
		return 0;
	snprintf(link, sizeof link, "/proc/%d/fd/%d", file->pid, file->fd);
	return saved_file_capture(harvest, link, path, false, fault);
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__RegularFile *message = HARVEST_MESSAGE(harvest, Cairn__RegularFile, cairn__regular_file__init);
	int rc = 0;
	message->open = open_file_capture(harvest, file);
	message->path = (char *)file->link;
	message->identity = identity_capture(harvest, -1, &file->stat);
	message->deleted = (S_ISREG(file->stat.st_mode) || S_ISDIR(file->stat.st_mode)) && file->stat.st_nlink == 0;
	if (message->deleted && S_ISREG(file->stat.st_mode)) /* a directory is empty, and stays so */
		rc = capture_deleted(harvest, file, message, fault);
	else if (!message->deleted && !is_named(file, file->link) && !is_made_up(file->link))
		message->path = identity_other_name(&harvest->arena, file->link, file->stat.st_dev, file->stat.st_ino);
	if (!message->path)
		return fault_set_transient(fault, FAULT_VANISHED, ESTALE, "%s: its other name is gone; try again", file->link);
	if (rc == 0)
		rc = capture_locks(harvest, file, message, fault);
	if (rc == 0)
		rc = capture_saved(harvest, file, message->path, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_regular_file, &message->base);
	return rc;
}

static uint32_t needs(const ProtobufCMessage *base)
{
	return ((const Cairn__RegularFile *)base)->contents;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	if (!message->open || !message->identity || !identity_path_valid(message->path) ||
	    (message->deleted && !message->contents && !S_ISDIR(message->identity->mode)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a regular file has impossible values");
	for (size_t i = 0; i < message->n_locks; i++)
		if (message->locks[i]->type > LOCK_LEASE || message->locks[i]->start > INT64_MAX ||
		    message->locks[i]->end < message->locks[i]->start)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "%s: a lock has impossible values", message->path);
	if (message->deleted || is_of_process(message->path))
		return 0;
	int rc = open_file_check(message->open, message->path, fault);
	return rc < 0 ? rc : identity_check(message->path, message->identity, is_made_up(message->path), fault);
}

static struct flock range_of(const Cairn__Lock *lock)
{
	return (struct flock){
		.l_type = lock->write ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lock->start,
		.l_len = lock->end == UINT64_MAX ? 0 : (off_t)(lock->end - lock->start + 1),
	};
}

static int lock_refused(const Cairn__RegularFile *message, const Cairn__Lock *lock, int fd, int error, struct fault *fault)
{
	static const enum lock_type types[] = { LOCK_TYPE_FLOCK, LOCK_TYPE_POSIX, LOCK_TYPE_OFD, LOCK_TYPE_LEASE };
	struct file_lock wanted = { .type = types[lock->type], .write = lock->write, .start = lock->start, .end = lock->end };
	struct proc_stat holder_stat = { .command = "?" };
	struct stat file;
	if (error != EAGAIN && error != EACCES)
		return fault_set(fault, fault_class_of(error), error, "%s: take its lock: %s", message->path, strerror(error));
	if (fstat(fd, &file) == 0)
		wanted.inode = file.st_ino, wanted.device = file.st_dev;
	pid_t holder = lock_holder(&wanted);
	if (!holder)
		return fault_set(fault, FAULT_FAILED, error, "%s: its lock is held by a process that is not seen here; try `lslocks` outside, "
				 "and end that process", message->path);
	proc_stat_read(holder, 0, &holder_stat, NULL);
	return fault_set(fault, FAULT_FAILED, error, "%s: its lock is held by process %d (%s) now; try to end that process", message->path,
			 holder, holder_stat.command);
}

/* Locks of the open file description are taken now; a process takes its POSIX locks itself, when it has the descriptor: now they must
 * be free. */
static int take_locks(const Cairn__RegularFile *message, int fd, struct fault *fault)
{
	for (size_t i = 0; i < message->n_locks; i++) {
		const Cairn__Lock *lock = message->locks[i];
		struct flock range = range_of(lock);
		int rc = 0, error;
		if (lock->type == LOCK_FLOCK)
			rc = flock(fd, (lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB);
		else if (lock->type == LOCK_OFD)
			rc = fcntl(fd, F_OFD_SETLK, &range);
		else if (lock->type == LOCK_POSIX)
			rc = fcntl(fd, F_GETLK, &range);
		error = rc < 0 ? errno : EAGAIN;
		if (rc < 0 || (lock->type == LOCK_POSIX && range.l_type != F_UNLCK))
			return lock_refused(message, lock, fd, error, fault);
	}
	return 0;
}

static int make_directory(struct workshop *workshop, const Cairn__RegularFile *message, struct fault *fault)
{
	_free_ char *name = identity_deleted_name(message->path, "fd", message->open->file);
	mode_t mode = message->identity->mode & 07777;
	if (mkdir(name, 0700) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "cannot make a directory for the deleted %s: %s", message->path, strerror(errno));
	int rc = identity_give(name, S_IFDIR, message->identity->uid, message->identity->gid, mode);
	rc = rc == -EPERM ? 0 : rc;
	if (rc < 0)
		fault_set(fault, fault_class_of(-rc), -rc, "owner and mode of %s: %s", name, strerror(-rc));
	if (rc == 0)
		rc = open_file_make(workshop, message->open, name, false, fault);
	rmdir(name);
	return rc;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	char path[64];
	int rc;
	if (message->deleted && S_ISDIR(message->identity->mode)) {
		rc = make_directory(workshop, message, fault);
	} else if (message->deleted) {
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

/* POSIX locks belong to a process, and a lease's holder is told of its breaking: it takes them itself. */
static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch,
		    struct fault *fault)
{
	const Cairn__RegularFile *message = (const Cairn__RegularFile *)base;
	(void)fault;
	for (size_t i = 0; i < message->n_locks; i++) {
		const Cairn__Lock *lock = message->locks[i];
		if (workshop_task(thread->process->workshop, lock->pid) != thread->process->pid)
			continue;
		struct flock range = range_of(lock);
		batch_group(batch, 1, 64);
		if (lock->type == LOCK_POSIX)
			batch_call(batch, fcntl, (uint64_t)fd, F_SETLK, batch_data(batch, &range, sizeof range).address);
		else if (lock->type == LOCK_LEASE)
			batch_call(batch, fcntl, (uint64_t)fd, F_SETLEASE, lock->write ? F_WRLCK : F_RDLCK);
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
	.needs = needs,
	.check = check,
	.make = make,
	.turn = COMMIT_PUT_BACK,
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
