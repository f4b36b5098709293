/* SPDX-License-Identifier: Apache-2.0 */
/* epoll(7): the watches from fdinfo ("tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:2"). A watch is of an open file under a number; the
 * process that has this very file at that number adds it again. One whose file is nowhere at its number any more (closed there, kept alive
 * by a duplicate) is added by a child of Cairn's that has it there. The ready list is not state: what is ready is found ready again when it
 * is added, which an edge-triggered watch sees as one more edge. A disarmed one-shot watch has no events, but adding one always adds EPOLLERR and
 * EPOLLHUP (fs/eventpoll.c do_epoll_ctl): the same child lets it report something at once, where the file is ready for anything, which
 * disarms it again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/kcmp.h"
#include "kinds/files/open_file.h"
#include "kinds/table.h"

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, "anon_inode:[eventpoll]");
}

static bool parse_watch(const char *value, int *ret_fd, unsigned *ret_events, unsigned long long *ret_data)
{
	return sscanf(value, "%d events: %x data: %llx", ret_fd, ret_events, ret_data) == 3;
}

static bool has_descriptor(const struct frozen_process *process, int fd)
{
	size_t low = 0, high = process->descriptors.count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (process->descriptors.at[middle].fd < fd)
			low = middle + 1;
		else
			high = middle;
	}
	return low < process->descriptors.count && process->descriptors.at[low].fd == fd;
}

/* What a disarmed one-shot watch still has. */
static bool is_disarmed(uint32_t events)
{
	return (events & EPOLLONESHOT) && !(events & ~(uint32_t)(EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE));
}

/* The watched file, by whatever descriptor it has; 0: none in the tree. */
static uint32_t find_watched(const struct harvest *harvest, const struct frozen_file *file, const char *value, int watched, int nth)
{
	unsigned long long inode = 0;
	const char *at = strstr(value, "ino:");
	if (at)
		sscanf(at, "ino:%llx", &inode);
	for (size_t i = 0; i < harvest->files.count; i++) {
		const struct frozen_file *other = harvest->files.at[i];
		if ((!at || other->stat.st_ino == inode) &&
		    kcmp_epoll_target(other->pid, other->fd, file->pid, file->fd, watched, nth) == 1)
			return other->id;
	}
	return 0;
}

/* The process in which @watched is the watched file; the owner of the epoll descriptor first. */
static pid_t find_watcher(const struct harvest *harvest, const struct frozen_file *file, int watched, int nth)
{
	for (int others = 0; others < 2; others++)
		for (size_t i = 0; i < harvest->processes.count; i++) {
			const struct frozen_process *process = harvest->processes.at[i];
			if ((process->view != file->pid) == others && !process->zombie && has_descriptor(process, watched) &&
			    kcmp_epoll_target(process->view, watched, file->pid, file->fd, watched, nth) == 1)
				return process->pid;
		}
	return 0;
}

/* How many earlier watches have the same number (of other files)? */
static int count_before(const Cairn__Epoll *message, uint32_t fd)
{
	int count = 0;
	for (size_t i = 0; i < message->n_watches; i++)
		count += message->watches[i]->fd == fd;
	return count;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Epoll *message = HARVEST_MESSAGE(harvest, Cairn__Epoll, cairn__epoll__init);
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	size_t space = 0;
	for (const char *at = text; (at = strstr(at, "tfd:")); at++)
		space++;
	message->watches = ARENA_ARRAY(&harvest->arena, Cairn__Epoll__Watch *, space);
	while (fdinfo_next(&cursor, &key, &value)) {
		int fd;
		unsigned events;
		unsigned long long data;
		if (strcmp(key, "tfd") || !parse_watch(value, &fd, &events, &data))
			continue;
		Cairn__Epoll__Watch *watch = HARVEST_MESSAGE(harvest, Cairn__Epoll__Watch, cairn__epoll__watch__init);
		int nth = count_before(message, (uint32_t)fd);
		pid_t pid = find_watcher(harvest, file, fd, nth);
		watch->file = pid && !is_disarmed(events) ? 0 : find_watched(harvest, file, value, fd, nth);
		if (!pid && !watch->file)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "epoll: watches a file that was descriptor %d and that no process of the tree has any more; try "
					 "again when all have closed it", fd);
		watch->fd = (uint32_t)fd;
		watch->events = events;
		watch->data = data;
		watch->pid = (uint32_t)pid;
		message->watches[message->n_watches++] = watch;
	}
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_epoll, &message->base);
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Epoll *message = (const Cairn__Epoll *)base;
	int fd = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "epoll: %s", strerror(errno));
	workshop_put(workshop, message->open->file, fd);
	return 0;
}

/* Called for each process that has the descriptor: each adds the watches of its own. */
static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch,
		    struct fault *fault)
{
	const Cairn__Epoll *message = (const Cairn__Epoll *)base;
	(void)fault;
	for (size_t i = 0; i < message->n_watches; i++) {
		const Cairn__Epoll__Watch *watch = message->watches[i];
		if (watch->file || workshop_task(thread->process->workshop, watch->pid) != thread->process->pid)
			continue;
		struct epoll_event event = { .events = watch->events, .data.u64 = watch->data };
		batch_group(batch, 1, 64);
		struct batch_place place = batch_data(batch, &event, sizeof event);
		batch_call(batch, epoll_ctl, (uint64_t)fd, EPOLL_CTL_ADD, watch->fd, place.address);
	}
	return 0;
}

/* ---- what no process can add ---- */

/* @file gets the number, and keeps it until the child ends. */
static int add_under_number(int epoll, int file, const Cairn__Epoll__Watch *watch)
{
	bool disarmed = is_disarmed(watch->events);
	struct epoll_event event = { .events = watch->events | (disarmed ? EPOLLIN | EPOLLOUT : 0), .data.u64 = watch->data }, seen;
	int number = (int)watch->fd;
	if ((file != number && dup2(file, number) < 0) || epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event) < 0)
		return -errno;
	/* It reported something: the kernel has disarmed it. It is the only one that is armed. */
	if (!disarmed || epoll_wait(epoll, &seen, 1, 0) == 1)
		return 0;
	event.events = watch->events;
	return epoll_ctl(epoll, EPOLL_CTL_MOD, number, &event) < 0 ? -errno : 0;
}

/* Copies above all numbers that watches have, so that none of them is overwritten. */
static int add_watches(const struct workshop *workshop, const Cairn__Epoll *message)
{
	int highest = 0, rc = 0;
	for (size_t i = 0; i < message->n_watches; i++)
		if (message->watches[i]->file && (int)message->watches[i]->fd > highest)
			highest = (int)message->watches[i]->fd;
	int epoll = fcntl(workshop_fd(workshop, message->open->file), F_DUPFD_CLOEXEC, highest + 1);
	if (epoll < 0)
		return -errno;
	/* Disarmed ones first: they are reported once, when nothing else can be. */
	for (int disarmed = 1; disarmed >= 0; disarmed--)
		for (size_t i = 0; rc == 0 && i < message->n_watches; i++) {
			const Cairn__Epoll__Watch *watch = message->watches[i];
			if (!watch->file || is_disarmed(watch->events) != disarmed)
				continue;
			int file = fcntl(workshop_fd(workshop, watch->file), F_DUPFD_CLOEXEC, highest + 1);
			rc = file < 0 ? -errno : add_under_number(epoll, file, watch);
			close(file);
		}
	return rc;
}

/* In a child, where any number is free. Its end takes no watch away: others have the files. */
static int settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Epoll *message = (const Cairn__Epoll *)base;
	size_t own = 0;
	for (size_t i = 0; i < message->n_watches; i++)
		own += message->watches[i]->file != 0;
	if (!own)
		return 0;
	int status = 0;
	pid_t child = fork();
	if (child == 0)
		_exit(-add_watches(workshop, message));
	if (child < 0 || waitpid(child, &status, __WALL) < 0 || status != 0)
		return fault_set(fault, FAULT_FAILED, WIFEXITED(status) ? WEXITSTATUS(status) : EIO, "epoll %u: add its watches: %s",
				 message->open->file, strerror(WIFEXITED(status) ? WEXITSTATUS(status) : EIO));
	return 0;
}

const struct kind kind_epoll = {
	.name = "epoll",
	.tag = 53,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__epoll__descriptor,
	.owner_field = "open",
	.probe = probe,
	.capture_file = capture_file,
	.make = make,
	.settle = settle,
	.connect = connect_,
};
