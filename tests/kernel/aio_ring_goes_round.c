/* SPDX-License-Identifier: Apache-2.0 */
/* An AIO ring can be filled and brought back to where it was, with events that nobody has read: its tail goes once around, and what is posted after the head was put back counts as not
 * read (fs/aio.c aio_complete, refill_reqs_available). Polls of an eventfd are all done when write(2) to it returns. mremap(2) of the ring renames the context. System calls can do
 * the sums on the way: an eventfd that begins at 4096 adds what is written to it, but no -errno, and futex(2) fails where a word is another one. */
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "fact.h"

struct ring {
	uint32_t id, slots, head, tail, magic, compatible, incompatible, header_size;
	struct io_event events[];
};

static struct ring *ring;

static long submit(int fd, uint64_t cookie, long most)
{
	struct iocb request = { .aio_data = cookie, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)fd, .aio_buf = POLLIN }, *one = &request;
	long taken = 0;
	while (taken < most && syscall(SYS_io_submit, ring, 1, &one) == 1)
		taken++;
	return taken;
}

static long fill_everywhere(int fd)
{
	cpu_set_t all;
	long taken = 0;
	fact_need(sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (CPU_ISSET(cpu, &all) && sched_setaffinity(0, sizeof one, &one) == 0)
			taken += submit(fd, 1, LONG_MAX);
	}
	sched_setaffinity(0, sizeof all, &all);
	return taken;
}

/* Once around, with @unread events that keep their places. */
static bool go_round(int ready, uint32_t unread)
{
	const uint32_t head = ring->head, tail = ring->tail;
	const uint64_t one = 1;
	int waiting = (int)fact_need(eventfd(0, EFD_CLOEXEC), "eventfd");
	long taken = fill_everywhere(waiting), more = (long)ring->slots - (long)unread - taken;
	fact_need(write(waiting, &one, sizeof one), "write");
	bool at_once = ring->tail == (tail + (uint32_t)taken) % ring->slots;
	close(waiting);
	ring->head = ring->tail;
	long rest = submit(ready, 1, more);
	bool back = rest == more && ring->tail == head;
	ring->head = head;
	long posted = submit(ready, 1, unread);
	return fact(at_once && back && posted == unread && ring->tail == tail, "%ld polls are done at once, and %ld bring the tail round, %u of them not read", taken, rest + posted,
		    unread);
}

static bool rename_by_moving(void)
{
	const size_t size = sizeof *ring + ring->slots * sizeof(struct io_event);
	void *place = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *before = ring;
	if (place == MAP_FAILED || mremap(ring, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED)
		fact_skip("mremap: %s", strerror(errno));
	ring = place;
	return fact(syscall(SYS_io_submit, place, 0, NULL) == 0 && syscall(SYS_io_submit, before, 0, NULL) == -1, "a context is called by where its ring was moved to");
}

static bool sums(void)
{
	const uint64_t seven = 7, failed = (uint64_t)-EAGAIN, worst = (uint64_t)-4095;
	uint64_t sum = 0;
	uint32_t other = 0;
	int adder = (int)fact_need(eventfd(4096, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
	fact_need(write(adder, &seven, sizeof seven), "write");
	bool adds = write(adder, &failed, sizeof failed) == -1 && write(adder, &worst, sizeof worst) == -1;
	adds &= write(adder, &seven, sizeof seven) == sizeof seven && read(adder, &sum, sizeof sum) == sizeof sum && sum == 4096 + 14;
	bool equal = syscall(SYS_futex, &sum, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 0, &other, 4110) == 0;
	bool unequal = syscall(SYS_futex, &sum, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 0, &other, 4111) == -1 && errno == EAGAIN;
	close(adder);
	return fact(adds && equal && unequal, "an eventfd adds and futex compares");
}

int main(void)
{
	enum { ASKED = 100, WORKED = 177 };
	const uint32_t unread[] = { 0, 1, 40, 90 };
	struct io_event event;
	aio_context_t context = 0;
	int ready = (int)fact_need(eventfd(1, EFD_CLOEXEC), "eventfd");
	fact_need(syscall(SYS_io_setup, ASKED, &context), "io_setup");
	ring = (struct ring *)(uintptr_t)context;
	for (int i = 0; i < WORKED; i++) {
		fact_need(submit(ready, 1, 1) == 1 ? 0 : -1, "io_submit");
		fact_need(syscall(SYS_io_getevents, ring, 1, 1, &event, NULL), "io_getevents");
	}
	bool holds = rename_by_moving();
	holds &= sums();
	uint32_t there = 0;
	for (size_t i = 0; i < sizeof unread / sizeof *unread; i++) {
		there += (uint32_t)submit(ready, 2, unread[i] - there);
		holds &= go_round(ready, there);
		holds &= go_round(ready, there);
	}
	/* No slot was lost, and none won. */
	for (; there; there--)
		fact_need(syscall(SYS_io_getevents, ring, 1, 1, &event, NULL), "io_getevents");
	int waiting = (int)fact_need(eventfd(0, EFD_CLOEXEC), "eventfd");
	long free_now = fill_everywhere(waiting), first = (long)ring->slots - 1;
	holds &= fact(free_now <= first && free_now > first - first / 4, "%ld of %ld slots are free afterwards", free_now, first);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
