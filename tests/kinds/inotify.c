/* SPDX-License-Identifier: Apache-2.0 */
/* probe: inotify watches keep their numbers, masks and what they watch, also without a name, and new ones get new numbers */
#include "probe.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static char events[4096];

/* The next event's watch and mask; 0: none within a second. */
static uint32_t next(int fd, int *ret_watch, char *ret_name)
{
	static ssize_t size, at;
	struct pollfd poll_ = { .fd = fd, .events = POLLIN };
	if (at >= size) {
		at = 0;
		size = poll(&poll_, 1, 1000) == 1 ? read(fd, events, sizeof events) : 0;
		if (size <= 0)
			return 0;
	}
	const struct inotify_event *event = (const struct inotify_event *)(events + at);
	at += (ssize_t)sizeof *event + event->len;
	*ret_watch = event->wd;
	strcpy(ret_name, event->len ? event->name : "");
	return event->mask;
}

static void is_next(int fd, int watch, uint32_t mask, const char *name)
{
	int got = 0;
	char got_name[300];
	uint32_t got_mask = next(fd, &got, got_name);
	PROBE_SAME(got_mask, mask, "mask of an event");
	PROBE_SAME(got, watch, "watch of an event");
	PROBE_TRUE(got_mask == 0 || !strcmp(got_name, name), name);
}

static void watches(void)
{
	PROBE(mkdir("dir", 0700));
	PROBE(mkdir("dir/below", 0700));
	PROBE(symlink("nowhere", "dir/link"));
	int file = PROBE(open("dir/file", O_RDWR | O_CREAT, 0600)), gone = PROBE(open("gone", O_RDWR | O_CREAT, 0600));
	int fd = PROBE(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	int first = PROBE(inotify_add_watch(fd, "dir", IN_OPEN));
	PROBE(inotify_rm_watch(fd, first));
	char drain[64];
	PROBE(read(fd, drain, sizeof drain));
	int dir = PROBE(inotify_add_watch(fd, "dir", IN_CREATE | IN_DELETE | IN_EXCL_UNLINK));
	int once = PROBE(inotify_add_watch(fd, "dir/below", IN_CREATE | IN_ONESHOT | IN_ONLYDIR));
	int of_file = PROBE(inotify_add_watch(fd, "dir/file", IN_MODIFY));
	int link_ = PROBE(inotify_add_watch(fd, "dir/link", IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW));
	int nameless = PROBE(inotify_add_watch(fd, "gone", IN_MODIFY));
	PROBE(unlink("gone"));
	PROBE_SAME(dir, 2, "set-up: number of the second watch");

	probe_save();

	PROBE_SAME(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "flags");
	PROBE_SAME(read(fd, events, sizeof events), -1, "read without an event");
	int new = PROBE(open("dir/new", O_WRONLY | O_CREAT, 0600));
	PROBE(close(new));
	is_next(fd, dir, IN_CREATE, "new");
	PROBE(write(file, "x", 1));
	is_next(fd, of_file, IN_MODIFY, "");
	PROBE(mkdir("dir/below/one", 0700));
	is_next(fd, once, IN_CREATE | IN_ISDIR, "one");
	is_next(fd, once, IN_IGNORED, "");
	PROBE(write(gone, "x", 1));
	is_next(fd, nameless, IN_MODIFY, "");
	PROBE(unlink("dir/link"));
	is_next(fd, link_, IN_ATTRIB, "");
	is_next(fd, link_, IN_DELETE_SELF, "");
	is_next(fd, link_, IN_IGNORED, "");
	is_next(fd, dir, IN_DELETE, "link");
	int another = PROBE(inotify_add_watch(fd, ".", IN_OPEN));
	PROBE_TRUE(another > nameless, "a new watch has a new number");
	PROBE_SAME(inotify_rm_watch(fd, dir), 0, "removing a watch by its old number");
}

int main(void)
{
	watches();
	return probe_end();
}
