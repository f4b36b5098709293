/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX message queues, mq_overview(7). The queue is an object: name, limits, owner, mode, and messages. These can only be read by taking
 * them: they are taken and put back in the same order in the same function; a death of Cairn in between (some microseconds per message)
 * would lose what it has taken. Descriptors are opened by name, or, without one, through the object.
 *
 * A queue outlives the program. One that is still there is taken if its limits are the same, and gets its old messages in the very last
 * step. In a private PID namespace queues lie in an IPC namespace of its own.
 *
 * A notification (mq_notify(3)) of a process of the tree is registered again by that process. A read of the descriptor shows who waits for it and how, but
 * not the value that goes with a signal: to see that one would have to take the notification, so it is waited for, then --in-flight lose puts it back
 * with the value 0. While messages lie in such a queue it is waited for, too: putting them back would set it off. Refused: SIGEV_THREAD, which glibc makes
 * of a netlink socket and a thread of its own, and a process outside the tree. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "ipc.pb-c.h"
#include "kinds/files/open_file.h"
#include "kinds/table.h"

#define MQUEUE_MAGIC_ 0x19800202 /* ipc/mqueue.c */
enum { MOST_MESSAGES = 65536, MOST_TEXT = 16 << 20 };

struct limits { /* struct mq_attr */
	long flags, most_messages, most_bytes, messages, reserved[4];
};

static bool probe(const struct frozen_file *file)
{
	struct statfs fs;
	char path[64];
	if (!S_ISREG(file->stat.st_mode) || (file->info.flags & O_PATH) || file->link[0] != '/' || strchr(file->link + 1, '/'))
		return false;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", file->pid, file->fd);
	return statfs(path, &fs) == 0 && fs.f_type == MQUEUE_MAGIC_;
}

static int get_limits(int fd, struct limits *ret_limits)
{
	return syscall(SYS_mq_getsetattr, fd, NULL, ret_limits) < 0 ? -errno : 0;
}

/* Who is told of the next message, and how. */
struct notification {
	unsigned long size; /* of all messages */
	int how, signal;
	pid_t pid;          /* 0: nobody */
};

/* "QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260": what a read of the descriptor shows. */
static struct notification notification_of(int fd)
{
	struct notification seen = { 0 };
	char path[64], text[128];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	/* The program's may be for writing only. */
	_close_ int own = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = pread(own >= 0 ? own : fd, text, sizeof text - 1, 0);
	text[size > 0 ? size : 0] = 0;
	if (sscanf(text, "QSIZE:%lu NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &seen.size, &seen.how, &seen.signal, &seen.pid) != 4)
		seen = (struct notification){ 0 };
	return seen;
}

static bool has_file(const struct frozen_process *process, const struct frozen_file *file)
{
	for (size_t i = 0; i < process->descriptors.count; i++)
		if (process->descriptors.at[i].file == file)
			return true;
	return false;
}

static const struct frozen_process *find_process(const struct harvest *harvest, pid_t pid)
{
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->pid == pid && !harvest->processes.at[i]->zombie)
			return harvest->processes.at[i];
	return NULL;
}

/* The file by which @process registers again: its first of this queue. A close of any of its descriptors of the queue would have ended the notification
 * (ipc/mqueue.c mqueue_flush_file). */
static const struct frozen_file *registered_by(const struct harvest *harvest, const struct frozen_process *process, const struct frozen_file *file)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		const struct frozen_file *other = harvest->files.at[i];
		if (other->stat.st_dev == file->stat.st_dev && other->stat.st_ino == file->stat.st_ino && has_file(process, other))
			return other;
	}
	return NULL;
}

static int refuse_notification(const struct harvest *harvest, const struct frozen_file *file, const struct notification *seen, struct fault *fault)
{
	const struct frozen_process *process = find_process(harvest, seen->pid);
	if (!process || !registered_by(harvest, process, file))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "message queue %s: process %d, %s, waits to be notified of its next message; try again "
				 "when it has come", file->link, seen->pid, process ? "which shares its descriptors" : "outside the tree");
	if (seen->how != SIGEV_SIGNAL && seen->how != SIGEV_NONE)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "message queue %s: process %d (%s) waits to be notified of its next message by a thread of "
				 "libc's (SIGEV_THREAD), whose socket cannot be made again; try again when the message has come", file->link, seen->pid,
				 process->stat.command);
	if (seen->size)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "message queue %s: holds messages that cannot be seen without setting off the "
					   "notification that process %d (%s) waits for; try again when it has received them", file->link, seen->pid,
					   process->stat.command);
	if (seen->how == SIGEV_SIGNAL && !harvest->policy.losing)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "message queue %s: process %d (%s) waits to be notified of its next message by "
					   "signal %d, and the kernel shows the value that goes with it (sigev_value) to nobody; try again when it has "
					   "come, or --in-flight lose, which makes it 0", file->link, seen->pid, process->stat.command, seen->signal);
	return 0;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	int own, rc = harvest->frozen ? frozen_file_own(file, &own, fault) : 0;
	if (rc < 0 || !harvest->frozen)
		return rc;
	struct notification seen = notification_of(own);
	return seen.pid ? refuse_notification(harvest, file, &seen, fault) : 0;
}

/* ---- messages ---- */

static const struct timespec at_once = { 0, 0 };

static int put_back(int fd, const Cairn__PosixQueue *message)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	for (size_t i = 0; i < message->n_messages; i++)
		if (syscall(SYS_mq_timedsend, fd, message->messages[i]->text.data, message->messages[i]->text.len,
			    message->messages[i]->priority, &until) < 0)
			return -errno;
	return 0;
}

/* One that can send and receive. A new one: O_NONBLOCK is the program's. */
static int open_both(int own)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", own);
	return open(path, O_RDWR | O_CLOEXEC);
}

static int take_messages(struct harvest *harvest, int own, const struct limits *limits, Cairn__PosixQueue *message,
			 struct fault *fault)
{
	_close_ int fd = open_both(own);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "message queue %s: %s; try as its owner, or as root", message->name,
				 strerror(errno));
	message->messages = ARENA_ARRAY(&harvest->arena, Cairn__PosixQueue__Message *, limits->messages);
	int error = 0;
	while (message->n_messages < (size_t)limits->messages) {
		Cairn__PosixQueue__Message *one = HARVEST_MESSAGE(harvest, Cairn__PosixQueue__Message,
								  cairn__posix_queue__message__init);
		one->text.data = arena_new(&harvest->arena, (size_t)limits->most_bytes);
		long size = syscall(SYS_mq_timedreceive, fd, one->text.data, limits->most_bytes, &one->priority, &at_once);
		if (size < 0) {
			error = errno;
			break;
		}
		one->text.len = (size_t)size;
		message->messages[message->n_messages++] = one;
	}
	int rc = put_back(fd, message);
	if (rc < 0)
		return fault_set(fault, FAULT_FAILED, -rc, "message queue %s: messages cannot be put back: %s", message->name, strerror(-rc));
	if (error && error != ETIMEDOUT)
		return fault_set(fault, fault_class_of(error), error, "message queue %s: %s", message->name, strerror(error));
	return 0;
}

static int add_queue(struct harvest *harvest, uint32_t id, struct frozen_file *file, struct fault *fault)
{
	Cairn__PosixQueue *message = HARVEST_MESSAGE(harvest, Cairn__PosixQueue, cairn__posix_queue__init);
	struct limits limits;
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	rc = get_limits(own, &limits);
	if (rc < 0)
		return fault_set(fault, fault_class_of(-rc), -rc, "message queue %s: %s", file->link, strerror(-rc));
	message->id = id;
	message->name = (char *)file->link;
	message->unlinked = file->stat.st_nlink == 0;
	message->most_messages = (uint64_t)limits.most_messages;
	message->most_bytes = (uint64_t)limits.most_bytes;
	message->mode = file->stat.st_mode & 07777;
	message->uid = file->stat.st_uid;
	message->gid = file->stat.st_gid;
	message->notifies = notification_of(own).pid != 0;
	rc = limits.messages > 0 ? take_messages(harvest, own, &limits, message, fault) : 0;
	if (rc == 0)
		harvest_add(harvest, &kind_posix_queue, &message->base);
	return rc;
}

/* ---- the queue ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PosixQueue *message = (const Cairn__PosixQueue *)base;
	bool possible = message->id && message->name[0] == '/' && strlen(message->name) < 256 && !strchr(message->name + 1, '/') &&
			message->most_messages && message->most_messages <= MOST_MESSAGES && message->most_bytes &&
			message->most_bytes <= MOST_TEXT && message->n_messages <= message->most_messages;
	for (size_t i = 0; possible && i < message->n_messages; i++)
		possible = message->messages[i]->priority < 32768 && message->messages[i]->text.len <= message->most_bytes;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "message queue %u has impossible values", message->id);
}

static int failed(const Cairn__PosixQueue *message, int error, struct fault *fault)
{
	return fault_set(fault, fault_class_of(error), error, "message queue %s of %llu messages: %s; try to raise /proc/sys/fs/mqueue/msg_max, "
			 "msgsize_max, or `ulimit -q`", message->name, (unsigned long long)message->most_messages, strerror(error));
}

/* mq_open(2) takes the name without its slash. */
static int open_queue(const char *name, int flags, unsigned mode, struct limits *limits)
{
	int fd = (int)syscall(SYS_mq_open, name + 1, flags | O_CLOEXEC, mode, limits);
	return fd < 0 ? -errno : fd;
}

static int make_new(const Cairn__PosixQueue *message, const char *name, struct fault *fault)
{
	struct limits limits = { .most_messages = (long)message->most_messages, .most_bytes = (long)message->most_bytes };
	int fd = open_queue(name, O_RDWR | O_CREAT | O_EXCL, message->mode, &limits);
	if (fd < 0)
		return failed(message, -fd, fault);
	if (fchown(fd, message->uid, message->gid) < 0 || fchmod(fd, message->mode) < 0) {
		/* An ordinary user's own: the owner is right already. */
	}
	int rc = put_back(fd, message);
	if (rc < 0) {
		close(fd);
		syscall(SYS_mq_unlink, name + 1);
		return failed(message, -rc, fault);
	}
	return fd;
}

static void remove_queue(uint64_t name)
{
	syscall(SYS_mq_unlink, (const char *)(uintptr_t)name + 1);
}

/* A queue with a notification was empty, and it is by its next message that the notification is set off: so not in the last step. */
static int empty(const Cairn__PosixQueue *message, int fd, long messages, struct fault *fault)
{
	_free_ void *text = memory_new(message->most_bytes);
	while (messages && syscall(SYS_mq_timedreceive, fd, text, message->most_bytes, NULL, &at_once) >= 0)
		messages--;
	return !messages ? 0 : fault_set(fault, FAULT_FAILED, errno, "message queue %s: empty it: %s", message->name, strerror(errno));
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PosixQueue *message = (const Cairn__PosixQueue *)base;
	struct limits now;
	char hidden[64];
	int rc = workshop_separate_ipc(workshop, fault);
	if (rc < 0)
		return rc;
	snprintf(hidden, sizeof hidden, "/cairn-%d-%u", getpid(), message->id);
	int fd = message->unlinked ? -ENOENT : open_queue(message->name, O_RDWR, 0, NULL);
	if (fd == -ENOENT) {
		fd = make_new(message, message->unlinked ? hidden : message->name, fault);
		if (fd < 0)
			return fd;
		if (message->unlinked)
			remove_queue((uintptr_t)hidden);
		else
			workshop_on_failure(workshop, remove_queue, (uintptr_t)message->name);
	} else if (fd < 0) {
		return failed(message, -fd, fault);
	} else if (get_limits(fd, &now) < 0 || (uint64_t)now.most_messages != message->most_messages ||
		   (uint64_t)now.most_bytes != message->most_bytes) {
		close(fd);
		return fault_set(fault, FAULT_FAILED, EEXIST, "message queue %s: there is another one of that name; try to remove it "
				 "(/dev/mqueue), or --pids private", message->name);
	} else if (message->notifies && empty(message, fd, now.messages, fault) < 0) {
		close(fd);
		return -EBUSY;
	}
	workshop_put(workshop, message->id, fd);
	return 0;
}

/* One that was there gets what it held: others may have changed it. */
static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PosixQueue *message = (const Cairn__PosixQueue *)base;
	int fd = workshop_fd(workshop, message->id);
	_free_ void *text = memory_new(message->most_bytes);
	struct limits now;
	if (get_limits(fd, &now) < 0 || (size_t)now.messages == message->n_messages)
		return 0;
	while (syscall(SYS_mq_timedreceive, fd, text, message->most_bytes, NULL, &at_once) >= 0)
		;
	int rc = put_back(fd, message);
	return rc < 0 ? failed(message, -rc, fault) : 0;
}

const struct kind kind_posix_queue = {
	.name = "POSIX message queue",
	.tag = 42,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__posix_queue__descriptor,
	.owner_field = "id",
	.check = check,
	.make = make,
	.commit = commit,
};

/* ---- a descriptor ---- */

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	bool is_new;
	Cairn__PosixQueueFile *message = HARVEST_MESSAGE(harvest, Cairn__PosixQueueFile, cairn__posix_queue_file__init);
	message->queue = harvest_object(harvest, file->stat.st_dev, file->stat.st_ino, &is_new);
	int own, rc = is_new ? add_queue(harvest, message->queue, file, fault) : 0;
	if (rc == 0)
		rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	message->open = open_file_capture(harvest, file);
	struct notification seen = notification_of(own);
	const struct frozen_process *process = seen.pid ? find_process(harvest, seen.pid) : NULL;
	if (process && registered_by(harvest, process, file) == file) {
		message->notify_pid = (uint32_t)seen.pid;
		message->notify_how = (uint32_t)seen.how;
		message->notify_signal = (uint32_t)seen.signal;
		if (seen.how == SIGEV_SIGNAL)
			log_warn("process %d (%s), message queue %s: nobody is shown the value that goes with its notification; continuing without it",
				 process->pid, process->stat.command, file->link);
	}
	harvest_add(harvest, &kind_posix_queue_file, &message->base);
	return 0;
}

static int check_file(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PosixQueueFile *message = (const Cairn__PosixQueueFile *)base;
	bool possible = message->queue && (message->notify_how == SIGEV_SIGNAL || message->notify_how == SIGEV_NONE) && message->notify_signal <= 64;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "a descriptor of a message queue has impossible values");
}

static uint32_t needs(const ProtobufCMessage *base)
{
	return ((const Cairn__PosixQueueFile *)base)->queue;
}

static int make_file(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PosixQueueFile *message = (const Cairn__PosixQueueFile *)base;
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", workshop_fd(workshop, message->queue));
	return open_file_make(workshop, message->open, path, false, fault);
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__PosixQueueFile *message = (const Cairn__PosixQueueFile *)base;
	(void)fault;
	if (!message->notify_pid || workshop_task(thread->process->workshop, message->notify_pid) != thread->process->pid)
		return 0;
	const struct sigevent event = { .sigev_notify = (int)message->notify_how, .sigev_signo = (int)message->notify_signal };
	batch_group(batch, 1, sizeof event);
	batch_call(batch, mq_notify, (uint64_t)fd, batch_data(batch, &event, sizeof event).address);
	return 0;
}

const struct kind kind_posix_queue_file = {
	.name = "POSIX message queue descriptor",
	.tag = 65,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__posix_queue_file__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.needs = needs,
	.check = check_file,
	.make = make_file,
	.connect = connect_,
};
