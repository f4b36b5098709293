/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes and FIFOs. The pipe is an object: capacity (F_GETPIPE_SZ) and contents, which tee(2) copies without taking them; in packet mode
 * the copy keeps the packets (tests/kernel/tee_keeps_packets.c). Its ends are open file descriptions, each with its own flags.
 * A pipe whose other end is closed comes back so; one whose other end is held outside the tree is refused, or
 * closed if the user says so. A FIFO that is open for reading before its first writer comes shows no POLLHUP, and has to come back without one.
 * A FIFO is opened again by its name, and so has its other end again; what was in it is there still if somebody has kept it open, and is put back if
 * nobody has. Where none has its name (a program that removes it at its end was restored before) one is made, as for a socket. A deleted one is made
 * under its old name, if that is free, and loses it again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kinds/files/open_file.h"
#include "kinds/identity.h"
#include "kinds/table.h"

enum { KERNEL_O_LARGEFILE = 0100000 }; /* glibc's is 0 */

static bool probe(const struct frozen_file *file)
{
	return S_ISFIFO(file->stat.st_mode) && !(file->info.flags & O_PATH);
}

static int access_mode(const struct frozen_file *file)
{
	return (int)file->info.flags & O_ACCMODE;
}

/* Is there a description of the other end in the tree? */
static bool other_end_inside(const struct harvest *harvest, const struct frozen_file *file)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		const struct frozen_file *other = harvest->files.at[i];
		if (other->kind == file->kind && other->stat.st_ino == file->stat.st_ino &&
		    other->stat.st_dev == file->stat.st_dev && access_mode(other) != access_mode(file))
			return true;
	}
	return access_mode(file) == O_RDWR;
}

/* The kernel says of a copy of this end that nobody holds the other one: POLLHUP without a writer, POLLERR without a reader. */
static bool is_hung_up(int own, int mode)
{
	struct pollfd pollfd = { .fd = own, .events = mode == O_RDONLY ? POLLIN : POLLOUT };
	return poll(&pollfd, 1, 0) >= 0 && (pollfd.revents & (mode == O_RDONLY ? POLLHUP : POLLERR));
}

/* No POLLHUP, as no writer has come since it was opened (fs/pipe.c pipe_poll, 6.18), but no writer either: tee(2) on nothing is the end of the file (0),
 * and EAGAIN where one might still write. */
static bool is_unwritten(int own)
{
	int scratch[2];
	if (is_hung_up(own, O_RDONLY) || pipe2(scratch, O_CLOEXEC) < 0)
		return false;
	_close_ int from = scratch[0], to = scratch[1];
	(void)from;
	return tee(own, to, 1, SPLICE_F_NONBLOCK) == 0;
}

static bool other_end_closed(int own, int mode)
{
	return is_hung_up(own, mode) || (mode == O_RDONLY && is_unwritten(own));
}

/* Of a running tree, which makes and closes pipes while it is looked at: only a frozen one can be judged. It is not asked by a copy of the descriptor: a program that closes
 * its own in that moment would see that somebody else has the pipe. */
static bool may_be_outside(const struct harvest *harvest, const struct frozen_file *file)
{
	enum { MOST_DOUBTS = 8 }; /* one is enough for a closer look, and each takes a look at all processes */
	const mode_t wanted = access_mode(file) == O_RDONLY ? S_IWUSR : S_IRUSR;
	struct pid_list list = { 0 };
	bool found = false;
	if (harvest->doubts.count < MOST_DOUBTS && proc_processes(&list, NULL) == 0)
		for (size_t i = 0; i < list.pids.count && !found; i++) {
			pid_t pid = list.pids.at[i];
			bool is_known = pid == getpid() || policy_is_cairn(&harvest->policy, pid) || harvest_has_process(harvest, pid);
			found = !is_known && proc_has_link(pid, file->link, wanted);
		}
	vec_finish(&list.pids);
	return found;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	int own, rc = 0;
	bool is_named = file->link[0] == '/' && !file->deleted;
	if (other_end_inside(harvest, file) || harvest->policy.outside == OUTSIDE_CLOSE ||
	    (is_named && harvest->policy.outside == OUTSIDE_RECONNECT))
		return 0;
	if (harvest->frozen)
		rc = frozen_file_own(file, &own, fault);
	if (rc < 0 || (harvest->frozen ? other_end_closed(own, access_mode(file)) : !may_be_outside(harvest, file)))
		return rc;
	rc = fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
		       "%s: its %s end is held outside the tree; try to checkpoint a common parent, to send the "
		       "program's %s a file, or --outside %s", file->link,
		       access_mode(file) == O_RDONLY ? "write" : "read",
		       access_mode(file) == O_RDONLY ? "input from" : "output to", is_named ? "reconnect" : "close");
	fault->transient = !harvest->frozen;
	return rc;
}

/* Everything that the pipe holds, as a copy in a pipe of Cairn's own. */
static int copy_contents(struct harvest *harvest, int reader, uint32_t capacity, Cairn__Pipe *message,
			 struct fault *fault)
{
	int copy[2], held = 0;
	if (ioctl(reader, FIONREAD, &held) < 0 || held == 0)
		return 0;
	if (pipe2(copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	_close_ int from = copy[0], to = copy[1];
	fcntl(to, F_SETPIPE_SZ, (int)capacity);
	ssize_t copied = tee(reader, to, (size_t)held, SPLICE_F_NONBLOCK);
	if (copied != held)
		return fault_set(fault, FAULT_FAILED, copied < 0 ? errno : EIO,
				 "its contents of %d bytes cannot be copied (%zd); try to raise "
				 "/proc/sys/fs/pipe-max-size", held, copied);
	uint8_t *bytes = arena_new(&harvest->arena, (size_t)held);
	VEC(ProtobufCBinaryData) packets = { 0 };
	for (size_t done = 0; done < (size_t)held;) {
		ssize_t n = read(from, bytes + done, (size_t)held - done);
		if (n <= 0) {
			vec_finish(&packets);
			return fault_set(fault, FAULT_FAILED, EIO, "its contents of %d bytes ended after %zu; try again", held,
					 done);
		}
		*vec_add(&packets) = (ProtobufCBinaryData){ (size_t)n, bytes + done };
		done += (size_t)n;
	}
	message->packets = arena_copy(&harvest->arena, packets.at, packets.count * sizeof *packets.at);
	message->n_packets = packets.count;
	vec_finish(&packets);
	return 0;
}

/* A descriptor of Cairn's own that can read the pipe; opening it anew would wake its sleepers, so a reading end is looked for. */
static int find_reader(struct harvest *harvest, struct frozen_file *file, int *ret_fd, struct fault *fault)
{
	*ret_fd = -1;
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *other = harvest->files.at[i];
		if (other->kind == file->kind && other->stat.st_ino == file->stat.st_ino &&
		    other->stat.st_dev == file->stat.st_dev && access_mode(other) != O_WRONLY)
			return frozen_file_own(other, ret_fd, fault);
	}
	return 0;
}

static int add_pipe(struct harvest *harvest, uint32_t id, struct frozen_file *file, struct fault *fault)
{
	Cairn__Pipe *message = HARVEST_MESSAGE(harvest, Cairn__Pipe, cairn__pipe__init);
	int own, reader, rc = frozen_file_own(file, &own, fault);
	if (rc == 0)
		rc = find_reader(harvest, file, &reader, fault);
	if (rc < 0)
		return rc;
	int capacity = fcntl(own, F_GETPIPE_SZ);
	message->pipe = id;
	message->capacity = capacity > 0 ? (uint32_t)capacity : 65536;
	if (file->link[0] == '/') {
		message->path = (char *)file->link;
		message->identity = identity_capture(harvest, -1, &file->stat);
		message->unwritten = reader >= 0 && is_unwritten(reader);
		message->deleted = file->deleted;
		message->outside = !file->deleted && !other_end_inside(harvest, file) && !other_end_closed(own, access_mode(file));
	}
	if (reader >= 0)
		rc = copy_contents(harvest, reader, message->capacity, message, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_pipe, &message->base);
	return rc;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	bool is_new;
	int rc = 0;
	Cairn__PipeEnd *message = HARVEST_MESSAGE(harvest, Cairn__PipeEnd, cairn__pipe_end__init);
	message->open = open_file_capture(harvest, file);
	message->pipe = harvest_object(harvest, file->stat.st_dev, file->stat.st_ino, &is_new);
	if (is_new)
		rc = add_pipe(harvest, message->pipe, file, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_pipe_end, &message->base);
	return rc;
}

static int check_fifo(const Cairn__Pipe *message, struct fault *fault)
{
	struct stat stat;
	if (!identity_path_valid(message->path) || !message->identity || !S_ISFIFO(message->identity->mode))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "FIFO %u has impossible values", message->pipe);
	if (message->deleted)
		return 0;
	if (lstat(message->path, &stat) == 0 || errno != ENOENT)
		return identity_check(message->path, message->identity, true, fault);
	_free_ char *parent = memory_string(message->path);
	char *slash = strrchr(parent, '/');
	slash[slash == parent] = 0;
	if (access(parent, W_OK | X_OK) == 0)
		return 0;
	return fault_set(fault, errno == EACCES ? FAULT_PERMISSION : FAULT_FAILED, errno,
			 "%s: is missing, and no FIFO can be made in %s: %s; try to make that directory, or --map-path", message->path, parent,
			 strerror(errno));
}

static int check_pipe(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Pipe *message = (const Cairn__Pipe *)base;
	size_t total = 0;
	for (size_t i = 0; i < message->n_packets; i++)
		total += message->packets[i].len;
	if (!message->pipe || message->capacity > 1u << 30 || total > message->capacity || (message->unwritten && total))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "pipe %u has impossible values", message->pipe);
	return message->path[0] ? check_fifo(message, fault) : 0;
}

/* How much room the contents take: a packet begins a page. */
static uint64_t room_for(const Cairn__Pipe *message)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < message->n_packets; i++)
		pages += (message->packets[i].len + 4095) / 4096;
	return pages * 4096;
}

/* Above a limit of this user's, as much as there may be, if what is in it fits. */
static int set_capacity(int fd, const Cairn__Pipe *message, struct fault *fault)
{
	if (fcntl(fd, F_GETPIPE_SZ) == (int)message->capacity || fcntl(fd, F_SETPIPE_SZ, (int)message->capacity) >= 0)
		return 0;
	int error = errno;
	for (uint32_t size = message->capacity / 2; error == EPERM && (int)size > fcntl(fd, F_GETPIPE_SZ); size /= 2)
		fcntl(fd, F_SETPIPE_SZ, (int)size);
	int now = fcntl(fd, F_GETPIPE_SZ);
	if (error != EPERM || now < 0 || room_for(message) > (uint64_t)now)
		return fault_set(fault, fault_class_of(error), error, "pipe %u: capacity of %u bytes: %s; try to raise /proc/sys/fs/pipe-max-size",
				 message->pipe, message->capacity, strerror(error));
	log_warn("pipe %u: this user may not have one of %u bytes (/proc/sys/fs/pipe-max-size, pipe-user-pages-soft); continuing with %d bytes",
		 message->pipe, message->capacity, now);
	return 0;
}

/* Does what is in it begin with what was in it? */
static bool begins_so(int reader, const Cairn__Pipe *message)
{
	int copy[2];
	size_t total = 0, at = 0;
	for (size_t i = 0; i < message->n_packets; i++)
		total += message->packets[i].len;
	_free_ uint8_t *now = memory_new(total + 1);
	if (!total || pipe2(copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	_close_ int from = copy[0], to = copy[1];
	fcntl(to, F_SETPIPE_SZ, (int)message->capacity);
	if (tee(reader, to, total, SPLICE_F_NONBLOCK) != (ssize_t)total || fd_read_full(from, now, total) < 0)
		return false;
	for (size_t i = 0; i < message->n_packets; at += message->packets[i++].len)
		if (message->packets[i].len && memcmp(now + at, message->packets[i].data, message->packets[i].len))
			return false;
	return true;
}

/* @ret_holds: somebody has kept it open, and it is in the kernel what was in it. The trial ends are closed when Cairn has its own, so that whoever waits for
 * one sees no other come and go. */
static void open_place(const Cairn__Pipe *message, const char *name, const char *path, int ret_ends[2], bool *ret_holds)
{
	int held = 0, mode = message->unwritten ? O_RDONLY : O_RDWR;
	_close_ int writer = message->unwritten ? -1 : open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK); /* only if somebody reads */
	_close_ int reader = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (reader >= 0)
		ioctl(reader, FIONREAD, &held);
	bool is_held = writer >= 0 || (reader >= 0 && !is_unwritten(reader));
	*ret_holds = message->outside ? is_held : held && begins_so(reader, message);
	if (*ret_holds && !held && message->n_packets)
		log_warn("%s: somebody holds it, and it is empty: what was in it at the checkpoint was read meanwhile, or is lost", name);
	ret_ends[0] = open(path, mode | O_CLOEXEC | O_NONBLOCK);
	ret_ends[1] = ret_ends[0] < 0 ? -1 : fcntl(ret_ends[0], F_DUPFD_CLOEXEC, 0);
}

/* By one look at its name: in a directory of the program's own something else may lie there in the next moment, which root's descriptors must not lead to. */
static void open_fifo(const Cairn__Pipe *message, const char *path, bool is_new, int ret_ends[2], bool *ret_holds)
{
	_close_ int place = open(path, O_PATH | O_CLOEXEC | (is_new ? O_NOFOLLOW : 0));
	struct stat stat;
	char link[32];
	ret_ends[0] = ret_ends[1] = -1;
	if (place < 0 || fstat(place, &stat) < 0)
		return;
	snprintf(link, sizeof link, "/proc/self/fd/%d", place);
	errno = ESTALE;
	if (S_ISFIFO(stat.st_mode))
		open_place(message, path, link, ret_ends, ret_holds);
}

/* What a failed restore made goes again. */
static void remove_fifo(uint64_t path)
{
	unlink((const char *)(uintptr_t)path);
}

/* 1: it was made; 0: one is there. */
static int make_name(const Cairn__Pipe *message, const char *path, struct fault *fault)
{
	mode_t mode = message->identity->mode & 07777;
	if (mkfifo(path, mode) < 0)
		return errno == EEXIST && !message->deleted ? 0 :
		       fault_set(fault, fault_class_of(errno), errno, "cannot make the FIFO %s: %s", path, strerror(errno));
	int rc = identity_give(path, S_IFIFO, message->identity->uid, message->identity->gid, mode);
	return rc < 0 && rc != -EPERM ? fault_set(fault, fault_class_of(-rc), -rc, "%s: owner and mode: %s", path, strerror(-rc)) : 1;
}

static int make_fifo(struct workshop *workshop, const Cairn__Pipe *message, int ret_ends[2], bool *ret_holds, struct fault *fault)
{
	_free_ char *passing = message->deleted ? identity_deleted_name(message->path, "fifo", message->pipe) : NULL;
	const char *path = passing ? passing : message->path;
	int rc = make_name(message, path, fault);
	if (rc < 0)
		return rc;
	if (rc == 1 && !passing)
		workshop_on_failure(workshop, remove_fifo, (uint64_t)(uintptr_t)message->path);
	open_fifo(message, path, rc == 1, ret_ends, ret_holds);
	int error = errno;
	if (passing)
		unlink(passing);
	errno = error;
	return 0;
}

/* Both ends, for the ends' records to take from; they are closed with the workshop, so that an end that nobody had is closed then. */
static int make_pipe(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Pipe *message = (const Cairn__Pipe *)base;
	bool holds = false;
	int ends[2] = { -1, -1 };
	int rc = message->path[0] ? make_fifo(workshop, message, ends, &holds, fault) : pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
	if (rc < 0 && message->path[0])
		return rc;
	if (ends[1] < 0)
		return fault_set(fault, fault_class_of(errno), errno, "pipe %u: %s", message->pipe, strerror(errno));
	workshop_put(workshop, message->pipe, ends[0]);
	workshop_put_second(workshop, message->pipe, ends[1]);
	if (holds)
		return 0;
	rc = set_capacity(ends[1], message, fault);
	if (rc < 0)
		return rc;
	/* Packet mode makes packets of writes; a pipe that had none is filled the ordinary way. */
	if (message->n_packets > 1)
		fcntl(ends[1], F_SETFL, fcntl(ends[1], F_GETFL) | O_DIRECT);
	for (size_t i = 0; i < message->n_packets; i++)
		if (fd_write_full(ends[1], message->packets[i].data, message->packets[i].len) < 0)
			return fault_set(fault, FAULT_FAILED, errno, "pipe %u: contents: %s", message->pipe,
					 strerror(errno));
	return 0;
}

static uint32_t needs_pipe(const ProtobufCMessage *base)
{
	return ((const Cairn__PipeEnd *)base)->pipe;
}

static int check_end(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PipeEnd *message = (const Cairn__PipeEnd *)base;
	if (!message->open || !message->pipe)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a pipe's end has impossible values");
	return 0;
}

static int make_end(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PipeEnd *message = (const Cairn__PipeEnd *)base;
	char path[64];
	int source = (message->open->flags & O_ACCMODE) == O_RDONLY ? workshop_fd(workshop, message->pipe) :
								      workshop_second(workshop, message->pipe);
	/* The description that pipe(2) made is the pipe's own; others were opened (and bear O_LARGEFILE for it), so that each has its own flags. */
	snprintf(path, sizeof path, "/proc/self/fd/%d", source);
	int fd = message->open->flags & KERNEL_O_LARGEFILE ?
			 open(path, ((int)message->open->flags & O_ACCMODE) | O_CLOEXEC | O_NONBLOCK) :
			 fcntl(source, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "pipe %u: %s", message->pipe, strerror(errno));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_pipe = {
	.name = "pipe",
	.tag = 35,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__pipe__descriptor,
	.owner_field = "pipe",
	.path_field = "path",
	.check = check_pipe,
	.make = make_pipe,
};

const struct kind kind_pipe_end = {
	.name = "pipe end",
	.tag = 51,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__pipe_end__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.needs = needs_pipe,
	.check = check_end,
	.make = make_end,
};
