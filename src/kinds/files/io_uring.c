/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring(7), when nothing is under way in it. Its memory is read and put back by uring_memory.c; what is registered is in fdinfo: buffers by address, which
 * their process registers again, files by path only. A socket's says which it is; any other is taken for the one open file of the processes that have the ring which has
 * that path, and if there are several, refused. That there is an eventfd a second registration tells (EBUSY), not which: with one in those processes it is that,
 * with none one that nobody can see any more.
 *
 * Nothing is under way: fdinfo does not show requests in worker threads, with a timeout, or at a device. But each request gets one completion, so that there is none as
 * long as as many completions were posted as requests taken. What gets more than one, or none (multishot, zero copy, messages of rings, IOSQE_CQE_SKIP_SUCCESS), breaks the count: a ring
 * in whose memory such a request or completion is left is refused. What remains: if it is longer ago than the ring has entries, and as many completions
 * too many were posted as requests are under way that wait for no file (those are listed). And what needs no request: removal of a registered resource that has a tag.
 * Nor is a message seen in the ring that gets it (IORING_OP_MSG_RING of another one, IORING_REGISTER_SEND_MSG_RING): each counts as if a request were done.
 * A ring at work is let go, and tried again.
 *
 * How it was made is not shown. A ring is carried that answers as an ordinary one does to what changes nothing (io_uring_register with arguments that must fail): no
 * IORING_SETUP_IOPOLL, SINGLE_ISSUER, R_DISABLED, no restrictions, no buffers given to it. The new one has IORING_SETUP_SUBMIT_ALL and CQE_MIXED, which
 * only permit more, and not COOP_TASKRUN, which would only let it be later. Not to be seen: personalities (6.16) that no request that is left has used, a clock (IORING_REGISTER_CLOCK), limits and processors of its workers, the range
 * in which free slots for files are looked for, an eventfd for workers only, tags. And buffers whose memory was unmapped since: another one may lie there. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kernel/uring.h"
#include "kinds/files/open_file.h"
#include "kinds/files/uring_memory.h"
#include "kinds/table.h"

static const char link_name[] = "anon_inode:[io_uring]";

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, link_name);
}

/* What fdinfo says; paths lie in the text. */
struct look {
	char *text;
	struct uring_info info;
};

static int look_at(const struct frozen_file *file, struct look *ret_look, struct fault *fault)
{
	char *text = frozen_file_fdinfo(file);
	int rc = uring_parse(text, &ret_look->info, fault);
	if (rc < 0)
		free(text);
	else
		ret_look->text = text;
	return rc;
}

static void look_finish(struct look *look)
{
	uring_finish(&look->info);
	free(look->text);
}
#define _look_ __attribute__((cleanup(look_finish)))

/* One as a restore makes it. */
static int make_ordinary(uint32_t requests, uint32_t completions, bool no_array, struct io_uring_params *ret_parameters)
{
	const uint32_t flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | (no_array ? URING_SETUP_NO_SQARRAY : 0);
	*ret_parameters = (struct io_uring_params){ .cq_entries = completions, .flags = flags | URING_SETUP_CQE_MIXED };
	int fd = uring_setup(requests, ret_parameters);
	if (fd != -EINVAL)
		return fd;
	*ret_parameters = (struct io_uring_params){ .cq_entries = completions, .flags = flags };
	return uring_setup(requests, ret_parameters);
}

static int refuse_ring(struct fault *fault, const char *what)
{
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "an io_uring %s, which this version cannot carry; try again when the program has closed it, or let it do "
			 "without (UV_USE_IO_URING=0 for Node.js and libuv, innodb_use_native_aio=0 for MariaDB)", what);
}

/* ---- how it was made ---- */

/* Asked with arguments that must fail. */
static const struct question {
	unsigned operation, count;
	uintptr_t argument;
	int ordinary; /* what an ordinary ring answers; what any other answer means: */
	const char *otherwise;
} questions[] = {
	{ IORING_REGISTER_RESTRICTIONS, 0, 0, -EBADFD, "with restrictions (IORING_REGISTER_RESTRICTIONS)" },
	{ URING_REGISTER_NAPI, 1, 8, -EFAULT, "whose completions are polled for (IORING_SETUP_IOPOLL), or of a kernel that does not tell (before Linux 6.9)" },
	{ URING_REGISTER_MEM_REGION, 1, 8, 0, "with a region for arguments (IORING_REGISTER_MEM_REGION)" },
};

static int ask(int own, int like, struct fault *fault)
{
	for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
		const struct question *question = &questions[i];
		const void *argument = (const void *)question->argument; /* nowhere */
		long answer = uring_register(own, question->operation, argument, question->count);
		long ordinary = question->ordinary ? question->ordinary : uring_register(like, question->operation, argument, question->count);
		if (answer == -EEXIST)
			return refuse_ring(fault, "that one thread alone may use (IORING_SETUP_SINGLE_ISSUER)");
		if (question->operation == IORING_REGISTER_RESTRICTIONS && (answer == -EINVAL || answer == -EBUSY))
			return refuse_ring(fault, "that is not enabled yet (IORING_SETUP_R_DISABLED)");
		if (answer != ordinary)
			return refuse_ring(fault, question->otherwise);
	}
	return 0;
}

/* Does it have buffers that requests choose from? Each group is asked for: nothing counts them. */
static bool has_buffer_groups(int own)
{
	struct {
		uint32_t group, head, reserved[8];
	} status = { 0 };
	for (uint32_t group = 0; group < URING_BUFFER_GROUPS; group++) {
		status.group = group;
		if (uring_register(own, URING_REGISTER_PBUF_STATUS, &status, 1) != -ENOENT)
			return true;
	}
	return false;
}

/* ---- is anything under way? ---- */

/* include/uapi/linux/io_uring.h, 6.18 */
enum {
	OP_SEND_ZC = 47, OP_SENDMSG_ZC = 48, OP_READ_MULTISHOT = 49, OP_LAST_KNOWN = 62, OP_RECV_ZC = 58, OP_EPOLL_WAIT = 59,
	TIMEOUT_MULTISHOT = 1 << 6, CQE_F_NOTIFICATION = 1 << 3,
};

/* Requests that get more completions than one, or none; and messages, which give some to other rings. */
static bool breaks_count(const struct io_uring_sqe *request)
{
	if (request->flags & IOSQE_CQE_SKIP_SUCCESS)
		return true;
	switch (request->opcode) {
	case IORING_OP_POLL_ADD:
	case IORING_OP_POLL_REMOVE:
		return request->len & (IORING_POLL_ADD_MULTI | IORING_POLL_UPDATE_EVENTS | IORING_POLL_UPDATE_USER_DATA);
	case IORING_OP_TIMEOUT:
		return request->timeout_flags & TIMEOUT_MULTISHOT;
	case IORING_OP_ACCEPT:
		return request->ioprio & IORING_ACCEPT_MULTISHOT;
	case IORING_OP_RECV:
	case IORING_OP_RECVMSG:
		return request->ioprio & IORING_RECV_MULTISHOT;
	case IORING_OP_MSG_RING:
	case IORING_OP_URING_CMD:
	case OP_SEND_ZC:
	case OP_SENDMSG_ZC:
	case OP_READ_MULTISHOT:
	case OP_RECV_ZC:
		return true;
	default:
		return request->opcode > OP_LAST_KNOWN;
	}
}

/* Requests without a completion: not taken as they were none, or there was no memory for it. */
static uint32_t lost_of(const struct uring_memory *memory)
{
	return uring_word(memory->rings, &memory->layout, URING_SQ_DROPPED) + uring_word(memory->rings, &memory->layout, URING_CQ_OVERFLOW);
}

static int check_count(const struct uring_info *info, const struct uring_memory *memory, struct fault *fault)
{
	const struct io_uring_sqe *requests = (const void *)memory->entries;
	const struct io_uring_cqe *completions = (const void *)(memory->rings + memory->layout.completions);
	bool breaks = false, persons = false;
	for (uint32_t i = 0; i < info->requests; i++) {
		breaks |= breaks_count(&requests[i]);
		persons |= requests[i].personality != 0;
	}
	for (uint32_t i = 0; i < info->completions; i++)
		breaks |= (completions[i].flags & (IORING_CQE_F_MORE | CQE_F_NOTIFICATION)) != 0;
	if (breaks)
		return refuse_ring(fault, "of which nobody can tell whether requests are under way, as it has had some that complete more than once or without a word "
				   "(multishot, zero copy, messages, IOSQE_CQE_SKIP_SUCCESS)");
	if (persons)
		return refuse_ring(fault, "with personalities (IORING_REGISTER_PERSONALITY)");
	uint32_t under_way = info->taken - lost_of(memory) - info->posted;
	bool moved = uring_word(memory->rings, &memory->layout, URING_SQ_HEAD) != info->taken ||
		     uring_word(memory->rings, &memory->layout, URING_CQ_TAIL) != info->posted;
	if (!under_way && !moved && !info->waiting && !info->overflown)
		return 0;
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "an io_uring in which %u requests are under way, %u of which wait for a file to be ready; try again when they "
				   "are done, a longer --timeout, or let the program do without (UV_USE_IO_URING=0 for Node.js and libuv, innodb_use_native_aio=0 for "
				   "MariaDB)", under_way, info->waiting);
}

/* ---- what is registered ---- */

static bool has_file(const struct frozen_process *process, const struct frozen_file *file)
{
	for (size_t i = 0; i < process->descriptors.count; i++)
		if (process->descriptors.at[i].file == file)
			return true;
	return false;
}

static bool is_at(const struct frozen_file *file, const char *path)
{
	size_t length = strlen(file->link);
	return !strncmp(path, file->link, length) && !strcmp(path + length, file->deleted ? " (deleted)" : "") && !(file->info.flags & O_PATH);
}

/* How many open files with that path the processes have that have the ring; one of them. */
static unsigned find_files(const struct harvest *harvest, const struct frozen_file *ring, const char *path, struct frozen_file **ret_file)
{
	unsigned count = 0;
	for (size_t f = 0; f < harvest->files.count; f++) {
		struct frozen_file *file = harvest->files.at[f];
		bool had = false;
		for (size_t p = 0; is_at(file, path) && p < harvest->processes.count && !had; p++)
			had = has_file(harvest->processes.at[p], ring) && has_file(harvest->processes.at[p], file);
		if (had)
			*ret_file = file;
		count += had;
	}
	return count;
}

/* -EBUSY: there is one. */
static bool has_eventfd(int own)
{
	const void *nowhere = (const void *)(uintptr_t)8;
	return uring_register(own, IORING_REGISTER_EVENTFD, nowhere, 1) == -EBUSY;
}

static const char eventfd_link[] = "anon_inode:[eventfd]";

static int check_registered(const struct harvest *harvest, const struct frozen_file *file, int own, const struct uring_info *info, struct fault *fault)
{
	struct frozen_file *found;
	unsigned spaces = 0;
	for (size_t i = 0; i < info->files.count; i++) {
		unsigned count = find_files(harvest, file, info->files.at[i].path, &found);
		if (count != 1)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "an io_uring with a registered file, %s in slot %u, that is %s; try again when the program has "
					 "closed it", info->files.at[i].path, info->files.at[i].slot, count ? "open more than once, and nobody can tell which it is" :
					 "open no more otherwise");
	}
	if (has_eventfd(own) && find_files(harvest, file, eventfd_link, &found) > 1)
		return refuse_ring(fault, "with a registered eventfd, of which nobody can tell which of several it is");
	for (size_t i = 0; i < harvest->processes.count; i++)
		spaces += has_file(harvest->processes.at[i], file) && frozen_owns(harvest->processes.at[i], SHARE_VM);
	return info->buffers.count && spaces > 1 ? refuse_ring(fault, "of several processes, one of which has registered buffers") : 0;
}

/* ---- capture ---- */

static int refuse_frozen(const struct harvest *harvest, struct frozen_file *file, const struct uring_info *info, struct fault *fault)
{
	struct io_uring_params parameters;
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	if (!info->complete)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "an io_uring at work; try again, or a longer --timeout");
	_close_ int like = make_ordinary(info->requests, info->completions, false, &parameters);
	if (like < 0)
		return fault_set(fault, fault_class_of(-like), -like, "an io_uring: making one to compare with: %s; try sysctl kernel.io_uring_disabled=0",
				 strerror(-like));
	struct uring_memory memory = { 0 };
	rc = ask(own, like, fault);
	if (rc == 0)
		rc = uring_memory_read(own, like, &parameters, &memory, fault);
	if (rc == 0)
		rc = check_count(info, &memory, fault);
	uring_memory_finish(&memory);
	if (rc == 0)
		rc = check_registered(harvest, file, own, info, fault);
	if (rc == 0 && has_buffer_groups(own))
		rc = refuse_ring(fault, "with buffers that requests choose from (IORING_REGISTER_PBUF_RING, IORING_OP_PROVIDE_BUFFERS)");
	return rc;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	_look_ struct look look = { 0 };
	int rc = look_at(file, &look, fault);
	if (rc < 0)
		return rc;
	if (look.info.has_thread)
		return refuse_ring(fault, "with a thread of the kernel's (IORING_SETUP_SQPOLL)");
	if (look.info.has_persons)
		return refuse_ring(fault, "with personalities (IORING_REGISTER_PERSONALITY)");
	if (look.info.polls_busily)
		return refuse_ring(fault, "that polls network devices (IORING_REGISTER_NAPI)");
	return harvest->frozen ? refuse_frozen(harvest, file, &look.info, fault) : 0;
}

static bool probe_map(const struct map *map)
{
	return map_is_placed(map);
}

static int capture_map(struct harvest *harvest, const struct frozen_process *process, const struct map *map, uint32_t *ret_object,
		       struct fault *fault)
{
	bool is_new;
	(void)process;
	size_t i = 0;
	while (i < harvest->files.count && (harvest->files.at[i]->stat.st_ino != map->inode || harvest->files.at[i]->stat.st_dev != map->device))
		i++;
	if (i == harvest->files.count)
		return refuse_ring(fault, "that is mapped, and open no more");
	/* A piece would be mapped from the beginning. */
	if (map->offset != IORING_OFF_SQ_RING && map->offset != IORING_OFF_CQ_RING && map->offset != IORING_OFF_SQES)
		return refuse_ring(fault, "that is mapped in pieces");
	*ret_object = harvest_object(harvest, map->device, map->inode, &is_new);
	return 0;
}

static void capture_layout(struct harvest *harvest, const struct uring_layout *layout, Cairn__IoUring *message)
{
	message->n_layout = URING_WORDS + 2;
	message->layout = ARENA_ARRAY(&harvest->arena, uint32_t, message->n_layout);
	memcpy(message->layout, layout->words, sizeof layout->words);
	message->layout[URING_WORDS] = layout->completions;
	message->layout[URING_WORDS + 1] = layout->array;
}

static int capture_ring(struct harvest *harvest, uint32_t id, int own, const struct uring_info *info, struct fault *fault)
{
	struct io_uring_params parameters;
	struct uring_memory memory;
	_close_ int like = make_ordinary(info->requests, info->completions, false, &parameters);
	int rc = like < 0 ? fault_set(fault, fault_class_of(-like), -like, "an io_uring: making one to compare with: %s", strerror(-like)) :
			    uring_memory_read(own, like, &parameters, &memory, fault);
	if (rc < 0)
		return rc;
	Cairn__IoUring *message = HARVEST_MESSAGE(harvest, Cairn__IoUring, cairn__io_uring__init);
	message->id = id;
	message->requests = info->requests;
	message->completions = info->completions;
	message->taken = info->taken;
	message->posted = info->posted;
	message->no_array = memory.no_array;
	capture_layout(harvest, &memory.layout, message);
	message->rings = (ProtobufCBinaryData){ memory.rings_size, arena_copy(&harvest->arena, memory.rings, memory.rings_size) };
	message->entries = (ProtobufCBinaryData){ memory.entries_size, arena_copy(&harvest->arena, memory.entries, memory.entries_size) };
	rc = check_count(info, &memory, fault); /* once more: it was looked at before threads ran for Cairn */
	uring_memory_finish(&memory);
	harvest_add(harvest, &kind_io_uring, &message->base);
	return rc;
}

static void capture_registered(struct harvest *harvest, const struct frozen_file *file, int own, const struct uring_info *info,
			       Cairn__IoUringFile *message)
{
	struct frozen_file *found = NULL;
	message->file_slots = info->file_slots;
	message->files = ARENA_ARRAY(&harvest->arena, Cairn__IoUringFile__RegisteredFile *, info->files.count);
	for (; message->n_files < info->files.count; message->n_files++) {
		const struct uring_file *seen = &info->files.at[message->n_files];
		Cairn__IoUringFile__RegisteredFile *one = HARVEST_MESSAGE(harvest, Cairn__IoUringFile__RegisteredFile,
									  cairn__io_uring_file__registered_file__init);
		one->slot = seen->slot;
		one->file = find_files(harvest, file, seen->path, &found) ? found->id : 0;
		log_debug("process %d, fd %d: registered file %u, %s, is taken for fd %d", file->pid, file->fd, seen->slot, seen->path, found ? found->fd : -1);
		message->files[message->n_files] = one;
	}
	message->buffer_slots = info->buffer_slots;
	message->buffers = ARENA_ARRAY(&harvest->arena, Cairn__IoUringFile__RegisteredBuffer *, info->buffers.count);
	for (; message->n_buffers < info->buffers.count; message->n_buffers++) {
		const struct uring_buffer *seen = &info->buffers.at[message->n_buffers];
		Cairn__IoUringFile__RegisteredBuffer *one = HARVEST_MESSAGE(harvest, Cairn__IoUringFile__RegisteredBuffer,
									    cairn__io_uring_file__registered_buffer__init);
		one->slot = seen->slot;
		one->address = seen->address;
		one->size = seen->size;
		message->buffers[message->n_buffers] = one;
	}
	message->notifies = has_eventfd(own);
	message->eventfd = message->notifies && find_files(harvest, file, eventfd_link, &found) ? found->id : 0;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	_look_ struct look look = { 0 };
	bool is_new;
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc == 0)
		rc = look_at(file, &look, fault);
	if (rc < 0)
		return rc;
	Cairn__IoUringFile *message = HARVEST_MESSAGE(harvest, Cairn__IoUringFile, cairn__io_uring_file__init);
	message->ring = harvest_object(harvest, file->stat.st_dev, file->stat.st_ino, &is_new);
	rc = capture_ring(harvest, message->ring, own, &look.info, fault);
	if (rc < 0)
		return rc;
	capture_registered(harvest, file, own, &look.info, message);
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_io_uring_file, &message->base);
	return 0;
}

/* ---- the ring ---- */

static struct uring_memory memory_of(const Cairn__IoUring *message)
{
	struct uring_memory memory = {
		.layout = { .completions = message->layout[URING_WORDS], .array = message->layout[URING_WORDS + 1] },
		.rings_size = message->rings.len, .rings = message->rings.data,
		.entries_size = message->entries.len, .entries = message->entries.data,
		.no_array = message->no_array,
	};
	memcpy(memory.layout.words, message->layout, sizeof memory.layout.words);
	return memory;
}

static bool is_size(uint32_t entries, uint32_t most)
{
	return entries && entries <= most && !(entries & (entries - 1));
}

static bool is_possible(const Cairn__IoUring *message)
{
	const uint32_t most_offset = 4096, alignment = 64; /* of the array: io_uring.c rings_size; a ring without one ends there */
	if (!message->id || !is_size(message->requests, URING_MOST_REQUESTS) || !is_size(message->completions, URING_MOST_COMPLETIONS) ||
	    message->completions < message->requests || message->n_layout != URING_WORDS + 2)
		return false;
	for (size_t i = 0; i <= URING_WORDS; i++)
		if (message->layout[i] & 3 || message->layout[i] > most_offset)
			return false;
	uint64_t completions_end = message->layout[URING_WORDS] + message->completions * sizeof(struct io_uring_cqe), array = message->layout[URING_WORDS + 1];
	for (size_t i = 0; i < URING_WORDS; i++)
		if (message->layout[i] + sizeof(uint32_t) > message->layout[URING_WORDS])
			return false;
	if (array & 3 || array < completions_end || array - completions_end >= alignment || message->rings.len != array + (message->no_array ? 0 : message->requests * sizeof(uint32_t)) ||
	    message->entries.len != message->requests * sizeof(struct io_uring_sqe))
		return false;
	const struct uring_memory memory = memory_of(message);
	return message->taken - message->posted == lost_of(&memory) &&
	       message->posted - uring_word(memory.rings, &memory.layout, URING_CQ_HEAD) <= message->completions &&
	       uring_word(memory.rings, &memory.layout, URING_SQ_HEAD) == message->taken &&
	       uring_word(memory.rings, &memory.layout, URING_CQ_TAIL) == message->posted;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__IoUring *message = (const Cairn__IoUring *)base;
	return is_possible(message) ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "an io_uring has impossible values");
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__IoUring *message = (const Cairn__IoUring *)base;
	const struct uring_memory memory = memory_of(message);
	struct io_uring_params parameters;
	_close_ int fd = make_ordinary(message->requests, message->completions, message->no_array, &parameters);
	if (fd < 0)
		return fault_set(fault, fault_class_of(-fd), -fd, "io_uring: %s; try sysctl kernel.io_uring_disabled=0, or a larger `ulimit -l`", strerror(-fd));
	struct uring_layout here = uring_layout(&parameters);
	if (message->no_array) /* the kernel says 0 */
		here.array = memory.layout.array;
	if (!uring_layout_same(&here, &memory.layout))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "io_uring: its memory is laid out in another way by the kernel here; try on a host with the kernel that it "
				 "was saved on");
	int rc = uring_memory_write(fd, &parameters, &memory, message->taken, message->posted, workshop->deadline, fault);
	if (rc == 0)
		workshop_put(workshop, message->id, fd_steal(&fd));
	return rc;
}

const struct kind kind_io_uring = {
	.name = "io_uring",
	.tag = 47,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__io_uring__descriptor,
	.owner_field = "id",
	.probe_map = probe_map,
	.capture_map = capture_map,
	.check = check,
	.make = make,
};

/* ---- the descriptor ---- */

static uint32_t needs(const ProtobufCMessage *base)
{
	return ((const Cairn__IoUringFile *)base)->ring;
}

static int check_file(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__IoUringFile *message = (const Cairn__IoUringFile *)base;
	bool possible = message->ring && message->file_slots <= URING_MOST_FILES && message->buffer_slots <= URING_MOST_BUFFERS;
	for (size_t i = 0; i < message->n_files; i++)
		possible &= message->files[i]->slot < message->file_slots && message->files[i]->file;
	for (size_t i = 0; i < message->n_buffers; i++)
		possible &= message->buffers[i]->slot < message->buffer_slots && message->buffers[i]->size;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "a descriptor of an io_uring has impossible values");
}

/* There is one open file behind all descriptors of a ring. */
static int make_file(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__IoUringFile *message = (const Cairn__IoUringFile *)base;
	int fd = fcntl(workshop_fd(workshop, message->ring), F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "io_uring: %s", strerror(errno));
	return open_file_adopt(workshop, message->open, fd, fault);
}

/* The first registered file that there is not; 0: all are there. */
static uint32_t missing_file(const struct workshop *workshop, const Cairn__IoUringFile *message)
{
	for (size_t i = 0; i < message->n_files; i++)
		if (workshop_fd(workshop, message->files[i]->file) < 0)
			return message->files[i]->file;
	return message->eventfd && workshop_fd(workshop, message->eventfd) < 0 ? message->eventfd : 0;
}

static long register_files(struct workshop *workshop, int ring, const Cairn__IoUringFile *message)
{
	_free_ int *fds = memory_new(message->file_slots * sizeof *fds);
	for (uint32_t i = 0; i < message->file_slots; i++)
		fds[i] = -1;
	for (size_t i = 0; i < message->n_files; i++)
		fds[message->files[i]->slot] = workshop_fd(workshop, message->files[i]->file);
	return uring_register(ring, IORING_REGISTER_FILES, fds, message->file_slots);
}

/* One that nobody else has: closed, it is still there for the ring. */
static long register_eventfd(struct workshop *workshop, int ring, uint32_t file)
{
	_close_ int own = file ? -1 : eventfd(0, EFD_CLOEXEC);
	int fd = file ? workshop_fd(workshop, file) : own;
	return uring_register(ring, IORING_REGISTER_EVENTFD, &fd, 1);
}

/* Empty slots, which the process fills that has the memory. */
static long register_slots(int ring, uint32_t slots)
{
	const struct io_uring_rsrc_register table = { .nr = slots, .flags = IORING_RSRC_REGISTER_SPARSE };
	return uring_register(ring, IORING_REGISTER_BUFFERS2, &table, sizeof table);
}

static int settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__IoUringFile *message = (const Cairn__IoUringFile *)base;
	int ring = workshop_fd(workshop, message->open->file);
	uint32_t missing = missing_file(workshop, message);
	if (missing)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: an io_uring has registered file %u, which is missing", missing);
	long rc = message->file_slots ? register_files(workshop, ring, message) : 0;
	if (rc >= 0 && message->notifies)
		rc = register_eventfd(workshop, ring, message->eventfd);
	if (rc >= 0 && message->buffer_slots)
		rc = register_slots(ring, message->buffer_slots);
	return rc >= 0 ? 0 : fault_set(fault, fault_class_of((int)-rc), (int)-rc, "io_uring: register %u files, %u buffers, %s eventfd: %s; try to raise `ulimit -n`",
				       message->file_slots, message->buffer_slots, message->notifies ? "an" : "no", strerror((int)-rc));
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__IoUringFile *message = (const Cairn__IoUringFile *)base;
	(void)thread, (void)fault;
	for (size_t i = 0; i < message->n_buffers; i++) {
		const Cairn__IoUringFile__RegisteredBuffer *buffer = message->buffers[i];
		const struct iovec place = { (void *)(uintptr_t)buffer->address, buffer->size };
		batch_group(batch, 1, 128);
		struct batch_place data = batch_data(batch, &place, sizeof place);
		const struct io_uring_rsrc_update2 update = { .offset = buffer->slot, .data = data.address, .nr = 1 };
		struct batch_place argument = batch_data(batch, &update, sizeof update);
		batch_call(batch, io_uring_register, (uint64_t)fd, IORING_REGISTER_BUFFERS_UPDATE, argument.address, sizeof update);
	}
	return 0;
}

const struct kind kind_io_uring_file = {
	.name = "io_uring descriptor",
	.tag = 69,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__io_uring_file__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.writes_behind = true,
	.capture_file = capture_file,
	.needs = needs,
	.check = check_file,
	.make = make_file,
	.settle = settle,
	.connect = connect_,
};
