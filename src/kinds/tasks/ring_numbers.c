/* SPDX-License-Identifier: Apache-2.0 */
/* io_urings that a thread calls by a number of its own instead of a descriptor (IORING_REGISTER_RING_FDS, 5.18; liburing's io_uring_register_ring_fd). Which numbers are taken a call
 * by each tells that submits nothing; which ring a number means, nothing: so a process with a thread that has numbers may have one ring only. A ring without a descriptor
 * (IORING_SETUP_REGISTERED_FD_ONLY) is refused here. */
#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

enum { NUMBERS = 16, ENTER_REGISTERED_RING = 1 << 4 }; /* IO_RINGFD_REG_MAX, include/linux/io_uring_types.h; include/uapi/linux/io_uring.h */

struct note {
	size_t calls[NUMBERS];
};

/* The one ring among the descriptors; -1: none, -2: several. */
static int find_ring(const struct frozen_process *process)
{
	const struct frozen_process *table = process->shares[SHARE_FILES] ? process->shares[SHARE_FILES] : process;
	const struct frozen_file *found = NULL;
	int fd = -1;
	for (size_t i = 0; i < table->descriptors.count; i++) {
		const struct frozen_file *file = table->descriptors.at[i].file;
		if (strcmp(file->link, "anon_inode:[io_uring]") || file == found)
			continue;
		fd = found ? -2 : table->descriptors.at[i].fd;
		found = file;
	}
	return fd;
}

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note, struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	(void)fault;
	/* A filter that Cairn has as well may have something against it: so not where it can hardly be of use. */
	if (harvest->policy.filtered && find_ring(thread->process) == -1)
		return 0;
	for (size_t i = 0; i < NUMBERS; i++)
		note->calls[i] = batch_try(batch, io_uring_enter, i, 0, 0, ENTER_REGISTERED_RING, 0, 0);
	*ret_note = note;
	return 0;
}

/* What the kernel answers where there is none: EBADF, or EINVAL to a thread that has had no ring at all, and whatever those say that let no thread have one. */
static bool is_taken(int64_t answer)
{
	return answer >= 0 || answer == -EBADFD || answer == -EEXIST;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_, struct fault *fault)
{
	const struct note *note = note_;
	uint32_t numbers = 0;
	if (!note)
		return 0;
	for (size_t i = 0; i < NUMBERS; i++)
		numbers |= is_taken(batch_result(batch, note->calls[i])) ? UINT32_C(1) << i : 0;
	if (!numbers)
		return 0;
	int fd = find_ring(thread->process);
	if (fd < 0)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: calls an io_uring by a number of its own (IORING_REGISTER_RING_FDS), and the process has %s; try "
				 "again when the program has closed it", thread->tid, fd == -1 ? "no descriptor of it" : "several, of which it may be any");
	Cairn__RingNumbers *message = HARVEST_MESSAGE(harvest, Cairn__RingNumbers, cairn__ring_numbers__init);
	message->tid = (uint32_t)thread->tid;
	message->numbers = numbers;
	message->fd = (uint32_t)fd;
	harvest_add(harvest, &kind_ring_numbers, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__RingNumbers *message = (const Cairn__RingNumbers *)base;
	bool possible = message->numbers && !(message->numbers >> NUMBERS) && message->fd <= INT32_MAX;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: impossible numbers of an io_uring", message->tid);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__RingNumbers *message = (const Cairn__RingNumbers *)base;
	(void)thread, (void)fault;
	for (uint32_t i = 0; i < NUMBERS; i++) {
		if (!(message->numbers >> i & 1))
			continue;
		const struct io_uring_rsrc_update update = { .offset = i, .data = message->fd };
		struct batch_place place = batch_data(batch, &update, sizeof update);
		batch_call(batch, io_uring_register, message->fd, IORING_REGISTER_RING_FDS, place.address, 1);
	}
	return 0;
}

const struct kind kind_ring_numbers = {
	.name = "numbers of io_urings",
	.tag = 48,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__ring_numbers__descriptor,
	.owner_field = "tid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
