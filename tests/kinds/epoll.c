/* SPDX-License-Identifier: Apache-2.0 */
/* probe: epoll keeps its watches, their data, edge and one-shot modes, also nested */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

static int events_of(int epoll, struct epoll_event *ret_event)
{
	struct epoll_event events[8];
	int n = epoll_wait(epoll, events, 8, 0);
	if (n > 0)
		*ret_event = events[0];
	return n;
}

int main(void)
{
	int epoll = PROBE(epoll_create1(EPOLL_CLOEXEC)), outer = PROBE(epoll_create1(0));
	int level = PROBE(eventfd(0, EFD_NONBLOCK)), once = PROBE(eventfd(1, EFD_NONBLOCK));
	int edge[2];
	PROBE(pipe2(edge, O_NONBLOCK));
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 0xfeedfacedeadbeefu };
	PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, level, &event));
	event = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 0x1122334455667788u };
	PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, once, &event));
	PROBE_SAME(events_of(epoll, &event), 1, "set-up: the one shot");
	event = (struct epoll_event){ .events = EPOLLIN | EPOLLET | EPOLLRDHUP, .data.u64 = UINT64_MAX };
	PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, edge[0], &event));
	event = (struct epoll_event){ .events = EPOLLIN, .data.u64 = 42 };
	PROBE(epoll_ctl(outer, EPOLL_CTL_ADD, epoll, &event));

	probe_save();

	PROBE_SAME(events_of(epoll, &event), 0, "events before anything happens (the one shot is used up)");
	PROBE_SAME(fcntl(epoll, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	uint64_t one = 1;
	PROBE_SAME(write(level, &one, 8), 8, "write");
	PROBE_SAME(events_of(outer, &event), 1, "events of the outer epoll");
	PROBE_SAME(event.data.u64, 42, "data of the nested epoll");
	for (int i = 0; i < 2; i++) {
		PROBE_SAME(events_of(epoll, &event), 1, "events of the level-triggered watch");
		PROBE_SAME(event.data.u64, 0xfeedfacedeadbeefu, "data of the level-triggered watch");
	}
	PROBE_SAME(read(level, &one, 8), 8, "read");
	PROBE_SAME(write(edge[1], "x", 1), 1, "write");
	PROBE_SAME(events_of(epoll, &event), 1, "events of the edge-triggered watch");
	PROBE_SAME(event.data.u64, UINT64_MAX, "data of the edge-triggered watch");
	PROBE_SAME(events_of(epoll, &event), 0, "events of the edge-triggered watch the second time");
	event = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 9 };
	PROBE_SAME(epoll_ctl(epoll, EPOLL_CTL_MOD, once, &event), 0, "the used one-shot watch is there");
	PROBE_SAME(events_of(epoll, &event), 1, "events of the re-armed one shot");
	PROBE_SAME(event.data.u64, 9, "data of the re-armed one shot");
	return probe_end();
}
