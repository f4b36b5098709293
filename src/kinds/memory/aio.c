/* SPDX-License-Identifier: Apache-2.0 */
/* A context of asynchronous I/O (io_setup(2)), when nothing is under way in it, which aio_slots.c finds out. It belongs to an address space, and its name is the address of the ring that the
 * kernel has mapped for it, with the events that were not read. A new one is made of the same size, and moved (mremap(2)) to the old address, which renames it (fs/aio.c aio_ring_mremap,
 * 6.18). What the kernel holds besides is where the next event goes, by its own count: requests that are done at once bring a new ring to where the old one was. The first of them are
 * taken for read, the last, as many as there were unread events, are not, and their events are written over with the old ones. Those that were read are not kept: the kernel may write over
 * them at any moment.
 *
 * A ring has whole pages, so for how many requests the program asked is not to be seen, nor of any consequence but in the sum of fs.aio-nr; it is made for the fewest that
 * give that size. Its number (aio_ring.id) is the new one's: programs have no use for it.
 *
 * Refused: a ring of which a part is unmapped, or lies elsewhere; one without a context, as a child has it from its parent. A context whose ring was unmapped can be used by nobody, and is
 * not seen. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kinds/memory/aio_request.h"
#include "kinds/memory/aio_slots.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

/* ---- frozen ---- */

/* How many mappings, side by side from number @first on, are one ring; 0: they are none from its beginning on. */
static size_t count_pieces(const struct map_list *list, size_t first)
{
	const struct map *begin = &list->maps.at[first];
	size_t count = begin->offset == 0;
	while (count && first + count < list->maps.count) {
		const struct map *last = &list->maps.at[first + count - 1], *next = &list->maps.at[first + count];
		if (!map_is_aio(next) || next->inode != begin->inode || next->start != last->end || next->offset != last->end - begin->start)
			break;
		count++;
	}
	return count;
}

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	const struct map_list *list = process->space ? &process->space->maps : NULL;
	(void)harvest;
	for (size_t i = 0, count; list && i < list->maps.count; i += count ? count : 1) {
		count = map_is_aio(&list->maps.at[i]) ? count_pieces(list, i) : 1;
		if (!count)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "mapping 0x%llx: a part of a ring of asynchronous I/O (io_setup), of which another is not mapped any more, or elsewhere; "
					 "try again when the program has destroyed it", (unsigned long long)list->maps.at[i].start);
	}
	return 0;
}

static int capture_map(struct harvest *harvest, const struct frozen_process *process, const struct map *map, uint32_t *ret_object, struct fault *fault)
{
	bool is_new;
	(void)process, (void)fault;
	*ret_object = harvest_object(harvest, map->device, map->inode, &is_new);
	return 0;
}

static int capture_ring(struct harvest *harvest, struct frozen_thread *thread, const struct map *pieces, size_t count, struct fault *fault)
{
	struct aio_idle idle;
	int rc = aio_slots_count(thread, pieces, count, &idle, fault);
	if (rc < 0)
		return rc;
	Cairn__AioRing *message = HARVEST_MESSAGE(harvest, Cairn__AioRing, cairn__aio_ring__init);
	message->space = thread->process->space->id;
	message->address = pieces->start;
	message->size = pieces[count - 1].end - pieces->start;
	message->head = idle.head;
	message->unread.len = idle.unread_count * sizeof *idle.unread;
	message->unread.data = arena_copy(&harvest->arena, idle.unread, message->unread.len);
	free(idle.unread);
	harvest_add(harvest, &kind_aio_ring, &message->base);
	return 0;
}

static int visit(struct harvest *harvest, struct frozen_thread *thread, struct fault *fault)
{
	const struct map_list *list = &thread->process->space->maps;
	int rc = 0;
	for (size_t i = 0, count; rc == 0 && i < list->maps.count; i += count ? count : 1) {
		count = map_is_aio(&list->maps.at[i]) ? count_pieces(list, i) : 0;
		if (count && !harvest->policy.by_deputy)
			rc = fault_set(fault, FAULT_VANISHED, EXDEV, "has begun to do asynchronous I/O (io_setup) while it was looked at; try again");
		else if (count)
			rc = capture_ring(harvest, thread, &list->maps.at[i], count, fault);
	}
	return rc;
}

/* ---- image ---- */

static bool is_possible(const Cairn__AioRing *message)
{
	const uint64_t user_end = (UINT64_C(1) << 47) - AIO_PAGE;
	if (!message->size || message->size > AIO_MOST_SIZE || message->address < 65536 || message->address > user_end - message->size ||
	    (message->address | message->size) & (AIO_PAGE - 1) || message->unread.len % sizeof(struct io_event))
		return false;
	const uint32_t slots = aio_slots(message->size);
	return message->head < slots && message->unread.len / sizeof(struct io_event) < slots;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__AioRing *message = (const Cairn__AioRing *)base;
	const unsigned long long address = message->address;
	uint32_t processors = 0;
	if (!is_possible(message))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a ring of asynchronous I/O at 0x%llx has impossible values", address);
	int rc = aio_processors(&processors, fault);
	if (rc < 0)
		return rc;
	if (!aio_requests(message->size, processors))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "asynchronous I/O at 0x%llx: a ring of %llu KiB cannot be made where %u processors are possible: io_setup(2) makes larger "
				 "ones; try a host with fewer", address, (unsigned long long)message->size / 1024, processors);
	if (message->unread.len / sizeof(struct io_event) > aio_usable(aio_slots(message->size), processors))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "asynchronous I/O at 0x%llx: more events were not read than a ring may hold where only %u processors are possible; try a "
				 "host with more", address, processors);
	return 0;
}

static void covers(const ProtobufCMessage *base, uint64_t *ret_start, uint64_t *ret_end)
{
	const Cairn__AioRing *message = (const Cairn__AioRing *)base;
	*ret_start = message->address;
	*ret_end = message->address + message->size;
}

/* ---- newborn ---- */

static int run(void *thread, struct batch *batch, struct fault *fault)
{
	return newborn_run(thread, batch, fault);
}

static int explain(const Cairn__AioRing *message, int64_t error, struct fault *fault)
{
	const char *remedy = error == -EAGAIN ? "; try a larger sysctl fs.aio-max-nr" : error == -ENOSYS ? "; try a kernel with CONFIG_AIO" : "; try with more memory";
	return fault_set(fault, FAULT_FAILED, (int)-error, "asynchronous I/O at 0x%llx, a ring of %llu KiB: io_setup: %s%s", (unsigned long long)message->address,
			 (unsigned long long)message->size / 1024, strerror((int)-error), remedy);
}

/* A new context, anywhere but where it is to be, as nothing can be moved to where it is in part; and an eventfd. */
static int set_up(struct aio_caller *caller, const Cairn__AioRing *message, uint32_t requests, struct fault *fault)
{
	struct batch batch;
	batch_init(&batch, caller->area);
	batch_group(&batch, 3, 64);
	struct batch_place name = batch_room(&batch, sizeof(aio_context_t));
	batch_call(&batch, mmap, message->address, message->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, UINT64_MAX, 0);
	size_t made = batch_call(&batch, eventfd2, 1, EFD_CLOEXEC | EFD_NONBLOCK), done = batch_try(&batch, io_setup, requests, name.address);
	int rc = caller->run(caller->thread, &batch, fault);
	if (rc == 0 && batch_result(&batch, done) < 0)
		rc = explain(message, batch_result(&batch, done), fault);
	if (rc == 0) {
		caller->eventfd = (int)batch_result(&batch, made);
		memcpy(&caller->ring, batch_bytes(&batch, name), sizeof caller->ring);
	}
	batch_finish(&batch);
	return rc;
}

static int move(struct aio_caller *caller, const Cairn__AioRing *message, struct fault *fault)
{
	struct batch batch;
	struct aio_ring ring;
	batch_init(&batch, caller->area);
	batch_call(&batch, mremap, caller->ring, message->size, message->size, MREMAP_MAYMOVE | MREMAP_FIXED, message->address);
	int rc = caller->run(caller->thread, &batch, fault);
	batch_finish(&batch);
	caller->ring = message->address;
	if (rc == 0)
		rc = memory_read(caller->tid, caller->ring, &ring, sizeof ring, fault);
	if (rc == 0 && ring.slots != aio_slots(message->size))
		rc = fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "asynchronous I/O at 0x%llx: a ring of %u events was made instead of %u by the kernel here; try on a host with the kernel "
			       "that it was saved on", (unsigned long long)message->address, ring.slots, aio_slots(message->size));
	return rc;
}

static int post_some(const struct aio_caller *caller, uint32_t count, uint32_t *ret_taken, struct fault *fault)
{
	int rc = aio_post(caller, count, NULL, 0, ret_taken, fault);
	return rc == 0 && !*ret_taken ? fault_set(fault, FAULT_FAILED, EAGAIN, "asynchronous I/O at 0x%llx: the kernel takes no more requests; try again", (unsigned long long)caller->ring) : rc;
}

/* The tail goes to the old head, and then on without it. */
static int bring_to(const struct aio_caller *caller, uint32_t head, uint32_t unread, const struct deadline *deadline, struct fault *fault)
{
	int rc = 0;
	for (uint32_t at = 0, taken; rc == 0 && at < head; at += taken) {
		rc = post_some(caller, head - at, &taken, fault);
		if (rc == 0)
			rc = aio_write_head(caller, at + taken, fault);
		if (rc == 0)
			rc = deadline_check(deadline, fault);
	}
	for (uint32_t at = 0, taken; rc == 0 && at < unread; at += taken)
		rc = post_some(caller, unread - at, &taken, fault);
	return rc;
}

/* Where the thread may run. All slots have to be one processor's while it brings the ring to its place; mostly it has only one then (rebuild/seat.c). */
struct pin {
	pid_t tid;
	bool is_pinned;
	cpu_set_t before;
};

static void pin_begin(struct pin *pin)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	if (sched_getaffinity(pin->tid, sizeof pin->before, &pin->before) < 0 || CPU_COUNT(&pin->before) < 2)
		return;
	for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &pin->before))
			CPU_SET(i, &one);
	pin->is_pinned = sched_setaffinity(pin->tid, sizeof one, &one) == 0;
}

/* On all that it may have, if that is what it ran on: so it is not confined to them. */
static void pin_end(const struct pin *pin)
{
	cpu_set_t all, now;
	memset(&all, 0xff, sizeof all);
	if (!pin->is_pinned)
		return;
	if (sched_setaffinity(pin->tid, sizeof all, &all) < 0 || sched_getaffinity(pin->tid, sizeof now, &now) < 0 || !CPU_EQUAL(&now, &pin->before))
		sched_setaffinity(pin->tid, sizeof pin->before, &pin->before);
}

static int bring(struct aio_caller *caller, const Cairn__AioRing *message, const struct deadline *deadline, struct fault *fault)
{
	const uint32_t slots = aio_slots(message->size), unread = (uint32_t)(message->unread.len / sizeof(struct io_event));
	struct pin pin = { .tid = caller->tid };
	struct batch batch;
	pin_begin(&pin);
	int rc = bring_to(caller, message->head, unread, deadline, fault);
	pin_end(&pin);
	if (rc == 0)
		rc = aio_write_events(caller, slots, message->head, (const struct io_event *)(const void *)message->unread.data, unread, fault);
	batch_init(&batch, caller->area);
	batch_call(&batch, close, (uint64_t)caller->eventfd);
	if (rc == 0)
		rc = caller->run(caller->thread, &batch, fault);
	batch_finish(&batch);
	return rc;
}

static int place(struct newborn_thread *thread, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__AioRing *message = (const Cairn__AioRing *)base;
	struct aio_caller caller = { thread, run, thread->tid, thread->process->area, 0, -1, aio_cookie() };
	uint32_t processors;
	int rc = aio_processors(&processors, fault);
	if (rc == 0)
		rc = set_up(&caller, message, aio_requests(message->size, processors), fault);
	if (rc == 0)
		rc = move(&caller, message, fault);
	if (rc == 0)
		rc = bring(&caller, message, thread->process->workshop->deadline, fault);
	return rc;
}

const struct kind kind_aio_ring = {
	.name = "asynchronous I/O",
	.tag = 85,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__aio_ring__descriptor,
	.owner_field = "space",
	.refuse = refuse,
	.by_deputy = true, /* in the middle of the count its ring is full of Cairn's requests */
	.writes_behind = true,
	.probe_map = map_is_aio,
	.capture_map = capture_map,
	.visit = visit,
	.check = check,
	.covers = covers,
	.place = place,
};
