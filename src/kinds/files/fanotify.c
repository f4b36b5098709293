/* SPDX-License-Identifier: Apache-2.0 */
/* fanotify(7): flags of the group and its marks from fdinfo ("fanotify ino:13 sdev:fe00000 mflags:0 mask:3b ignored_mask:0 fhandle-bytes:..."), each mark a
 * record of its own: of an inode (watched.h), a mount, or a file system, which are found by the paths of mounts. Put back in the very last step; what
 * Cairn itself opens and closes on a marked mount or file system is an event like everybody's.
 *
 * Queued events can only be read by taking them: the program is let go until it has read them; then --in-flight. A group that was made without
 * CAP_SYS_ADMIN is told less (no PIDs of others), and the kernel does not say which one was: of a process without it Cairn makes the group without it.
 * Refused: groups that permit (FAN_CLASS_CONTENT, FAN_CLASS_PRE_CONTENT), where somebody may wait for an answer that nobody sees. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "files.pb-c.h"
#include "kinds/files/open_file.h"
#include "kinds/files/watched.h"
#include "kinds/identity.h"
#include "kinds/table.h"

enum {
	MARK_IGNORE = 0x400, MARK_EVICTABLE = 0x200, /* include/uapi/linux/fanotify.h, 6.0 and 5.19 */
	CLASSES = FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT,
};
enum mark_of { OF_INODE, OF_MOUNT, OF_FILE_SYSTEM };

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, "anon_inode:[fanotify]");
}

/* "fanotify flags:200 event-flags:8000" */
static bool read_flags(const struct frozen_file *file, unsigned *ret_flags, unsigned *ret_event_flags)
{
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	while (fdinfo_next(&cursor, &key, &value))
		if (!strcmp(key, "fanotify flags"))
			return sscanf(value, "%x event-flags:%x", ret_flags, ret_event_flags) == 2;
	return false;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	unsigned flags, event_flags;
	int own, queued = 0;
	if (!read_flags(file, &flags, &event_flags) || (flags & CLASSES))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "fanotify: a group that permits what others do; whoever waits for its answer would wait "
				 "for ever; try again when the program has closed it");
	if (!harvest->frozen || harvest->policy.losing)
		return 0;
	int rc = frozen_file_own(file, &own, fault);
	if (rc < 0 || ioctl(own, FIONREAD, &queued) < 0 || queued == 0)
		return rc;
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "fanotify: %d bytes of events are queued, which cannot be read without taking them; try again "
				   "when the program has read them, or --in-flight lose", queued);
}

/* ---- marks ---- */

/* Where the mount @id, or (@id 0) one of the file system @device, is: /proc/self/mountinfo, proc(5). Into the arena; NULL: not seen from here. */
static char *mount_path(struct harvest *harvest, unsigned id, uint64_t device)
{
	struct text text = { 0 };
	char *found = NULL;
	if (proc_read(getpid(), "mountinfo", &text, NULL) < 0)
		return NULL;
	for (const char *line = text.at; line && *line && !found; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		unsigned mount, major_, minor_;
		char path[4096];
		if (sscanf(line, "%u %*d %u:%u %*s %4095s", &mount, &major_, &minor_, path) == 4 && !strchr(path, '\\') &&
		    (id ? mount == id : watched_device(major_ << 20 | minor_) == device))
			found = arena_string(&harvest->arena, path);
	}
	text_finish(&text);
	return found;
}

/* By path; one without a name is one of the tree's files. */
static bool find_inode(struct harvest *harvest, const struct frozen_file *file, const struct watched *on, Cairn__FanotifyMark *message)
{
	struct stat stat_;
	message->path = watched_path_by_handle(harvest, on, &stat_);
	for (size_t i = 0; !message->path && i < harvest->files.count; i++) {
		const struct frozen_file *other = harvest->files.at[i];
		if (other->stat.st_ino == on->inode && other->stat.st_nlink == 0 && other->link[0] == '/') {
			message->target = other->id;
			message->path = (char *)other->link;
		}
	}
	if (!message->path)
		message->path = watched_path_by_search(harvest, file, on, &stat_);
	return message->path != NULL;
}

/* One line of fdinfo, split at its first colon. false: it is no mark. */
static bool read_mark(struct harvest *harvest, const struct frozen_file *file, const char *key, const char *value, Cairn__FanotifyMark *message)
{
	unsigned long long number;
	unsigned device = 0, mask, ignored, flags;
	if (!strcmp(key, "fanotify ino") &&
	    sscanf(value, "%llx sdev:%x mflags:%x mask:%x ignored_mask:%x", &number, &device, &flags, &mask, &ignored) == 5) {
		struct watched on = { .inode = number, .device = watched_device(device) };
		watched_take_handle(harvest, value, &on);
		message->of = OF_INODE;
		find_inode(harvest, file, &on, message);
	} else if (!strcmp(key, "fanotify mnt_id") && sscanf(value, "%llx mflags:%x mask:%x ignored_mask:%x", &number, &flags, &mask, &ignored) == 4) {
		message->of = OF_MOUNT;
		message->path = mount_path(harvest, (unsigned)number, 0);
	} else if (!strcmp(key, "fanotify sdev") && sscanf(value, "%x mflags:%x mask:%x ignored_mask:%x", &device, &flags, &mask, &ignored) == 4) {
		message->of = OF_FILE_SYSTEM;
		message->path = mount_path(harvest, 0, watched_device(device));
	} else {
		return false;
	}
	message->mask = mask;
	message->ignored = ignored;
	message->flags = flags;
	return true;
}

static int capture_marks(struct harvest *harvest, const struct frozen_file *file, struct fault *fault)
{
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	Cairn__FanotifyMark **marks = ARENA_ARRAY(&harvest->arena, Cairn__FanotifyMark *, strlen(text) / 10 + 1);
	size_t count = 0;
	while (fdinfo_next(&cursor, &key, &value)) {
		Cairn__FanotifyMark *message = HARVEST_MESSAGE(harvest, Cairn__FanotifyMark, cairn__fanotify_mark__init);
		message->path = NULL;
		if (strncmp(key, "fanotify ", 9) || !strcmp(key, "fanotify flags"))
			continue;
		if (!read_mark(harvest, file, key, value, message))
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "fanotify: a mark of an unknown sort (%s:%s); try again when the program has "
					 "removed it", key, value);
		if (!message->path)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOENT, "fanotify: a mark (%s:%s) is on what was not found by any path; try as root", key,
					 value);
		message->id = harvest_new_id(harvest);
		message->file = file->id;
		marks[count++] = message;
	}
	/* The newest is shown first. */
	while (count--)
		harvest_add(harvest, &kind_fanotify_mark, &marks[count]->base);
	return 0;
}

static bool is_admin(const struct harvest *harvest, const struct frozen_file *file)
{
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->view == file->pid)
			return harvest->processes.at[i]->status.cap_effective >> CAP_SYS_ADMIN & 1;
	return false;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Fanotify *message = HARVEST_MESSAGE(harvest, Cairn__Fanotify, cairn__fanotify__init);
	unsigned flags, event_flags;
	if (!read_flags(file, &flags, &event_flags))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "fanotify: the kernel does not show its flags; try again when the program has closed it");
	message->open = open_file_capture(harvest, file);
	message->flags = flags;
	message->event_flags = event_flags;
	message->admin = is_admin(harvest, file);
	harvest_add(harvest, &kind_fanotify, &message->base);
	return capture_marks(harvest, file, fault);
}

/* ---- the group ---- */

static int check_group(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Fanotify *message = (const Cairn__Fanotify *)base;
	return !(message->flags & CLASSES) ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "a fanotify group has impossible values");
}

/* This thread alone, for a moment; false: it has it not, or is left as it was. */
static bool put_admin_aside(bool aside)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	if (syscall(SYS_capget, &header, data) < 0 || !(data[0].permitted >> CAP_SYS_ADMIN & 1))
		return false;
	data[0].effective = aside ? data[0].effective & ~(1u << CAP_SYS_ADMIN) : data[0].effective | 1u << CAP_SYS_ADMIN;
	return syscall(SYS_capset, &header, data) == 0;
}

static int make_group(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Fanotify *message = (const Cairn__Fanotify *)base;
	bool aside = !message->admin && put_admin_aside(true);
	int fd = fanotify_init(message->flags | FAN_CLOEXEC, message->event_flags), error = errno;
	if (aside)
		put_admin_aside(false);
	if (fd < 0)
		return fault_set(fault, fault_class_of(error), error, "fanotify: %s; try %s", strerror(error),
				 error == EPERM ? "as root" : "to raise /proc/sys/fs/fanotify/max_user_groups");
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_fanotify = {
	.name = "fanotify",
	.tag = 67,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__fanotify__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check_group,
	.make = make_group,
};

/* ---- a mark ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__FanotifyMark *message = (const Cairn__FanotifyMark *)base;
	const uint32_t known = FAN_MARK_IGNORED_SURV_MODIFY | MARK_EVICTABLE | MARK_IGNORE;
	if (!message->id || !message->file || message->of > OF_FILE_SYSTEM || (message->flags & ~known) || !identity_path_valid(message->path))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a fanotify mark has impossible values");
	if (!message->target && access(message->path, F_OK) < 0)
		return fault_set(fault, FAULT_FAILED, ENOENT, "%s: was watched by fanotify, and is missing here; try to put it back, or --map-path",
				 message->path);
	return 0;
}

static int make_mark(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	(void)workshop, (void)base, (void)fault;
	return 0;
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	static const unsigned types[] = { FAN_MARK_INODE, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM };
	const Cairn__FanotifyMark *message = (const Cairn__FanotifyMark *)base;
	int fd = workshop_fd(workshop, message->file), target = message->target ? workshop_fd(workshop, message->target) : -1;
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", target);
	if (fd < 0 || (message->target && target < 0))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: a fanotify mark refers to a file that is missing");
	const char *path = message->target ? link : message->path;
	unsigned add = FAN_MARK_ADD | types[message->of] | (message->flags & MARK_EVICTABLE) | (message->target ? 0 : FAN_MARK_DONT_FOLLOW);
	unsigned ignore = add | (message->flags & FAN_MARK_IGNORED_SURV_MODIFY) | (message->flags & MARK_IGNORE ? MARK_IGNORE : FAN_MARK_IGNORED_MASK);
	int rc = message->mask ? fanotify_mark(fd, add, message->mask, AT_FDCWD, path) : 0;
	if (rc == 0 && message->ignored)
		rc = fanotify_mark(fd, ignore, message->ignored, AT_FDCWD, path);
	return rc == 0 ? 0 : fault_set(fault, fault_class_of(errno), errno, "fanotify: mark on %s: %s; try as root, or to raise "
				       "/proc/sys/fs/fanotify/max_user_marks", message->path, strerror(errno));
}

const struct kind kind_fanotify_mark = {
	.name = "fanotify mark",
	.tag = 45,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__fanotify_mark__descriptor,
	.owner_field = "id",
	.path_field = "path",
	.check = check,
	.make = make_mark,
	.turn = COMMIT_WATCH,
	.commit = commit,
};
