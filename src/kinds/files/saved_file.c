/* SPDX-License-Identifier: Apache-2.0 */
/* A file that has a name and that the tree writes to, with the contents of the moment of the save (--save-files): read in the freeze, from the page
 * cache like every reader, so that what several files say of each other (a database and its log) is of one moment.
 *
 * Put back only by --file-changed rollback, but POSIX shared memory in any case, as long as nobody else has it open or mapped. The contents are first loaded beside it, into a file (or memory) without a name: a damaged image, a full disk or any
 * other failure of the restore finds the file as it was. In the very last step they are written into the file that has the name now, only where it
 * differs, and it gets the size and the time of modification of the save. In place, because the file's links, owner, attributes and those who have it
 * open are not Cairn's to change. Killed in that step, a restore leaves a file between old and new, and no program on it: the same restore once more
 * puts it right. A file that is gone is made again.
 *
 * A small file in a place for temporary ones that the tree has mapped for writing is a *passing* one (Java's hsperfdata, valgrind's for vgdb): its maker
 * removes it at its end, and no second restore, nor one on another host, would find it. It goes along without being asked for, and is made again where it
 * is missing, and its directory; where there is one it stays as it is.
 *
 * Not carried: what the tree made after the save stays; a name that is a symbolic link by now is not followed. */
#include "kinds/files/saved_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "files.pb-c.h"
#include "kinds/identity.h"
#include "kinds/table.h"

bool saved_file_is_wanted(const struct harvest *harvest, const struct frozen_file *file)
{
	uint32_t flags = file->info.flags;
	if (harvest->policy.save_files == SAVE_FILES_NONE || !S_ISREG(file->stat.st_mode) || file->stat.st_nlink == 0 || (flags & O_PATH) ||
	    (flags & O_ACCMODE) == O_RDONLY)
		return false;
	return harvest->policy.save_files == SAVE_FILES_ALL || (flags & O_APPEND);
}

bool saved_file_is_memory(const char *path, int fd)
{
	static const char directory[] = "/dev/shm/";
	struct statfs fs;
	/* Names have one slash, the first character (shm_open(3)). */
	return !strncmp(path, directory, sizeof directory - 1) && !strchr(path + sizeof directory - 1, '/') && fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

bool saved_file_is_passing(const char *path, const struct stat *stat)
{
	enum { MOST_BYTES = 1 << 20 };
	return S_ISREG(stat->st_mode) && stat->st_size <= MOST_BYTES && identity_in_passing_place(path);
}

/* Not by opening it: whoever watches it would be told, at each try. A process that is just ending, or in the middle of exec, has links in /proc that an ordinary user may
 * not follow, and may not read either (fs/proc/base.c task_dump_owner): that says nothing of the file. */
static bool may_be_read(const char *link)
{
	char target;
	for (int tries = 0; tries < 2; tries++)
		if (faccessat(AT_FDCWD, link, R_OK, AT_EACCESS) == 0 || (errno != EACCES && errno != EPERM) || readlink(link, &target, 1) < 0)
			return true;
	return false;
}

int saved_file_refuse(const struct frozen_file *file, struct fault *fault)
{
	char link[64];
	struct statfs fs;
	snprintf(link, sizeof link, "/proc/%d/fd/%d", file->pid, file->fd);
	if (statfs(link, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: is in huge pages, whose contents are not written back to a name; try without "
				 "--save-files", file->link);
	if (!may_be_read(link))
		return fault_set(fault, FAULT_PERMISSION, EACCES, "%s: may not be read, so that its contents cannot go along; try as root, or without "
				 "--save-files", file->link);
	return 0;
}

/* One copy of a file; the numbers of devices that there are leave the highest bit free (include/linux/kdev_t.h). */
static uint32_t copy_of(struct harvest *harvest, const struct stat *stat, bool *ret_new)
{
	return harvest_object(harvest, stat->st_dev | UINT64_C(1) << 63, stat->st_ino, ret_new);
}

int saved_file_capture(struct harvest *harvest, const char *link, const char *path, bool mapped, struct fault *fault)
{
	struct stat stat_;
	bool is_new;
	_close_ int fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &stat_) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: read its contents: %s; try without --save-files", path, strerror(errno));
	uint32_t id = copy_of(harvest, &stat_, &is_new);
	if (!is_new)
		return 0;
	Cairn__SavedFile *message = HARVEST_MESSAGE(harvest, Cairn__SavedFile, cairn__saved_file__init);
	message->id = id;
	message->path = arena_string(&harvest->arena, path);
	message->identity = identity_capture(harvest, -1, &stat_);
	message->memory = saved_file_is_memory(path, fd);
	message->passing = mapped && saved_file_is_passing(path, &stat_);
	message->directory = message->passing ? identity_of_directory(harvest, path) : NULL;
	harvest_contents(harvest, id, fd_steal(&fd), (uint64_t)stat_.st_size);
	harvest_add(harvest, &kind_saved_file, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SavedFile *message = (const Cairn__SavedFile *)base;
	if (!message->id || !message->identity || !S_ISREG(message->identity->mode) || message->identity->size > INT64_MAX ||
	    message->identity->modified_ns > 999999999 || !identity_path_valid(message->path))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a saved file has impossible values");
	return 0;
}

static void unmake(uint64_t what)
{
	unlink((const char *)(uintptr_t)what);
}

/* With its size, as mappings of it are locked and filled before it is written to. It is no more if the restore fails. */
static int make_target(struct workshop *workshop, const Cairn__SavedFile *message, int flags)
{
	int fd = open(message->path, flags | O_CREAT | O_EXCL, message->identity->mode & 0777);
	if (fd < 0)
		return fd;
	workshop_on_failure(workshop, unmake, (uint64_t)(uintptr_t)message->path);
	if (fchown(fd, message->identity->uid, message->identity->gid) < 0 || fchmod(fd, message->identity->mode & 07777) < 0) {
		/* An ordinary user's own: the owner is right already. */
	}
	if (ftruncate(fd, (off_t)message->identity->size) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* The file to write to. One that is gone is made. */
static int open_target(struct workshop *workshop, const Cairn__SavedFile *message, int *ret_fd, struct fault *fault)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW;
	struct stat now;
	int fd = open(message->path, flags);
	if (fd < 0 && errno == ENOENT) {
		if (message->directory)
			identity_make_directory(workshop, message->path, message->directory);
		fd = make_target(workshop, message, flags);
	}
	if (fd < 0 && errno == ELOOP)
		return fault_set(fault, FAULT_FAILED, ELOOP, "%s: is a symbolic link now, and is not rolled back through it; try to put the file "
				 "there, or --map-path", message->path);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: roll it back: %s; try to make its directory, or to change who may "
				 "write it", message->path, strerror(errno));
	if (fstat(fd, &now) < 0 || !S_ISREG(now.st_mode)) {
		close(fd);
		return fault_set(fault, FAULT_FAILED, EINVAL, "%s: is no regular file now; try to put the old one back", message->path);
	}
	*ret_fd = fd;
	return 0;
}

/* A lease for writing is only had of a file that nobody else has open or mapped (kernel fs/locks.c check_conflicting_open, 6.18). By who does not own the
 * file it takes CAP_LEASE: then it is not known. NULL: nobody has it; otherwise why it is left alone. */
static const char *why_in_use(const char *path)
{
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0)
		return errno != ENOENT ? "this shared memory cannot be opened" : NULL;
	fcntl(fd, F_SETSIG, SIGURG); /* whoever opens it in this moment would end Cairn by a SIGIO */
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		return errno == EACCES ? "whether somebody else has this shared memory of another user open cannot be told without CAP_LEASE" :
					 "somebody else has this shared memory open";
	fcntl(fd, F_SETLEASE, F_UNLCK);
	return NULL;
}

static bool puts_back(const ProtobufCMessage *base, bool roll_back)
{
	const Cairn__SavedFile *message = (const Cairn__SavedFile *)base;
	struct stat now;
	return roll_back || message->memory || (message->passing && lstat(message->path, &now) < 0 && errno == ENOENT);
}

/* Not in the file system of shared memory, which may have no room for it twice (64 MB in a container). */
static int make_memory(const Cairn__SavedFile *message, int *ret_fd, struct fault *fault)
{
	_close_ int fd = memfd_create("saved", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)message->identity->size) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: memory for what it held: %s", message->path, strerror(errno));
	*ret_fd = fd_steal(&fd);
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SavedFile *message = (const Cairn__SavedFile *)base;
	int fd;
	const char *in_use = !workshop->roll_back && message->memory ? why_in_use(message->path) : NULL;
	if (in_use)
		log_warn("%s: %s, so it stays as it is now; --file-changed rollback gives it back what it held at the checkpoint", message->path, in_use);
	if (in_use || !puts_back(base, workshop->roll_back)) {
		workshop_discard(workshop, message->id);
		return 0;
	}
	int rc = open_target(workshop, message, &fd, fault);
	if (rc < 0)
		return rc;
	workshop_put_second(workshop, message->id, fd);
	rc = message->memory ? make_memory(message, &fd, fault) : identity_make_deleted(message->path, message->identity, &fd, fault);
	if (rc == 0)
		workshop_put(workshop, message->id, fd);
	return rc;
}

/* Where one of both has something, from @at on; @size: neither has. */
static uint64_t next_data(int from, int to, uint64_t at, uint64_t size)
{
	off_t wanted = lseek(from, (off_t)at, SEEK_DATA);
	uint64_t next = wanted >= 0 ? (uint64_t)wanted : errno == ENXIO ? size : at;
	off_t there = lseek(to, (off_t)at, SEEK_DATA);
	uint64_t other = there >= 0 ? (uint64_t)there : errno == ENXIO ? size : at;
	return next < other ? next : other;
}

/* -errno, or how many bytes were written. */
static int64_t put_back(int from, int to, uint64_t size)
{
	enum { PIECE = 1 << 16 };
	_free_ uint8_t *wanted = memory_new(PIECE), *there = memory_new(PIECE);
	int64_t written = 0;
	if (ftruncate(to, (off_t)size) < 0)
		return -errno;
	for (uint64_t at = 0; (at = next_data(from, to, at, size)) < size; at += PIECE) {
		size_t length = size - at < PIECE ? (size_t)(size - at) : PIECE;
		int rc = fd_pread_full(from, wanted, length, at);
		if (rc == 0)
			rc = fd_pread_full(to, there, length, at);
		if (rc == 0 && memcmp(wanted, there, length)) {
			rc = fd_pwrite_full(to, wanted, length, at);
			written += (int64_t)length;
		}
		if (rc < 0)
			return rc;
	}
	return written;
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SavedFile *message = (const Cairn__SavedFile *)base;
	int from = workshop_fd(workshop, message->id), to = workshop_second(workshop, message->id);
	const struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT }, { message->identity->modified_s, (long)message->identity->modified_ns },
	};
	struct stat now;
	if (from < 0 || to < 0 || fstat(to, &now) < 0)
		return 0;
	int64_t written = put_back(from, to, message->identity->size);
	if (written < 0)
		return fault_set(fault, fault_class_of((int)-written), (int)-written, "%s: roll it back to what it held at the checkpoint: %s; the "
				 "image still has that: try again when the reason is gone", message->path, strerror((int)-written));
	/* The next restore sees a file that has not changed. */
	if (futimens(to, times) < 0)
		log_debug("%s: its time of modification: %s", message->path, strerror(errno));
	log_info("restore: %s: rolled back: %lld bytes now, %llu at the checkpoint, %lld written", message->path, (long long)now.st_size,
		 (unsigned long long)message->identity->size, (long long)written);
	/* Their closes are events in the directory, too. */
	workshop_put(workshop, message->id, -1);
	workshop_put_second(workshop, message->id, -1);
	close(from);
	close(to);
	return 0;
}

const struct kind kind_saved_file = {
	.name = "saved file",
	.tag = 43,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__saved_file__descriptor,
	.owner_field = "id",
	.path_field = "path",
	.puts_back = puts_back,
	.check = check,
	.make = make,
	.turn = COMMIT_PUT_BACK,
	.commit = commit,
};
