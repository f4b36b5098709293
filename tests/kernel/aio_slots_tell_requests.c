/* SPDX-License-Identifier: Apache-2.0 */
/* The free slots of an AIO ring, taken on each processor in turn, tell exactly how many requests are under way: a whole number of what a processor takes at
 * once is free when none is (fs/aio.c get_reqs_available), and one less for each that is. */
#include <limits.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "fact.h"

enum { ASKED = 128, LEFT = 3 };

static aio_context_t ring;

/* Requests that wait for @fd; how many were taken. */
static long submit(int fd, long most)
{
	struct iocb request = { .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)fd, .aio_buf = POLLIN }, *one = &request;
	long taken = 0;
	while (taken < most && syscall(SYS_io_submit, ring, 1, &one) == 1)
		taken++;
	return taken;
}

static void release(int fd, long count)
{
	struct io_event event;
	uint64_t number = 1;
	fact_need(write(fd, &number, sizeof number), "write");
	while (count-- > 0)
		fact_need(syscall(SYS_io_getevents, ring, 1, 1, &event, NULL), "io_getevents");
	fact_need(read(fd, &number, sizeof number), "read");
}

static long fill_everywhere(int fd, const cpu_set_t *all)
{
	long taken = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (CPU_ISSET(cpu, all) && sched_setaffinity(0, sizeof one, &one) == 0)
			taken += submit(fd, LONG_MAX);
	}
	return taken;
}

/* Their numbers are from 0 up, or it cannot be tried. */
static long possible_processors(void)
{
	FILE *stream = fopen("/sys/devices/system/cpu/possible", "re");
	int first = -1, last = 0;
	int found = stream ? fscanf(stream, "%d-%d", &first, &last) : 0;
	if (stream)
		fclose(stream);
	if (found < 1 || first)
		fact_skip("which processors are possible");
	return last + 1;
}

int main(void)
{
	cpu_set_t all;
	int waiting = eventfd(0, EFD_CLOEXEC), filling = eventfd(0, EFD_CLOEXEC);
	const long processors = possible_processors();
	fact_need(sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
	if (CPU_COUNT(&all) != processors)
		fact_skip("not on all processors");
	fact_need(syscall(SYS_io_setup, ASKED, &ring), "io_setup");
	const long slots = ((const uint32_t *)(uintptr_t)ring)[1] - 1L;
	const long batch = slots / (processors * 4) ? slots / (processors * 4) : 1;
	bool holds = true;
	for (int turn = 0; turn < 4; turn++) {
		long left = turn % 2 ? submit(waiting, LEFT) : 0;
		long taken = fill_everywhere(filling, &all);
		release(filling, taken);
		holds &= fact(taken == slots - slots % batch - left, "%ld of %ld slots are free with %ld requests under way (batches of %ld)", taken, slots, left,
			      batch);
		if (left)
			release(waiting, left);
	}
	syscall(SYS_io_destroy, ring);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
