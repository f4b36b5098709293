/* SPDX-License-Identifier: Apache-2.0 */
/* inotify(7): the watches from fdinfo ("inotify wd:3 ino:13 sdev:fe00000 mask:3 ... fhandle-bytes:8 fhandle-type:1 f_handle:..."), each a
 * record of its own; what is watched: watched.h. One without a name is found among the open files of the tree. Put back in the very last step, so that nothing the restore does is an event, under the old numbers
 * (INOTIFY_IOC_SETNEXTWD, 4.16).
 *
 * Queued events can only be read by taking them: the program is let go until it has read them; then --in-flight. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "kinds/files/open_file.h"
#include "kinds/files/watched.h"
#include "kinds/identity.h"
#include "kinds/table.h"

#define INOTIFY_IOC_SETNEXTWD_ _IOW('I', 0, int32_t) /* include/uapi/linux/inotify.h */

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, "anon_inode:inotify");
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	int own, queued = 0;
	if (!harvest->frozen || harvest->policy.losing)
		return 0;
	int rc = frozen_file_own(file, &own, fault);
	if (rc < 0 || ioctl(own, FIONREAD, &queued) < 0 || queued == 0)
		return rc;
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY,
				   "inotify: %d bytes of events are queued, which cannot be read without taking them; try again when the "
				   "program has read them, or --in-flight lose", queued);
}

/* ---- capture ---- */

struct watch {
	uint32_t descriptor, mask;
	struct watched on;
};

/* "3 ino:13 sdev:fe00000 mask:3 ..." behind "inotify wd:". */
static bool take_watch(struct harvest *harvest, const char *value, struct watch *ret_watch)
{
	unsigned descriptor, device, mask;
	unsigned long long inode;
	if (sscanf(value, "%x ino:%llx sdev:%x mask:%x", &descriptor, &inode, &device, &mask) != 4)
		return false;
	*ret_watch = (struct watch){ .descriptor = descriptor, .mask = mask, .on = { .inode = inode, .device = watched_device(device) } };
	watched_take_handle(harvest, value, &ret_watch->on);
	return true;
}

static int name_target(struct harvest *harvest, const struct frozen_file *file, const struct watch *watch,
		       Cairn__InotifyWatch *message, struct fault *fault)
{
	struct stat stat_;
	char *path = watched_path_by_handle(harvest, &watch->on, &stat_);
	/* Without a name: one of the tree's files that has none. */
	for (size_t i = 0; !path && i < harvest->files.count; i++) {
		const struct frozen_file *other = harvest->files.at[i];
		if (other->stat.st_ino == watch->on.inode && other->stat.st_nlink == 0 && other->link[0] == '/') {
			message->target = other->id;
			message->path = (char *)other->link;
			message->mode = other->stat.st_mode;
			return 0;
		}
	}
	if (!path)
		path = watched_path_by_search(harvest, file, &watch->on, &stat_);
	if (!path)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOENT,
				 "inotify: watch %u is on inode %llu of device %u:%u, whose path was not found; try as root, which can "
				 "open it by its handle", watch->descriptor, (unsigned long long)watch->on.inode, major(watch->on.device),
				 minor(watch->on.device));
	message->path = path;
	message->mode = stat_.st_mode;
	return 0;
}

static int watch_compare(const void *a, const void *b)
{
	uint32_t x = ((const struct watch *)a)->descriptor, y = ((const struct watch *)b)->descriptor;
	return (x > y) - (x < y);
}

static int capture_watches(struct harvest *harvest, const struct frozen_file *file, struct fault *fault)
{
	VEC(struct watch) watches = { 0 };
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	int rc = 0;
	while (fdinfo_next(&cursor, &key, &value)) {
		struct watch watch;
		if (!strcmp(key, "inotify wd") && take_watch(harvest, value, &watch))
			*vec_add(&watches) = watch;
	}
	/* Ascending, so that the next new one gets a number that was not in use. */
	if (watches.count)
		qsort(watches.at, watches.count, sizeof *watches.at, watch_compare);
	for (size_t i = 0; rc == 0 && i < watches.count; i++) {
		Cairn__InotifyWatch *message = HARVEST_MESSAGE(harvest, Cairn__InotifyWatch, cairn__inotify_watch__init);
		message->id = harvest_new_id(harvest);
		message->file = file->id;
		message->descriptor = watches.at[i].descriptor;
		message->mask = watches.at[i].mask;
		rc = name_target(harvest, file, &watches.at[i], message, fault);
		if (rc == 0)
			harvest_add(harvest, &kind_inotify_watch, &message->base);
	}
	vec_finish(&watches);
	return rc;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Inotify *message = HARVEST_MESSAGE(harvest, Cairn__Inotify, cairn__inotify__init);
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_inotify, &message->base);
	return capture_watches(harvest, file, fault);
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Inotify *message = (const Cairn__Inotify *)base;
	int fd = inotify_init1(IN_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "inotify: %s; try to raise /proc/sys/fs/inotify/max_user_instances",
				 strerror(errno));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_inotify = {
	.name = "inotify",
	.tag = 61,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__inotify__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.make = make,
};

/* ---- a watch ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__InotifyWatch *message = (const Cairn__InotifyWatch *)base;
	struct stat now;
	if (!message->id || !message->file || !message->descriptor || message->descriptor > INT32_MAX ||
	    !identity_path_valid(message->path))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "inotify watch %u has impossible values", message->descriptor);
	if (!message->target && (lstat(message->path, &now) < 0 || (now.st_mode & S_IFMT) != (message->mode & S_IFMT)))
		return fault_set(fault, FAULT_FAILED, ENOENT,
				 "%s: was watched by inotify, and is missing here or is another type of file; try to put it back, or "
				 "--map-path", message->path);
	return 0;
}

static int make_watch(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	(void)workshop, (void)base, (void)fault;
	return 0;
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__InotifyWatch *message = (const Cairn__InotifyWatch *)base;
	int fd = workshop_fd(workshop, message->file), target = message->target ? workshop_fd(workshop, message->target) : -1;
	int32_t next = (int32_t)message->descriptor;
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", target);
	if (fd < 0 || (message->target && target < 0))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: inotify watch %d refers to a file that is missing", next);
	uint32_t mask = message->mask | (S_ISLNK(message->mode) ? IN_DONT_FOLLOW : 0);
	if (ioctl(fd, INOTIFY_IOC_SETNEXTWD_, next) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "inotify: choosing watch %d: %s", next, strerror(errno));
	int now = inotify_add_watch(fd, message->target ? link : message->path, mask);
	if (now != next)
		return fault_set(fault, now < 0 ? fault_class_of(errno) : FAULT_FAILED, now < 0 ? errno : EEXIST,
				 "inotify: watch %d on %s: %s; try to raise /proc/sys/fs/inotify/max_user_watches", next, message->path,
				 now < 0 ? strerror(errno) : "it is watched twice");
	return 0;
}

const struct kind kind_inotify_watch = {
	.name = "inotify watch",
	.tag = 62,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__inotify_watch__descriptor,
	.owner_field = "id",
	.path_field = "path",
	.check = check,
	.make = make_watch,
	.turn = COMMIT_WATCH,
	.commit = commit,
};
