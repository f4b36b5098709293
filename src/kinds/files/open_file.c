/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/files/open_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

Cairn__OpenFile *open_file_capture(struct harvest *harvest, struct frozen_file *file)
{
	Cairn__OpenFile *open_ = HARVEST_MESSAGE(harvest, Cairn__OpenFile, cairn__open_file__init);
	open_->file = file->id;
	open_->flags = file->info.flags;
	open_->position = file->info.position;
	int own;
	struct f_owner_ex owner;
	if (!(file->info.flags & O_PATH) && frozen_file_own(file, &own, NULL) == 0 &&
	    fcntl(own, F_GETOWN_EX, &owner) == 0 && owner.pid) {
		int signal = fcntl(own, F_GETSIG);
		open_->owner = owner.pid;
		open_->owner_type = (uint32_t)owner.type;
		open_->owner_signal = signal > 0 ? (uint32_t)signal : 0;
	}
	return open_;
}

/* Only the signal: F_SETOWN_EX names a process, which does not exist yet; the owner is in the image, and not put back. */
static int set_signal(int fd, const Cairn__OpenFile *open_)
{
	return open_->owner_signal ? fcntl(fd, F_SETSIG, (int)open_->owner_signal) : 0;
}

int open_file_adopt(struct workshop *workshop, const Cairn__OpenFile *open_, int fd, struct fault *fault)
{
	const int settable = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK;
	int now = fcntl(fd, F_GETFL);
	int want = (now & ~settable) | ((int)open_->flags & settable & ~O_ASYNC);
	if ((now != want && fcntl(fd, F_SETFL, want) < 0) || set_signal(fd, open_) < 0) {
		int error = errno;
		close(fd);
		return fault_set(fault, fault_class_of(error), error, "file %u: flags 0%o: %s", open_->file,
				 open_->flags, strerror(error));
	}
	workshop_put(workshop, open_->file, fd);
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
