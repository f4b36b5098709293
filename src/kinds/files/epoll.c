/* SPDX-License-Identifier: Apache-2.0 */
/* epoll(7): the watches from fdinfo ("tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:2"). A watch is of an open file under a number; the
 * process that has this very file at that number adds it again. A watch whose file is nowhere at its number any more (closed there, kept alive
 * by a duplicate) is refused. The ready list is not state: what is ready is found ready again when it is added, which an
 * edge-triggered watch sees as one more edge. A disarmed one-shot watch has no events and stays so. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

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

/* The process in which @watched is the watched file; the owner of the epoll descriptor first. */
static pid_t find_watcher(const struct harvest *harvest, const struct frozen_file *file, int watched, int nth)
{
	if (kcmp_epoll_target(file->pid, watched, file->pid, file->fd, watched, nth) == 1)
		return file->pid;
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		if (process->pid != file->pid && !process->zombie && has_descriptor(process, watched) &&
		    kcmp_epoll_target(process->pid, watched, file->pid, file->fd, watched, nth) == 1)
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
		pid_t pid = find_watcher(harvest, file, fd, count_before(message, (uint32_t)fd));
		if (!pid)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "epoll: watches a file that was descriptor %d and is that no more, though a duplicate "
					 "keeps it open; try again when the program has closed it", fd);
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
		if (workshop_task(thread->process->workshop, watch->pid) != thread->process->pid)
			continue;
		struct epoll_event event = { .events = watch->events, .data.u64 = watch->data };
		batch_group(batch, 1, 64);
		struct batch_place place = batch_data(batch, &event, sizeof event);
		batch_call(batch, epoll_ctl, (uint64_t)fd, EPOLL_CTL_ADD, watch->fd, place.address);
	}
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
	.connect = connect_,
};
