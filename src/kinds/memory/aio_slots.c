/* SPDX-License-Identifier: Apache-2.0 */
/* Every request has a slot of the ring from io_submit(2) until its event was read (fs/aio.c get_reqs_available, refill_reqs_available, 6.18). Processors take slots from the common
 * ones in batches, and keep some; but a thread that goes to each of them in turn, and submits requests that wait (polls of an eventfd) until there is no slot left, gets all
 * that are free, less a rest that no processor can take. So with N usable slots and U events that were not read, N - U are taken, or something is under way.
 *
 * Then the ring has to be as it was. A thread may stand in the middle of reading it, which programs do without the kernel too: head and tail are the same afterwards, and so are the events.
 * The tail only goes forward, so it goes round, past all slots:
 *   - the eventfd is written to: all of Cairn's requests are done, and their events behind the tail;
 *   - they are taken for read (the head moves to the tail), and as many requests more, which are done at once, bring the tail to where the head was;
 *   - the head is put back there, and as many requests as there were unread events bring the tail to where it was. So the kernel counts those as not read;
 *   - the events are written over with those that were there.
 * With nothing under way all that is known beforehand, and is one group of calls, which runs to its end without Cairn too. What the kernel adds up is checked on the way by calls that fail:
 * results of io_submit(2) are added by an eventfd, and compared by futex(2). The group stops before it has done what can only be undone by somebody who looks.
 *
 * With something under way (mend) Cairn does the same step by step: events of the program that come meanwhile may lie anywhere among its own. It waits a moment for them, as the
 * disk needs no program to go on; if all have come, nothing is under way any more. By then the program must not be left alone: a deputy does it (tracee/deputy.h).
 *
 * Not to be told apart from requests: slots that are kept by processors where the thread may not run (a cpuset), or that are offline. */
#include "kinds/memory/aio_slots.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "kinds/memory/aio_request.h"

enum {
	AFFINITY_SIZE = 1024,
	COUNT_FROM = 4096, /* of the eventfd that adds: an errno that is added would be more than it can have, and is left out */
	UNREAD_IN_GROUP = 1024,
	LOOP_CALLS = 8,
	MOST_FAILURES = 20, /* of Cairn's own calls while it puts things back */
	REST_S = 5,        /* how late Cairn may come to that */
};
#define PATIENCE_NS UINT64_C(20000000) /* how long requests are waited for while the program stands still */

struct count {
	struct frozen_thread *thread;
	struct aio_caller caller;
	const struct map *pieces;
	size_t piece_count;
	uint64_t size;
	struct aio_ring *ring;       /* all of it as it was; on the heap */
	uint32_t slots, usable, batch, head, tail, unread;
	uint8_t before[AFFINITY_SIZE], after[AFFINITY_SIZE], allowed[AFFINITY_SIZE]; /* processors: the thread's, what puts them back, all that it may have */
	size_t mask_size;
	uint32_t processors;         /* possible */
	size_t processor;            /* by which Cairn's requests are submitted */
	int adder;                   /* eventfd */
	VEC(size_t) posts;           /* numbers of the calls that submit */
	uint32_t posted;             /* requests of Cairn's own that are done */
	uint32_t moved, seen;        /* by how many places the tail has moved, and how many of those were looked at */
	VEC(struct io_event) events; /* not read by the program, in order */
	bool is_blind;               /* something was done to the ring, and it could not be looked at since */
	unsigned failures;
};

static void count_finish(struct count *count)
{
	free(count->ring);
	vec_finish(&count->posts);
	vec_finish(&count->events);
}

static uint32_t place_of(const struct count *count, uint32_t moved)
{
	return (uint32_t)(((uint64_t)count->tail + moved) % count->slots);
}

static uint64_t word_address(const struct count *count, size_t offset)
{
	return count->caller.ring + offset;
}

/* ---- the ring as it is ---- */

static bool is_writable(const struct map *map)
{
	return (map->protection & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
}

static void add_protection(const struct count *count, bool own, struct batch *batch)
{
	for (size_t i = 0; i < count->piece_count; i++) {
		const struct map *piece = &count->pieces[i];
		batch_group(batch, 1, 0);
		if (!is_writable(piece))
			batch_call(batch, mprotect, piece->start, piece->end - piece->start, own ? piece->protection : PROT_READ | PROT_WRITE);
	}
}

static int shut(const struct count *count, struct fault *fault)
{
	struct batch batch;
	frozen_batch(count->thread, &batch);
	add_protection(count, true, &batch);
	int rc = frozen_run(count->thread, &batch, fault);
	batch_finish(&batch);
	return rc;
}

/* Where the thread could run at most: what it may run on is put back as "anywhere" if it was that, or it would not follow when its cpuset gets larger. */
static int learn_processors(struct count *count, struct batch *batch, struct batch_place *ret_allowed, struct fault *fault)
{
	uint8_t all[AFFINITY_SIZE];
	long size = syscall(SYS_sched_getaffinity, count->thread->tid, sizeof count->before, count->before);
	if (size <= 0)
		return fault_set(fault, fault_class_of(errno), errno, "thread %d: affinity: %s", count->thread->tid, strerror(errno));
	count->mask_size = (size_t)size;
	memset(all, 0xff, count->mask_size);
	batch_group(batch, 3, 3 * AFFINITY_SIZE);
	*ret_allowed = batch_room(batch, count->mask_size);
	batch_try(batch, sched_setaffinity, 0, count->mask_size, batch_data(batch, all, count->mask_size).address);
	batch_try(batch, sched_getaffinity, 0, count->mask_size, ret_allowed->address);
	batch_try(batch, sched_setaffinity, 0, count->mask_size, batch_data(batch, count->before, count->mask_size).address);
	return 0;
}

static int refuse_other(const struct count *count, struct fault *fault)
{
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "mapping 0x%llx: a ring of asynchronous I/O without a context of this process (io_setup), as one that a child has from its "
			 "parent; try again when it has unmapped it", (unsigned long long)count->caller.ring);
}

/* Makes it readable, asks whether it is a context's, and where the thread may run. */
static int open_ring(struct count *count, struct fault *fault)
{
	struct batch batch;
	struct batch_place allowed = { 0 };
	size_t is_there = 0;
	frozen_batch(count->thread, &batch);
	int rc = learn_processors(count, &batch, &allowed, fault);
	add_protection(count, false, &batch);
	batch_group(&batch, 1, 0);
	if (rc == 0) {
		is_there = batch_try(&batch, io_submit, count->caller.ring, 0, 0);
		rc = frozen_run(count->thread, &batch, fault);
	}
	if (rc == 0 && batch_result(&batch, is_there) != 0)
		rc = refuse_other(count, fault);
	if (rc == 0)
		memcpy(count->allowed, batch_bytes(&batch, allowed), count->mask_size);
	bool is_anywhere = !memcmp(count->allowed, count->before, count->mask_size);
	memset(count->after, 0xff, count->mask_size);
	if (!is_anywhere)
		memcpy(count->after, count->before, count->mask_size);
	batch_finish(&batch);
	return rc;
}

static int look(struct count *count, struct fault *fault)
{
	count->ring = memory_new(count->size);
	int rc = aio_processors(&count->processors, fault);
	if (rc == 0)
		rc = memory_read(count->thread->tid, count->caller.ring, count->ring, count->size, fault);
	if (rc < 0)
		return rc;
	count->slots = aio_slots(count->size);
	if (count->ring->slots != count->slots)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "mapping 0x%llx: a ring of asynchronous I/O of which a part is not mapped any more; try again when the program "
				 "has destroyed it", (unsigned long long)count->caller.ring);
	count->usable = aio_usable(count->slots, count->processors);
	count->batch = aio_batch(count->slots, count->processors);
	count->head = count->ring->head % count->slots;
	count->tail = count->ring->tail % count->slots;
	count->unread = aio_distance(count->head, count->tail, count->slots);
	for (uint32_t i = 0; i < count->unread; i++)
		*vec_add(&count->events) = count->ring->events[(count->head + i) % count->slots];
	return 0;
}

/* ---- one group of calls ---- */

static bool may_use(const struct count *count, size_t processor)
{
	return processor < 8 * count->mask_size && count->allowed[processor / 8] >> processor % 8 & 1;
}

static void mask_of(const struct count *count, size_t processor, uint8_t ret_mask[AFFINITY_SIZE])
{
	memset(ret_mask, 0, count->mask_size);
	ret_mask[processor / 8] = (uint8_t)(1 << processor % 8);
}

static void add_posts(struct count *count, struct aio_kit *kit, struct batch *batch, uint32_t requests)
{
	for (uint32_t left = requests; left;) {
		uint32_t some = left < AIO_REQUESTS ? left : AIO_REQUESTS;
		aio_kit_group(kit, &count->caller, batch, 1, 0);
		*vec_add(&count->posts) = aio_kit_submit(kit, &count->caller, batch, some);
		left -= some;
	}
}

/* All that a processor can take, added up. */
static void add_filling(struct count *count, struct aio_kit *kit, struct batch *batch, size_t processor, uint32_t most)
{
	uint8_t mask[AFFINITY_SIZE];
	const uint32_t calls = (most + AIO_REQUESTS - 1) / AIO_REQUESTS;
	mask_of(count, processor, mask);
	aio_kit_group(kit, &count->caller, batch, 1 + 2 * (calls < LOOP_CALLS ? calls : LOOP_CALLS), count->mask_size);
	batch_try(batch, sched_setaffinity, 0, count->mask_size, batch_data(batch, mask, count->mask_size).address);
	for (uint32_t i = 0; i < calls; i++) {
		aio_kit_group(kit, &count->caller, batch, 2, 0);
		size_t call = aio_kit_submit(kit, &count->caller, batch, AIO_REQUESTS);
		*vec_add(&count->posts) = call;
		batch_try(batch, write, (uint64_t)count->adder, batch_result_address(batch, call), sizeof(uint64_t));
	}
}

/* A call that fails unless the word at @address is @value. */
static size_t add_comparison(struct batch *batch, uint64_t address, uint32_t value)
{
	batch_group(batch, 1, 16);
	return batch_call(batch, futex, address, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 0, batch_room(batch, sizeof(uint32_t)).address, value);
}

static void add_write(const struct count *count, struct batch *batch, uint64_t address, const void *data, size_t size)
{
	batch_group(batch, 1, size + 64);
	struct batch_place from = batch_data(batch, data, size);
	const struct iovec here = { (void *)(uintptr_t)from.address, size }, there = { (void *)(uintptr_t)address, size };
	struct batch_place local = batch_data(batch, &here, sizeof here), remote = batch_data(batch, &there, sizeof there);
	batch_call(batch, process_vm_writev, (uint64_t)count->thread->tid, local.address, 1, remote.address, 1, 0);
}

static void add_head(const struct count *count, struct batch *batch, uint32_t head)
{
	add_write(count, batch, word_address(count, offsetof(struct aio_ring, head)), &head, sizeof head);
}

static void add_tail_comparison(const struct count *count, struct batch *batch, uint32_t tail)
{
	add_comparison(batch, word_address(count, offsetof(struct aio_ring, tail)), tail);
}

static void add_release(const struct count *count, struct batch *batch)
{
	const uint64_t one = 1;
	batch_group(batch, 1, sizeof one);
	batch_call(batch, write, (uint64_t)count->caller.eventfd, batch_data(batch, &one, sizeof one).address, sizeof one);
}

static void add_end(const struct count *count, struct batch *batch)
{
	batch_group(batch, 3, count->mask_size);
	batch_try(batch, sched_setaffinity, 0, count->mask_size, batch_data(batch, count->after, count->mask_size).address);
	batch_try(batch, close, (uint64_t)count->caller.eventfd);
	batch_try(batch, close, (uint64_t)count->adder);
}

/* The events that were not read, if they are few: Cairn writes all of them once more. */
static void add_events(const struct count *count, struct batch *batch)
{
	if (count->unread > UNREAD_IN_GROUP)
		return;
	for (uint32_t i = 0, some; i < count->unread; i += some) {
		uint32_t at = (count->head + i) % count->slots;
		some = count->unread - i < count->slots - at ? count->unread - i : count->slots - at;
		add_write(count, batch, word_address(count, sizeof(struct aio_ring) + at * sizeof(struct io_event)), &count->events.at[i], some * sizeof(struct io_event));
	}
}

/* What a group of calls has to tell: numbers of calls. */
struct quick {
	struct batch batch;
	size_t made[2], verdict;
};

/* The two eventfds get the numbers that are expected, or it ends here. */
static void add_eventfds(const struct count *count, struct quick *quick)
{
	batch_group(&quick->batch, 4, 0);
	quick->made[0] = batch_call(&quick->batch, eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
	quick->made[1] = batch_call(&quick->batch, eventfd2, COUNT_FROM, EFD_CLOEXEC | EFD_NONBLOCK);
	batch_call(&quick->batch, fcntl, (uint64_t)count->caller.eventfd, F_GETFD);
	batch_call(&quick->batch, fcntl, (uint64_t)count->adder, F_GETFD);
}

static void add_all(struct count *count, struct quick *quick)
{
	struct aio_kit kit = { 0 };
	struct batch *batch = &quick->batch;
	const uint32_t expected = count->usable - count->unread, rest = count->slots - count->usable;
	bool is_first = true;
	add_eventfds(count, quick);
	/* Beginning where it is, as each move may take milliseconds on a busy machine. */
	for (size_t i = 0; i < 8 * count->mask_size; i++) {
		const size_t processor = (count->thread->stat.processor + i) % (8 * count->mask_size);
		if (!may_use(count, processor))
			continue;
		add_filling(count, &kit, batch, processor, is_first ? expected : 2 * count->batch);
		count->processor = processor;
		is_first = false;
	}
	batch_group(batch, 2, 16 + 16);
	struct batch_place sum = batch_room(batch, sizeof(uint64_t));
	batch_call(batch, read, (uint64_t)count->adder, sum.address, sizeof(uint64_t));
	quick->verdict = add_comparison(batch, sum.address, COUNT_FROM + expected);
	/* From here on it is known where the tail is after each step. */
	add_release(count, batch);
	add_tail_comparison(count, batch, place_of(count, expected));
	add_head(count, batch, place_of(count, expected));
	add_posts(count, &kit, batch, rest);
	add_tail_comparison(count, batch, count->head);
	add_head(count, batch, count->head);
	add_posts(count, &kit, batch, count->unread);
	add_tail_comparison(count, batch, count->tail);
	add_events(count, batch);
	add_head(count, batch, count->ring->head);
	add_end(count, batch);
}

static uint32_t count_posted(const struct count *count, const struct batch *batch)
{
	uint32_t sum = 0;
	for (size_t i = 0; i < count->posts.count; i++) {
		int64_t taken = batch_result(batch, count->posts.at[i]);
		sum += taken > 0 ? (uint32_t)taken : 0;
	}
	return sum;
}

static int choose_numbers(struct count *count, struct fault *fault)
{
	int numbers[2];
	int rc = proc_descriptors_next(count->thread->process->view, numbers, 2, fault);
	count->caller.eventfd = numbers[0];
	count->adder = numbers[1];
	return rc;
}

static int end(const struct count *count, struct fault *fault)
{
	struct batch batch;
	frozen_batch(count->thread, &batch);
	add_end(count, &batch);
	int rc = frozen_run(count->thread, &batch, fault);
	batch_finish(&batch);
	return rc;
}

/* Of the eventfds, which the group takes away at its end. */
static bool is_left_open(const struct count *count)
{
	int next;
	return proc_descriptors_next(count->thread->process->view, &next, 1, NULL) < 0 || next != count->caller.eventfd;
}

enum outcome { OUTCOME_IDLE, OUTCOME_BUSY, OUTCOME_BROKEN_OFF };

/* BUSY: not as many requests were taken as there would be slots. BROKEN_OFF: as many were, but then something else was not as expected. */
static int count_quickly(struct count *count, enum outcome *ret_outcome, struct fault *fault)
{
	struct quick quick = { 0 };
	int rc = choose_numbers(count, fault);
	if (rc < 0)
		return rc;
	frozen_batch(count->thread, &quick.batch);
	add_all(count, &quick);
	rc = frozen_run(count->thread, &quick.batch, fault);
	count->posted = count_posted(count, &quick.batch);
	int64_t first = batch_result(&quick.batch, quick.made[0]), second = batch_result(&quick.batch, quick.made[1]);
	int64_t verdict = batch_result(&quick.batch, quick.verdict);
	batch_finish(&quick.batch);
	*ret_outcome = rc == 0 ? OUTCOME_IDLE : verdict == -EAGAIN ? OUTCOME_BUSY : OUTCOME_BROKEN_OFF;
	if (verdict != STUB_NOT_RUN)
		return 0;
	/* What it has done was not to be seen. */
	if (first == STUB_NOT_RUN && is_left_open(count)) {
		*ret_outcome = OUTCOME_BUSY;
		return 0;
	}
	if (first >= 0)
		end(count, NULL);
	return first != -EMFILE && second != -EMFILE ? rc :
		fault_set(fault, FAULT_UNSUPPORTED, EMFILE, "has no two descriptors left, which counting its asynchronous I/O (io_setup) takes; try to raise `ulimit -n`");
}

/* ---- step by step ---- */

/* Once begun it has to come to its end: a call of Cairn's that failed is made again. */
static bool goes_on(struct count *count, int rc)
{
	return rc < 0 && rc != -ESRCH && count->failures++ < MOST_FAILURES;
}

/* How far the tail is now, and what has come. */
static int look_on(struct count *count, struct fault *fault)
{
	uint32_t tail;
	count->is_blind = true;
	int rc = aio_read_tail(&count->caller, count->slots, &tail, fault);
	if (rc < 0)
		return rc;
	count->moved += aio_distance(place_of(count, count->moved), tail, count->slots);
	uint32_t fresh = count->moved - count->seen;
	_free_ struct io_event *events = memory_new((fresh + 1) * sizeof *events);
	rc = aio_read_events(&count->caller, count->slots, place_of(count, count->seen), events, fresh, fault);
	for (uint32_t i = 0; rc == 0 && i < fresh; i++)
		if (aio_is_own(&count->caller, &events[i]))
			count->posted++;
		else
			*vec_add(&count->events) = events[i];
	if (rc < 0)
		return rc;
	count->seen = count->moved;
	count->is_blind = false;
	return 0;
}

static int release(const struct count *count, struct fault *fault)
{
	struct batch batch;
	frozen_batch(count->thread, &batch);
	add_release(count, &batch);
	int rc = frozen_run(count->thread, &batch, fault);
	batch_finish(&batch);
	return rc;
}

/* All of Cairn's requests are done then. */
static int release_and_look(struct count *count, struct fault *fault)
{
	int rc;
	do
		rc = release(count, fault);
	while (goes_on(count, rc));
	if (rc < 0)
		return rc;
	do
		rc = look_on(count, fault);
	while (goes_on(count, rc));
	return rc;
}

static uint32_t arrived(const struct count *count)
{
	return (uint32_t)count->events.count - count->unread;
}

static int await_arrivals(struct count *count, uint32_t missing, struct fault *fault)
{
	const uint64_t nap_ns = 200000, until_ns = clock_now_ns() + PATIENCE_NS;
	int rc = 0;
	while (rc == 0 && arrived(count) < missing && clock_now_ns() < until_ns) {
		clock_sleep_ns(nap_ns);
		rc = look_on(count, fault);
		rc = goes_on(count, rc) ? 0 : rc;
	}
	return rc;
}

/* At least one, by one processor or another. */
static int post(struct count *count, uint32_t requests, struct fault *fault)
{
	for (size_t tries = 0; tries <= 8 * count->mask_size; tries++) {
		uint8_t mask[AFFINITY_SIZE];
		uint32_t taken = 0;
		mask_of(count, count->processor, mask);
		int rc = may_use(count, count->processor) ? aio_post(&count->caller, requests, mask, count->mask_size, &taken, fault) : 0;
		if (rc < 0 || taken)
			return rc;
		count->processor = (count->processor + 1) % (8 * count->mask_size);
	}
	return fault_set(fault, FAULT_FAILED, EAGAIN, "asynchronous I/O at 0x%llx: has no slots left for what was there", (unsigned long long)count->caller.ring);
}

/* How many were taken is counted by their events: a call whose end was not seen may have been made. */
static int post_and_look(struct count *count, uint32_t head, uint32_t requests, struct fault *fault)
{
	int rc = aio_write_head(&count->caller, head, fault);
	if (rc < 0)
		return rc;
	rc = post(count, requests, fault);
	int looked = look_on(count, rc == 0 ? fault : NULL);
	return rc < 0 ? rc : looked;
}

/* Once around. Places that were passed before the head is back were taken for read; from then on what comes is not read. */
static int go_round(struct count *count, struct fault *fault)
{
	const uint32_t back = count->slots - count->unread;
	int rc = 0;
	while (rc == 0 && (count->moved < back || count->posted < count->slots)) {
		if (count->is_blind)
			rc = look_on(count, fault);
		else if (count->moved < back)
			rc = post_and_look(count, place_of(count, count->moved), back - count->moved, fault);
		else
			rc = post_and_look(count, count->head, count->slots - count->posted, fault);
		rc = goes_on(count, rc) ? 0 : rc;
	}
	return rc;
}

static bool is_as_expected(const struct count *count)
{
	return aio_distance(count->head, place_of(count, count->moved), count->slots) == count->events.count;
}

/* What was not read. If that is not what it should be nobody can say more than what was there. */
static int put_events_back(struct count *count, bool is_expected, struct fault *fault)
{
	int rc;
	do {
		rc = is_expected ? aio_write_events(&count->caller, count->slots, count->head, count->events.at, (uint32_t)count->events.count, fault) :
				   aio_write_events(&count->caller, count->slots, 0, count->ring->events, count->slots, fault);
		rc = rc == 0 ? aio_write_head(&count->caller, count->ring->head, fault) : rc;
	} while (goes_on(count, rc));
	return rc;
}

static int say_odd(const struct count *count, struct fault *fault)
{
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "asynchronous I/O (io_setup) at 0x%llx: its ring was not as the kernel has it, as if the program had written its tail; "
				   "try again", (unsigned long long)count->caller.ring);
}

static bool is_confined(const struct count *count)
{
	uint32_t allowed = 0;
	for (size_t i = 0; i < 8 * count->mask_size; i++)
		allowed += may_use(count, i);
	return allowed < count->processors;
}

static int say_busy(const struct count *count, uint32_t left, struct fault *fault)
{
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "asynchronous I/O (io_setup) at 0x%llx: %u requests are under way%s; try again when they are done, a longer --timeout, "
				   "or let the program do without (innodb_use_native_aio=0 for MariaDB, aio=threads for QEMU)", (unsigned long long)count->caller.ring, left,
				   is_confined(count) ? ", or their slots are kept by processors that it may not use" : "");
}

/* What the program has read already: the ring is as it was to the last byte. Not where @left requests that are under way may be about to put their events. */
static int put_rest_back(const struct count *count, uint32_t left, struct fault *fault)
{
	const uint32_t from = (uint32_t)count->events.count + left, rest = from < count->slots ? count->slots - from : 0;
	_free_ struct io_event *events = memory_new((rest + 1) * sizeof *events);
	for (uint32_t i = 0; i < rest; i++)
		events[i] = count->ring->events[((uint64_t)count->head + from + i) % count->slots];
	return aio_write_events(&count->caller, count->slots, (count->head + from) % count->slots, events, rest, fault);
}

/* All of it, and nothing that would end it early: it is Cairn's own doing. */
static int mend(struct count *count, bool is_busy, struct fault *fault)
{
	const uint32_t expected = count->usable - count->unread;
	/* Nothing but its own requests has moved the tail, maybe almost around; or only those that were taken are to be seen. */
	count->moved = count->seen = is_busy ? 0 : count->posted;
	count->posted = count->moved;
	int rc = release_and_look(count, fault);
	const uint32_t missing = is_busy && count->posted < expected ? expected - count->posted : 0;
	if (rc == 0)
		rc = await_arrivals(count, missing, fault);
	if (rc == 0 && count->moved)
		rc = go_round(count, fault);
	bool is_expected = is_as_expected(count);
	if (rc == 0)
		rc = put_events_back(count, is_expected, fault);
	if (rc < 0)
		return rc;
	do
		rc = end(count, fault);
	while (goes_on(count, rc));
	if (rc < 0)
		return rc;
	const uint32_t left = arrived(count) < missing ? missing - arrived(count) : 0;
	log_debug("asynchronous I/O at 0x%llx: of %u requests that were under way %u are done", (unsigned long long)count->caller.ring, missing, missing - left);
	rc = is_expected ? put_rest_back(count, left, fault) : say_odd(count, fault);
	return rc == 0 && left ? say_busy(count, left, fault) : rc;
}

static int count_looked_at(struct count *count, struct fault *fault)
{
	enum outcome outcome = OUTCOME_IDLE;
	int rc = count_quickly(count, &outcome, fault);
	if (rc == 0 && outcome != OUTCOME_IDLE)
		return mend(count, outcome == OUTCOME_BUSY, fault);
	/* More of them than the calls had room for, also if they were made and their end was not seen. */
	int put = put_events_back(count, true, rc == 0 ? fault : NULL);
	if (rc == 0 && put == 0)
		rc = put_rest_back(count, 0, fault);
	return rc < 0 ? rc : put;
}

static int count_open(struct count *count, struct fault *fault)
{
	struct foothold *foothold = &count->thread->process->space->foothold;
	int rc = look(count, fault);
	/* Full of events that were not read, it has no room for a request. */
	if (rc < 0 || count->unread >= count->usable)
		return rc;
	foothold->rest_s = REST_S;
	rc = count_looked_at(count, fault);
	foothold->rest_s = 0;
	return rc;
}

static int run(void *thread, struct batch *batch, struct fault *fault)
{
	return frozen_run(thread, batch, fault);
}

static int count_and_shut(struct count *count, struct fault *fault)
{
	struct fault shutting;
	int rc = open_ring(count, fault);
	if (rc == 0)
		rc = count_open(count, fault);
	int after = shut(count, &shutting);
	if (rc == 0 && after < 0)
		*fault = shutting;
	return rc < 0 ? rc : after;
}

int aio_slots_count(struct frozen_thread *thread, const struct map *pieces, size_t piece_count, struct aio_idle *ret_idle, struct fault *fault)
{
	struct foothold *foothold = &thread->process->space->foothold;
	const struct deadline *deadline = foothold->deadline;
	__attribute__((cleanup(count_finish))) struct count count = {
		.thread = thread, .pieces = pieces, .piece_count = piece_count, .size = pieces[piece_count - 1].end - pieces->start,
		.caller = { thread, run, thread->tid, foothold->area, pieces->start, -1, aio_cookie() },
	};
	/* Left alone in the middle it would keep Cairn's requests. */
	foothold->deadline = NULL;
	int rc = count_and_shut(&count, fault);
	foothold->deadline = deadline;
	if (rc < 0)
		return rc;
	*ret_idle = (struct aio_idle){ count.head, count.events.at, (uint32_t)count.events.count };
	count.events.at = NULL;
	return 0;
}
