/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/files/open_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

enum {
	SETTABLE = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK, /* by F_SETFL */
	F_GETOWNER_UIDS_ = 17, /* include/uapi/asm-generic/fcntl.h; CONFIG_CHECKPOINT_RESTORE */
};

Cairn__OpenFile *open_file_capture(struct harvest *harvest, struct frozen_file *file)
{
	Cairn__OpenFile *open_ = HARVEST_MESSAGE(harvest, Cairn__OpenFile, cairn__open_file__init);
	open_->file = file->id;
	open_->flags = file->info.flags;
	open_->position = file->info.position;
	int own;
	struct f_owner_ex owner;
	if ((file->info.flags & O_PATH) || frozen_file_own(file, &own, NULL) < 0)
		return open_;
	int signal = fcntl(own, F_GETSIG);
	open_->owner_signal = signal > 0 ? (uint32_t)signal : 0;
	uid_t ids[2] = { 0, 0 };
	if (fcntl(own, F_GETOWN_EX, &owner) == 0 && owner.pid) {
		open_->owner = owner.pid;
		open_->owner_type = (uint32_t)owner.type;
		fcntl(own, F_GETOWNER_UIDS_, ids);
		open_->owner_uid = ids[0];
		open_->owner_euid = ids[1];
	}
	return open_;
}

static int set_signal(int fd, const Cairn__OpenFile *open_)
{
	return open_->owner_signal ? fcntl(fd, F_SETSIG, (int)open_->owner_signal) : 0;
}

/* The kernel keeps the ids of the caller, by which it later decides whether the signal may be sent (fs/fcntl.c f_setown, sigio_perm). System
 * calls of this thread alone: glibc's would be made by all. */
static int own_as(int fd, const struct f_owner_ex *owner, uint32_t uid, uint32_t euid)
{
	uid_t own = getuid(), own_effective = geteuid();
	/* Ids that this user namespace does not know, or that an ordinary user's Cairn cannot have, become its own. */
	bool others = (uid != own || euid != own_effective) && syscall(SYS_setresuid, uid, euid, own_effective) == 0;
	int rc = fcntl(fd, F_SETOWN_EX, owner) < 0 ? -errno : 0;
	if (others && syscall(SYS_setresuid, own, own_effective, own_effective) < 0)
		rc = -errno;
	if (others)
		prctl(PR_SET_DUMPABLE, 1); /* a change of ids takes it */
	return rc;
}

static const Cairn__OpenFile *open_of(const struct kind *kind, const ProtobufCMessage *message)
{
	const ProtobufCFieldDescriptor *field =
		kind->owner_field ? protobuf_c_message_descriptor_get_field_by_name(kind->descriptor, kind->owner_field) : NULL;
	if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE)
		return NULL;
	return *(const Cairn__OpenFile *const *)((const char *)message + field->offset);
}

int kind_check_open(const struct kind *kind, const ProtobufCMessage *message, struct fault *fault)
{
	const Cairn__OpenFile *open_ = open_of(kind, message);
	if (!open_ || !open_->file || open_->owner_type > F_OWNER_PGRP || open_->owner_signal > 64 || open_->position > INT64_MAX)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a file of kind \"%s\" has impossible values", kind->name);
	return 0;
}

int kind_open_flags(const struct kind *kind, const ProtobufCMessage *message)
{
	const Cairn__OpenFile *open_ = open_of(kind, message);
	return open_ ? (int)open_->flags : O_RDWR;
}

int kind_set_owner(struct workshop *workshop, const struct kind *kind, const ProtobufCMessage *message, struct fault *fault)
{
	const Cairn__OpenFile *open_ = open_of(kind, message);
	int fd = open_ ? workshop_fd(workshop, open_->file) : -1;
	if (fd < 0 || !open_->owner)
		return 0;
	const struct f_owner_ex owner = {
		.type = (__typeof__(owner.type))open_->owner_type,
		.pid = workshop_task(workshop, (uint32_t)open_->owner),
	};
	int rc = own_as(fd, &owner, open_->owner_uid, open_->owner_euid);
	if (rc == -ESRCH) /* it had ended, or is none of the tree's */
		log_warn("file %u: process %d, which was to get its signals, does not exist; continuing without it", open_->file, owner.pid);
	else if (rc < 0)
		return fault_set(fault, fault_class_of(-rc), -rc, "file %u: owner %d: %s", open_->file, owner.pid, strerror(-rc));
	return 0;
}

bool kind_is_asynchronous(const struct kind *kind, const ProtobufCMessage *message, uint32_t *ret_owner)
{
	const Cairn__OpenFile *open_ = open_of(kind, message);
	*ret_owner = open_ && open_->owner_type != F_OWNER_PGRP ? (uint32_t)open_->owner : 0;
	return open_ && (open_->flags & O_ASYNC) && !(open_->flags & O_PATH);
}

void kind_set_asynchronous(int fd, const struct kind *kind, const ProtobufCMessage *message, struct batch *batch)
{
	const Cairn__OpenFile *open_ = open_of(kind, message);
	batch_group(batch, 1, 0);
	batch_call(batch, fcntl, (uint64_t)fd, F_SETFL, open_->flags & SETTABLE);
}

int open_file_adopt(struct workshop *workshop, const Cairn__OpenFile *open_, int fd, struct fault *fault)
{
	int now = fcntl(fd, F_GETFL);
	int want = (now & ~SETTABLE) | ((int)open_->flags & SETTABLE & ~O_ASYNC);
	if ((now != want && fcntl(fd, F_SETFL, want) < 0) || set_signal(fd, open_) < 0) {
		int error = errno;
		close(fd);
		return fault_set(fault, fault_class_of(error), error, "file %u: flags 0%o: %s", open_->file,
				 open_->flags, strerror(error));
	}
	workshop_put(workshop, open_->file, fd);
	return 0;
}

int open_file_check(const Cairn__OpenFile *open_, const char *path, struct fault *fault)
{
	struct statx seen = { 0 };
	if ((open_->flags & O_PATH) || (open_->flags & O_ACCMODE) == O_RDONLY)
		return 0;
	int error = faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0 ? errno : 0;
	if (error == EROFS)
		return fault_set(fault, FAULT_FAILED, EROFS, "%s: lies on a file system that is read-only now, and the program writes to it; try to mount it "
				 "for writing, or --map-path", path);
	if (statx(AT_FDCWD, path, 0, 0, &seen) < 0)
		return 0;
	if (seen.stx_attributes & STATX_ATTR_IMMUTABLE)
		return fault_set(fault, FAULT_FAILED, EPERM, "%s: is immutable now, and the program writes to it; try chattr -i", path);
	if ((seen.stx_attributes & STATX_ATTR_APPEND) && !(open_->flags & O_APPEND))
		return fault_set(fault, FAULT_FAILED, EPERM, "%s: may only be appended to now, and the program writes to it; try chattr -a", path);
	return 0;
}

int open_file_make(struct workshop *workshop, const Cairn__OpenFile *open_, const char *path, bool seek,
		   struct fault *fault)
{
	const int once = O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_ASYNC;
	int flags = ((int)open_->flags & ~once) | O_CLOEXEC | O_NOCTTY;
	/* The file is there already; and a link of Cairn's own /proc/self/fd is to be followed. */
	if ((flags & O_TMPFILE) == O_TMPFILE)
		flags &= ~O_TMPFILE;
	if (!strncmp(path, "/proc/self/fd/", 14))
		flags &= ~O_NOFOLLOW;
	int fd = open(path, flags);
	if (fd < 0 && errno == EPERM && (flags & O_NOATIME))
		fd = open(path, flags & ~O_NOATIME);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "open %s: %s", path, strerror(errno));
	if ((seek && !(flags & O_PATH) && lseek(fd, (off_t)open_->position, SEEK_SET) < 0) || set_signal(fd, open_) < 0) {
		int error = errno;
		close(fd);
		return fault_set(fault, fault_class_of(error), error, "%s at %llu: %s", path,
				 (unsigned long long)open_->position, strerror(error));
	}
	workshop_put(workshop, open_->file, fd);
	return 0;
}
