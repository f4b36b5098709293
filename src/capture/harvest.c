/* SPDX-License-Identifier: Apache-2.0 */
/* What a capture gathers (kinds/kind.h). Lives until the image is written. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kinds/kind.h"

void harvest_add(struct harvest *harvest, const struct kind *kind, ProtobufCMessage *message)
{
	struct record *record = vec_add(&harvest->records);
	record->kind = kind;
	record->message = message;
}

uint32_t harvest_new_id(struct harvest *harvest)
{
	return ++harvest->last_id;
}

uint32_t harvest_object(struct harvest *harvest, uint64_t device, uint64_t inode, bool *ret_new)
{
	for (size_t i = 0; i < harvest->objects.count; i++) {
		if (harvest->objects.at[i].device == device && harvest->objects.at[i].inode == inode) {
			*ret_new = false;
			return harvest->objects.at[i].id;
		}
	}
	struct harvest_object *object = vec_add(&harvest->objects);
	*object = (struct harvest_object){ device, inode, harvest_new_id(harvest) };
	*ret_new = true;
	return object->id;
}

void harvest_contents(struct harvest *harvest, uint32_t space, int fd, uint64_t size)
{
	struct contents *contents = vec_add(&harvest->contents);
	*contents = (struct contents){ .space = space, .fd = fd, .size = size };
}

/* Of a process, or of a thread of one whose first thread has ended, and with it the descriptors that a pidfd of the process leads to. */
static int pidfd_open_any(pid_t pid)
{
	enum { OF_THREAD = O_EXCL }; /* PIDFD_THREAD, 6.9 */
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? (int)syscall(SYS_pidfd_open, pid, OF_THREAD) : fd;
}

/* One more than the descriptor, 0: none. Several threads may come to it at the same time. */
static int pidfd_of(const struct frozen_file *file)
{
	int known = file->pidfd ? __atomic_load_n(file->pidfd, __ATOMIC_ACQUIRE) : 0;
	if (!file->pidfd || known)
		return known;
	int opened = pidfd_open_any(file->pid) + 1;
	if (opened && !__atomic_compare_exchange_n(file->pidfd, &known, opened, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		close(opened - 1);
		return known;
	}
	return opened;
}

bool harvest_has_process(const struct harvest *harvest, pid_t pid)
{
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->pid == pid)
			return true;
	return false;
}

int frozen_file_own(struct frozen_file *file, int *ret_fd, struct fault *fault)
{
	int pidfd = file->own < 0 ? pidfd_of(file) : 0;
	if (pidfd)
		file->own = (int)syscall(SYS_pidfd_getfd, pidfd - 1, file->fd, 0);
	if (file->own < 0) {
		int error = errno;
		/* A running program may have closed it since its link was read. */
		if (error == EBADF)
			return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "was closed meanwhile");
		return fault_set(fault, fault_class_of(error), error, "cannot look into it: %s", strerror(error));
	}
	*ret_fd = file->own;
	return 0;
}

void frozen_file_put(struct frozen_file *file)
{
	/* One in flight has no other descriptor. */
	if (file->own < 0 || file->carrier || file->keeps_own)
		return;
	close(file->own);
	file->own = -1;
}

char *frozen_file_fdinfo(const struct frozen_file *file)
{
	return memory_string(file->fdinfo);
}

static void process_finish(struct frozen_process *process)
{
	for (size_t i = 0; i < process->threads.count; i++)
		free(process->threads.at[i]->xstate);
	vec_finish(&process->threads);
	vec_finish(&process->descriptors);
	if (process->pidfd)
		close(process->pidfd - 1);
}

void harvest_close_files(struct harvest *harvest)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		if (file->own >= 0)
			close(file->own);
		file->own = -1;
	}
}

void harvest_finish(struct harvest *harvest)
{
	if (!harvest)
		return;
	while (harvest->at_end.count) {
		struct scoped_end end = harvest->at_end.at[--harvest->at_end.count];
		end.end(end.thing);
	}
	vec_finish(&harvest->at_end);
	for (size_t i = 0; i < harvest->processes.count; i++)
		process_finish(harvest->processes.at[i]);
	for (size_t i = 0; i < harvest->spaces.count; i++)
		maps_finish(&harvest->spaces.at[i]->maps);
	harvest_close_files(harvest);
	for (size_t i = 0; i < harvest->contents.count; i++) {
		if (harvest->contents.at[i].fd >= 0)
			close(harvest->contents.at[i].fd);
		vec_finish(&harvest->contents.at[i].views);
	}
	vec_finish(&harvest->processes);
	vec_finish(&harvest->spaces);
	vec_finish(&harvest->guards);
	vec_finish(&harvest->files);
	vec_finish(&harvest->sorted);
	vec_finish(&harvest->contents);
	vec_finish(&harvest->objects);
	vec_finish(&harvest->hidden);
	vec_finish(&harvest->records);
	fault_list_finish(&harvest->doubts);
	arena_finish(&harvest->arena);
}
