/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a ring of asynchronous I/O is refused by name, and its requests and events are not touched */
/* refusable: asynchronous I/O */
#include "probe.h"

#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>

static void submit(aio_context_t ring, int fd, uint64_t cookie)
{
	struct iocb request = { .aio_data = cookie, .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)fd, .aio_buf = POLLIN }, *one = &request;
	PROBE_SAME(syscall(SYS_io_submit, ring, 1, &one), 1, "set-up");
}

int main(void)
{
	aio_context_t ring = 0;
	struct io_event events[3];
	uint64_t number = 1;
	if (syscall(SYS_io_setup, 77, &ring))
		probe_skip("io_setup: %s", strerror(errno));
	int ready = PROBE(eventfd(5, 0)), waiting = PROBE(eventfd(0, 0));
	submit(ring, ready, 11);
	submit(ring, waiting, 12);

	probe_save();

	PROBE(write(waiting, &number, sizeof number));
	PROBE_SAME(syscall(SYS_io_getevents, ring, 2, 3, events, NULL), 2, "events");
	PROBE_SAME(events[0].data, 11, "the event that was there");
	PROBE_SAME(events[1].data, 12, "the event of the request that was under way");
	return probe_end();
}
