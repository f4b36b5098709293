/* SPDX-License-Identifier: Apache-2.0 */
/* Does asynchronous I/O (io_setup(2)) and notices what is not right with it. Prints the number of its rounds now and then, and ends when there is a file "finish".
 *
 *	still  two contexts with nothing under way: their rings stay as they are to the last byte; if there is a file "restored", in all that counts
 *	stuck  one of whose requests waits for a pipe, until there is a file "release"
 *	work   one thread that reads, writes and polls, and one that polls timers and reads its ring without the kernel, as QEMU does: every request completes once, in its time */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 4096, FILES = 8, TIMERS = 5, UNREAD = 6 };

/* fs/aio.c struct aio_ring */
struct ring {
	uint32_t id, slots, head, tail, magic, compatible, incompatible, header_size;
	struct io_event events[];
};

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	printf("wrong: %s (%s)\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

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
	if (syscall(SYS_io_setup, requests, &context)) {
		printf("skip io_setup: %s\n", strerror(errno));
		exit(0);
	}
	return context;
}

static struct iocb poll_of(int fd, uint64_t cookie)
{
	return (struct iocb){ .aio_data = cookie, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)fd, .aio_buf = POLLIN };
}

static long submit(aio_context_t context, int fd, uint64_t cookie)
{
	struct iocb request = poll_of(fd, cookie), *one = &request;
	return syscall(SYS_io_submit, context, 1, &one);
}

static void expect(aio_context_t context, uint64_t cookie)
{
	struct io_event event = { 0 };
	need(syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1, "io_getevents");
	need(event.data == cookie, "whose event it is");
}

/* tests/kernel/aio_slots_tell_requests.c */
static long count_slots(aio_context_t context)
{
	cpu_set_t all;
	uint64_t number = 1;
	long taken = 0;
	int fd = eventfd(0, EFD_CLOEXEC);
	need(fd >= 0 && sched_getaffinity(0, sizeof all, &all) == 0, "count");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (!CPU_ISSET(cpu, &all) || sched_setaffinity(0, sizeof one, &one))
			continue;
		while (submit(context, fd, 5) == 1)
			taken++;
	}
	sched_setaffinity(0, sizeof all, &all);
	need(write(fd, &number, sizeof number) == sizeof number, "write");
	for (long i = 0; i < taken; i++)
		expect(context, 5);
	close(fd);
	return taken;
}

static bool is_there(const char *name)
{
	return access(name, F_OK) == 0;
}

static void say(uint64_t round)
{
	printf("round %llu\n", (unsigned long long)round);
	fflush(stdout);
}

static void nap(void)
{
	const struct timespec moment = { 0, 1000000 };
	nanosleep(&moment, NULL);
}

/* A context that has worked, with some events that were not read, and requests that wait. */
struct quiet {
	aio_context_t context;
	long slots;
	uint32_t unread, waiting;
	struct ring *copy;
};

static struct quiet make_quiet(unsigned requests, unsigned worked, uint32_t unread)
{
	struct quiet quiet = { .context = set_up(requests), .unread = unread };
	int fd = eventfd(1, EFD_CLOEXEC);
	quiet.slots = count_slots(quiet.context);
	for (unsigned i = 0; i < worked; i++) {
		need(submit(quiet.context, fd, i) == 1, "submit");
		expect(quiet.context, i);
	}
	for (uint32_t i = 0; i < unread; i++)
		need(submit(quiet.context, fd, 100 + i) == 1, "submit");
	close(fd);
	return quiet;
}

static void note(struct quiet *quiet)
{
	quiet->copy = malloc(size_of(quiet->context));
	memcpy(quiet->copy, ring_of(quiet->context), size_of(quiet->context));
}

/* Of what was read already, all but what the waiting requests may write over at any moment. */
static void check_quiet(const struct quiet *quiet)
{
	const struct ring *now = ring_of(quiet->context), *then = quiet->copy;
	const uint32_t kept = is_there("restored") ? quiet->unread : then->slots - quiet->waiting;
	need(now->head == then->head && now->tail == then->tail && now->slots == then->slots && now->magic == then->magic, "the ring is another one");
	for (uint32_t i = 0; i < kept; i++) {
		/* Behind the unread ones, from the oldest on. */
		uint32_t at = (then->head + i + (i < quiet->unread ? 0 : quiet->waiting)) % then->slots;
		need(!memcmp(&now->events[at], &then->events[at], sizeof now->events[at]), "an event is another one");
	}
}

static void end_quiet(const struct quiet *quiet)
{
	for (uint32_t i = 0; i < quiet->unread; i++)
		expect(quiet->context, 100 + i);
	need(count_slots(quiet->context) == quiet->slots, "slots");
}

static void still(void)
{
	struct quiet all[2] = { make_quiet(100, 333, UNREAD), make_quiet(700, 12, 0) };
	note(&all[0]);
	note(&all[1]);
	for (uint64_t round = 1; !is_there("finish"); round++) {
		for (int i = 0; i < 2; i++)
			check_quiet(&all[i]);
		say(round);
		nap();
	}
	for (int i = 0; i < 2; i++)
		end_quiet(&all[i]);
}

static void stuck(void)
{
	struct quiet quiet = make_quiet(100, 333, UNREAD);
	int ends[2];
	need(pipe(ends) == 0 && submit(quiet.context, ends[0], 100 + quiet.unread) == 1, "submit");
	quiet.waiting = 1;
	note(&quiet);
	uint64_t round = 1;
	for (; !is_there("release"); round++) {
		check_quiet(&quiet);
		say(round);
		nap();
	}
	need(write(ends[1], "x", 1) == 1, "write");
	quiet.unread++;
	for (; !is_there("finish"); round++) {
		say(round);
		nap();
	}
	end_quiet(&quiet);
}

/* ---- at work ---- */

static void *buffers[2 * FILES];


static void one_round(aio_context_t context, int file, const int ends[2], uint64_t round)
{
	struct iocb requests[FILES + 1], *list[FILES + 1];
	unsigned seen = 0, all = (1u << (FILES + 1)) - 1;
	bool writes = round & 1;
	for (int i = 0; i < FILES; i++) {
		if (writes)
			memset(buffers[i], (int)(round * 31 + (uint64_t)i), SIZE);
		requests[i] = (struct iocb){ .aio_data = (uint64_t)i, .aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file,
					     .aio_buf = (uintptr_t)buffers[i + (writes ? 0 : FILES)], .aio_nbytes = SIZE, .aio_offset = (int64_t)i * SIZE };
		list[i] = &requests[i];
	}
	requests[FILES] = poll_of(ends[0], FILES);
	list[FILES] = &requests[FILES];
	/* It waits for what is written after it. */
	need(syscall(SYS_io_submit, context, FILES + 1, list) == FILES + 1, "submit");
	need(write(ends[1], "x", 1) == 1, "write");
	while (seen != all) {
		struct io_event events[FILES + 1];
		const struct timespec time = { 20, 0 };
		long count = syscall(SYS_io_getevents, context, 1, FILES + 1, events, &time);
		need(count > 0, "io_getevents");
		for (long i = 0; i < count; i++) {
			need(events[i].data <= FILES && !(seen >> events[i].data & 1), "each request completes once");
			need(events[i].obj == (uintptr_t)&requests[events[i].data], "whose event it is");
			need(events[i].data == FILES ? events[i].res & POLLIN : events[i].res == SIZE, "result");
			seen |= 1u << events[i].data;
		}
	}
	char byte;
	need(read(ends[0], &byte, 1) == 1, "read");
	for (int i = 0; i < FILES && !writes; i++)
		need(!memcmp(buffers[i], buffers[i + FILES], SIZE), "what was read");
}

/* Reads the ring by itself, and says by the head alone what it has read. */
static void *watch_timers(void *unused)
{
	aio_context_t context = set_up(20);
	struct ring *ring = ring_of(context);
	int timers[TIMERS];
	uint64_t expected[TIMERS] = { 0 }, round = 0;
	const long slots = count_slots(context);
	uint32_t head = ring->head;
	for (int i = 0; i < TIMERS; i++)
		need((timers[i] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) >= 0, "timerfd");
	while (!is_there("finish")) {
		int done = 0;
		round++;
		for (int i = 0; i < TIMERS; i++) {
			const struct itimerspec time = { .it_value.tv_nsec = 1 + (long)((round * 7919777 + (uint64_t)i * 10472977) % 25000000) };
			expected[i] = round * TIMERS + (uint64_t)i;
			need(timerfd_settime(timers[i], 0, &time, NULL) == 0 && submit(context, timers[i], expected[i]) == 1, "submit a timer");
		}
		while (done < TIMERS) {
			need(ring->head == head, "head");
			for (uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE); head != tail; head = (head + 1) % ring->slots) {
				const struct io_event *event = &ring->events[head];
				uint64_t which = event->data - round * TIMERS, ticks;
				need(which < TIMERS && expected[which] == event->data && event->res & POLLIN, "event of a timer");
				need(read(timers[which], &ticks, sizeof ticks) == sizeof ticks && ticks == 1, "timer");
				expected[which] = 0;
				done++;
			}
			__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
		}
	}
	need(count_slots(context) == slots, "slots of the one with timers");
	return unused;
}

static void work(void)
{
	aio_context_t context = set_up(64);
	const long slots = count_slots(context);
	int file = open("data", O_RDWR | O_CREAT | O_DIRECT, 0600), ends[2];
	pthread_t thread;
	if (file < 0)
		file = open("data", O_RDWR | O_CREAT, 0600);
	need(file >= 0 && pipe(ends) == 0, "open");
	for (int i = 0; i < 2 * FILES; i++)
		need(posix_memalign(&buffers[i], SIZE, SIZE) == 0, "memory");
	need(pthread_create(&thread, NULL, watch_timers, NULL) == 0, "pthread_create");
	for (uint64_t round = 1; !is_there("finish"); round++) {
		one_round(context, file, ends, round);
		if (round % 50 == 0)
			say(round);
	}
	need(pthread_join(thread, NULL) == 0, "pthread_join");
	need(count_slots(context) == slots, "slots");
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "still";
	if (!strcmp(mode, "still"))
		still();
	else if (!strcmp(mode, "stuck"))
		stuck();
	else
		work();
	printf("all right\n");
	return 0;
}
