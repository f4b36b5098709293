/* SPDX-License-Identifier: Apache-2.0 */
/* variant plain: contexts of asynchronous I/O go on where they were, with events that were not read, and lose no slot */
/* variant odd: contexts of asynchronous I/O whose rings were moved, protected, filled with events, or made after one that is gone */
/* variant waiting: a thread that waits in io_getevents waits on, and gets what is done after a restore */
/* variant shared: a context of asynchronous I/O is that of all processes that share the memory */
/* variant confined: a context of asynchronous I/O whose slots are kept by processors where the thread does not run, which stays where it runs */
/* variant many: a hundred small contexts of asynchronous I/O, and one with a large ring */
#include "probe.h"

#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* fs/aio.c struct aio_ring */
struct ring {
	uint32_t id, slots, head, tail, magic, compatible, incompatible, header_size;
	struct io_event events[];
};

static int ready, waiting;

static struct ring *ring_of(aio_context_t context)
{
	return (struct ring *)(uintptr_t)context;
}

static size_t size_of(aio_context_t context)
{
	return sizeof(struct ring) + ring_of(context)->slots * sizeof(struct io_event);
}

static aio_context_t set_up(unsigned requests)
{
	aio_context_t context = 0;
	if (syscall(SYS_io_setup, requests, &context))
		probe_skip("io_setup: %s", strerror(errno));
	return context;
}

/* A poll that is done when @fd is readable. */
static long submit(aio_context_t context, int fd, uint64_t cookie)
{
	struct iocb request = { .aio_data = cookie, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)fd, .aio_buf = POLLIN }, *one = &request;
	return syscall(SYS_io_submit, context, 1, &one);
}

static struct io_event take(aio_context_t context)
{
	struct io_event event = { 0 };
	PROBE_SAME(syscall(SYS_io_getevents, context, 1, 1, &event, NULL), 1, "events");
	return event;
}

static void work(aio_context_t context, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		PROBE_SAME(submit(context, ready, 1000 + i), 1, "requests submitted");
		PROBE_SAME(take(context).data, 1000 + i, "event of a request");
	}
}

/* All slots that there are, taken on each processor in turn (tests/kernel/aio_slots_tell_requests.c). */
static long count_slots(aio_context_t context)
{
	cpu_set_t all;
	uint64_t number = 1;
	long taken = 0;
	PROBE(sched_getaffinity(0, sizeof all, &all));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (!CPU_ISSET(cpu, &all) || sched_setaffinity(0, sizeof one, &one))
			continue;
		while (submit(context, waiting, 5) == 1)
			taken++;
	}
	PROBE(sched_setaffinity(0, sizeof all, &all));
	PROBE_SAME(write(waiting, &number, sizeof number), 8, "write");
	for (long i = 0; i < taken; i++)
		PROBE_SAME(take(context).data, 5, "event of a request that had waited");
	PROBE_SAME(read(waiting, &number, sizeof number), 8, "read");
	return taken;
}

/* The program's own numbers of where it is. */
struct place {
	aio_context_t context;
	uint32_t head, tail, slots;
	long free;
};

static struct place look(aio_context_t context)
{
	const struct ring *ring = ring_of(context);
	return (struct place){ context, ring->head, ring->tail, ring->slots, 0 };
}

static void same(const struct place *place)
{
	const struct ring *ring = ring_of(place->context);
	PROBE_SAME(ring->magic, 0xa10a10a1, "magic number");
	PROBE_SAME(ring->slots, place->slots, "slots");
	PROBE_SAME(ring->head, place->head, "head");
	PROBE_SAME(ring->tail, place->tail, "tail");
	PROBE_SAME(syscall(SYS_io_submit, place->context, 0, NULL), 0, "call of the context by its address");
}

static void plain(void)
{
	aio_context_t small = set_up(1), large = set_up(300), fresh = set_up(40);
	const long small_slots = count_slots(small), large_slots = count_slots(large);
	work(small, ring_of(small)->slots + 40);
	work(large, 77);
	int file = PROBE(open("some file", O_RDWR | O_CREAT, 0600));
	char text[100] = "what is in the file";
	struct iocb requests[] = {
		{ .aio_data = 0xfedcba9876543210, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = (uint32_t)file, .aio_buf = (uintptr_t)text, .aio_nbytes = 20 },
		{ .aio_data = 2, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file, .aio_buf = 8, .aio_nbytes = 20 },
		{ .aio_data = 3, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)ready, .aio_buf = POLLIN | POLLOUT },
	};
	struct iocb *list[] = { &requests[0], &requests[1], &requests[2] };
	PROBE_SAME(syscall(SYS_io_submit, large, 3, list), 3, "requests submitted");
	ring_of(large)->events[ring_of(large)->head + 1].res2 = -77;
	const struct place places[] = { look(small), look(large), look(fresh) };

	probe_save();

	for (size_t i = 0; i < 3; i++)
		same(&places[i]);
	struct io_event event = take(large);
	PROBE_SAME(event.data, 0xfedcba9876543210, "data of the first event");
	PROBE_SAME(event.obj, (uintptr_t)&requests[0], "its request");
	PROBE_SAME(event.res, 20, "its result");
	event = take(large);
	PROBE_SAME(event.data, 2, "data of the second event");
	PROBE_SAME(event.res, -EFAULT, "its result");
	PROBE_SAME(event.res2, -77, "its second result");
	event = take(large);
	PROBE_SAME(event.data, 3, "data of the third event");
	PROBE_SAME(event.res, POLLIN | POLLOUT, "its result");
	PROBE_SAME(count_slots(small), small_slots, "slots of the small one");
	PROBE_SAME(count_slots(large), large_slots, "slots of the large one");
	work(small, 300);
	work(large, 700);
	work(fresh, 90);
	PROBE_SAME(syscall(SYS_io_destroy, small), 0, "io_destroy");
	PROBE_SAME(syscall(SYS_io_submit, small, 0, NULL), -1, "call of a context that is gone");
}

static void odd(void)
{
	aio_context_t gone = set_up(3), moved = set_up(200), guarded = set_up(200), full = set_up(10);
	const long moved_slots = count_slots(moved), full_slots = count_slots(full);
	PROBE(syscall(SYS_io_destroy, gone));
	work(moved, 300);
	size_t size = size_of(moved);
	void *elsewhere = PROBE(mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	moved = (aio_context_t)(uintptr_t)PROBE(mremap(ring_of(moved), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)elsewhere + 4096));
	work(moved, 5);
	PROBE_SAME(submit(moved, ready, 6), 1, "requests submitted");
	work(guarded, 9);
	PROBE_SAME(submit(guarded, ready, 7), 1, "requests submitted");
	PROBE(mprotect((char *)ring_of(guarded) + 4096, 4096, PROT_READ));
	PROBE(madvise(ring_of(guarded), 4096, MADV_DONTFORK));
	/* Every slot that this processor can take. */
	work(full, 50);
	uint64_t left = 0;
	while (submit(full, ready, left) == 1)
		left++;
	const struct place places[] = { look(moved), look(guarded), look(full) };

	probe_save();

	for (size_t i = 0; i < 3; i++)
		same(&places[i]);
	PROBE_SAME(take(moved).data, 6, "event of the one that was moved");
	PROBE_SAME(take(guarded).data, 7, "event of the one that is protected");
	PROBE_SAME(mprotect((char *)ring_of(guarded) + 4096, 4096, PROT_READ | PROT_WRITE), 0, "mprotect");
	for (uint64_t i = 0; i < left; i++)
		PROBE_SAME(take(full).data, i, "event of the one that was full");
	PROBE_SAME(count_slots(moved), moved_slots, "slots of the one that was moved");
	PROBE_SAME(count_slots(guarded), moved_slots, "slots of the one that is protected");
	PROBE_SAME(count_slots(full), full_slots, "slots of the one that was full");
	work(moved, 500);
	work(guarded, 500);
	work(full, 500);
}

static aio_context_t shared;

static void *wait_for_two(void *unused)
{
	struct io_event events[5] = { { 0 } };
	const struct timespec long_time = { 100, 0 };
	PROBE_SAME(syscall(SYS_io_getevents, shared, 2, 5, events, &long_time), 2, "events that were waited for");
	PROBE_SAME(events[0].data, 21, "the first of them");
	PROBE_SAME(events[1].data, 22, "the second of them");
	return unused;
}

static void wait_in_vain(void)
{
	pthread_t thread;
	shared = set_up(4);
	work(shared, 11);
	PROBE_SAME(pthread_create(&thread, NULL, wait_for_two, NULL), 0, "pthread_create");

	probe_save();

	PROBE_SAME(submit(shared, ready, 21), 1, "requests submitted");
	PROBE_SAME(submit(shared, ready, 22), 1, "requests submitted");
	pthread_join(thread, NULL);
	work(shared, 11);
}

static int ends[2];

static int other_process(void *unused)
{
	char byte;
	(void)unused;
	return read(ends[0], &byte, 1) == 1 && submit(shared, ready, 31) == 1 ? 35 : 1;
}

static void share(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	int status = 0;
	shared = set_up(9);
	work(shared, 140);
	PROBE(pipe(ends));
	pid_t child = PROBE(clone(other_process, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL));
	const struct place place = look(shared);

	probe_save();

	same(&place);
	PROBE_SAME(write(ends[1], "x", 1), 1, "write to the other process");
	PROBE_SAME(waitpid(child, &status, 0), child, "the other process");
	PROBE_SAME(WEXITSTATUS(status), 35, "what it could do");
	PROBE_SAME(take(shared).data, 31, "event of the other process's request");
	work(shared, 200);
}

static void confine(void)
{
	cpu_set_t all, one, now;
	int last = 0;
	aio_context_t context = set_up(60);
	PROBE(sched_getaffinity(0, sizeof all, &all));
	const long slots = count_slots(context);
	CPU_ZERO(&one);
	/* Each processor keeps some. */
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all)) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			PROBE(sched_setaffinity(0, sizeof one, &one));
			work(context, 3);
			last = cpu;
		}
	const struct place place = look(context);

	probe_save();

	PROBE(sched_getaffinity(0, sizeof now, &now));
	PROBE_TRUE(CPU_COUNT(&now) == 1 && CPU_ISSET(last, &now), "where it may run");
	same(&place);
	PROBE(sched_setaffinity(0, sizeof all, &all));
	PROBE_SAME(count_slots(context), slots, "slots");
	work(context, 200);
}

static void many(void)
{
	enum { MANY = 100, LARGE = 5000 };
	aio_context_t all[MANY + 1];
	struct place places[MANY + 1];
	for (unsigned i = 0; i < MANY; i++) {
		all[i] = set_up(1 + i);
		work(all[i], 3 * i);
	}
	all[MANY] = set_up(LARGE);
	work(all[MANY], 777);
	for (unsigned i = 0; i < LARGE; i++)
		PROBE_SAME(submit(all[MANY], ready, i), 1, "requests submitted");
	for (unsigned i = 0; i <= MANY; i++)
		places[i] = look(all[i]);

	probe_save();

	for (unsigned i = 0; i <= MANY; i++)
		same(&places[i]);
	for (unsigned i = 0; i < LARGE; i++)
		PROBE_SAME(take(all[MANY]).data, i, "event");
	for (unsigned i = 0; i <= MANY; i++)
		work(all[i], 2 * i);
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "plain";
	ready = PROBE(eventfd(5, 0));
	waiting = PROBE(eventfd(0, 0));
	if (!strcmp(variant, "odd"))
		odd();
	else if (!strcmp(variant, "waiting"))
		wait_in_vain();
	else if (!strcmp(variant, "shared"))
		share();
	else if (!strcmp(variant, "confined"))
		confine();
	else if (!strcmp(variant, "many"))
		many();
	else
		plain();
	return probe_end();
}
