/* SPDX-License-Identifier: Apache-2.0 */
/* Cairn's own descriptors of what is being made, by id (kinds/kind.h). */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kinds/kind.h"
#include "rebuild/janitor.h"

static struct workshop_item *item(struct workshop *workshop, uint32_t id)
{
	while (workshop->items.count <= id)
		vec_add(&workshop->items);
	return &workshop->items.at[id];
}

int workshop_fd(const struct workshop *workshop, uint32_t id)
{
	return id < workshop->items.count ? workshop->items.at[id].fd - 1 : -1;
}

int workshop_second(const struct workshop *workshop, uint32_t id)
{
	return id < workshop->items.count ? workshop->items.at[id].second - 1 : -1;
}

void workshop_put(struct workshop *workshop, uint32_t id, int fd)
{
	item(workshop, id)->fd = fd + 1;
}

void workshop_put_second(struct workshop *workshop, uint32_t id, int fd)
{
	item(workshop, id)->second = fd + 1;
}

void workshop_put_memory(struct workshop *workshop, uint32_t id, void *memory, uint64_t size)
{
	item(workshop, id)->memory = memory;
	item(workshop, id)->size = size;
}

void *workshop_memory(const struct workshop *workshop, uint32_t id, uint64_t *ret_size)
{
	if (id >= workshop->items.count || !workshop->items.at[id].memory)
		return NULL;
	*ret_size = workshop->items.at[id].size;
	return workshop->items.at[id].memory;
}

void workshop_discard(struct workshop *workshop, uint32_t id)
{
	item(workshop, id)->unwanted = true;
}

bool workshop_is_unwanted(const struct workshop *workshop, uint32_t id)
{
	return id < workshop->items.count && workshop->items.at[id].unwanted;
}

void workshop_put_terminal(struct workshop *workshop, uint64_t device, const char *path)
{
	struct workshop_terminal *terminal = vec_add(&workshop->terminals);
	terminal->device = device;
	snprintf(terminal->path, sizeof terminal->path, "%s", path);
}

const char *workshop_terminal(const struct workshop *workshop, uint64_t device)
{
	for (size_t i = 0; device && i < workshop->terminals.count; i++)
		if (workshop->terminals.at[i].device == device)
			return workshop->terminals.at[i].path;
	return NULL;
}

bool workshop_will_be(const struct workshop *workshop, pid_t pid)
{
	for (size_t i = 0; i < workshop->pids.count; i++)
		if (workshop->pids.at[i] == pid)
			return true;
	return false;
}

void workshop_on_failure(struct workshop *workshop, void (*undo)(uint64_t what), uint64_t what)
{
	struct workshop_undo *one = memory_new(sizeof *one);
	*one = (struct workshop_undo){ undo, what, workshop->undo };
	__atomic_store_n(&workshop->undo, one, __ATOMIC_RELEASE);
	janitor_hire(workshop);
}

int workshop_separate_ipc(struct workshop *workshop, struct fault *fault)
{
	/* PID 1 here is the init of a private namespace, whose saves are made by children of its own. */
	if (getpid() != 1 || workshop->own_ipc)
		return 0;
	if (unshare(CLONE_NEWIPC) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "make an IPC namespace: %s", strerror(errno));
	workshop->own_ipc = true;
	return 0;
}

void workshop_fail(struct workshop *workshop)
{
	for (const struct workshop_undo *one = workshop->undo; one; one = one->before)
		one->undo(one->what);
}

void workshop_keep(struct workshop *workshop)
{
	struct workshop_undo *list = __atomic_exchange_n(&workshop->undo, NULL, __ATOMIC_ACQ_REL);
	while (list) {
		struct workshop_undo *before = list->before;
		free(list);
		list = before;
	}
}

bool workshop_inherits_action(const struct workshop *workshop, int signal)
{
	struct sigaction action;
	(void)workshop;
	/* glibc refuses its own two real-time signals; Cairn leaves them alone. */
	return sigaction(signal, NULL, &action) == 0 && action.sa_handler != SIG_DFL;
}

pid_t workshop_task(const struct workshop *workshop, uint32_t old_id)
{
	for (size_t i = 0; i < workshop->numbers.count; i++)
		if (workshop->numbers.at[i].old_id == old_id)
			return workshop->numbers.at[i].new_id;
	return (pid_t)old_id;
}

const ProtobufCMessage *workshop_file(const struct workshop *workshop, uint32_t id,
				      const ProtobufCMessageDescriptor *descriptor)
{
	const ProtobufCMessage *message = id < workshop->file_space ? workshop->files[id] : NULL;
	return message && (!descriptor || message->descriptor == descriptor) ? message : NULL;
}

void workshop_births(struct workshop *workshop)
{
	while (workshop->at_births.count) {
		struct scoped_end end = workshop->at_births.at[--workshop->at_births.count];
		end.end(end.thing);
	}
}

int workshop_own_status(struct workshop *workshop, const struct proc_status **ret_status, struct fault *fault)
{
	int rc = workshop->own.is_known ? 0 : proc_status_read(getpid(), 0, &workshop->own.arena, &workshop->own.status, fault);
	workshop->own.is_known = rc == 0;
	*ret_status = &workshop->own.status;
	return rc;
}

void workshop_finish(struct workshop *workshop)
{
	arena_finish(&workshop->own.arena);
	vec_finish(&workshop->numbers);
	workshop_births(workshop);
	while (workshop->at_end.count) {
		struct scoped_end end = workshop->at_end.at[--workshop->at_end.count];
		end.end(end.thing);
	}
	vec_finish(&workshop->at_births);
	vec_finish(&workshop->at_end);
	for (size_t i = 0; i < workshop->items.count; i++) {
		if (workshop->items.at[i].fd > 0)
			close(workshop->items.at[i].fd - 1);
		if (workshop->items.at[i].second > 0)
			close(workshop->items.at[i].second - 1);
	}
	vec_finish(&workshop->items);
	free(workshop->vdso.code);
	workshop_keep(workshop);
	janitor_dismiss(workshop);
	vec_finish(&workshop->pids);
	vec_finish(&workshop->terminals);
}
