/* SPDX-License-Identifier: Apache-2.0 */
/* variant watches: epoll keeps its watches, their data, edge and one-shot modes, also nested */
/* variant closed: epoll keeps watches of files whose descriptors were closed, and two under one number; used one-shots stay used */
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

/* What is watched is an open file: its number may be another file's by now, if a duplicate keeps it open. */
static void closed(void)
{
	int epoll = PROBE(epoll_create1(0)), pipes[3][2];
	for (int i = 0; i < 3; i++)
		PROBE(pipe2(pipes[i], O_NONBLOCK));
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 100 };
	int number = PROBE(dup(pipes[0][0]));
	PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event));
	PROBE(dup2(pipes[1][0], number));
	event.data.u64 = 101;
	PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event));
	PROBE(close(number));
	/* A used one-shot of a file that can be read; its other end is closed after the restore. */
	int used = PROBE(dup(pipes[2][0]));
	event = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 102 };
	PROBE(write(pipes[2][1], "x", 1));
	PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, used, &event));
	PROBE_SAME(events_of(epoll, &event), 1, "set-up: the one shot");

	probe_save();

	PROBE_SAME(close(pipes[2][1]), 0, "close");
	PROBE_SAME(events_of(epoll, &event), 0, "events, one of them a hang-up of a used one-shot");
	PROBE_SAME(write(pipes[0][1], "x", 1), 1, "write");
	PROBE_SAME(events_of(epoll, &event), 1, "events of the first file");
	PROBE_SAME(event.data.u64, 100, "data of the first file");
	char byte;
	PROBE_SAME(read(pipes[0][0], &byte, 1), 1, "read");
	PROBE_SAME(write(pipes[1][1], "x", 1), 1, "write");
	PROBE_SAME(events_of(epoll, &event), 1, "events of the second file");
	PROBE_SAME(event.data.u64, 101, "data of the second file");
	PROBE_SAME(read(pipes[1][0], &byte, 1), 1, "read");
	PROBE_SAME(close(pipes[0][0]), 0, "close");
	PROBE_SAME(close(pipes[1][0]), 0, "close");
	event = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 103 };
	PROBE_SAME(epoll_ctl(epoll, EPOLL_CTL_MOD, used, &event), 0, "the used one-shot is there");
	PROBE_SAME(events_of(epoll, &event), 1, "events of the re-armed one-shot");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "closed")) {
		closed();
		return probe_end();
	}
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
