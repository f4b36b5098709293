/* SPDX-License-Identifier: Apache-2.0 */
/* A process's descriptor table: which number is which open file description, and close-on-exec. Put back by rebuild/descriptors.c,
 * which hands over descriptors of Cairn's own. */
#include <errno.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	Cairn__FdTable *message = HARVEST_MESSAGE(harvest, Cairn__FdTable, cairn__fd_table__init);
	(void)batch, (void)note, (void)fault;
	if (!frozen_owns(process, SHARE_FILES))
		return 0;
	message->pid = (uint32_t)process->pid;
	message->entries = ARENA_ARRAY(&harvest->arena, Cairn__FdTable__Entry *, process->descriptors.count);
	message->n_entries = process->descriptors.count;
	for (size_t i = 0; i < process->descriptors.count; i++) {
		Cairn__FdTable__Entry *entry = HARVEST_MESSAGE(harvest, Cairn__FdTable__Entry,
							       cairn__fd_table__entry__init);
		entry->fd = (uint32_t)process->descriptors.at[i].fd;
		entry->file = process->descriptors.at[i].file->id;
		entry->close_on_exec = process->descriptors.at[i].close_on_exec;
		message->entries[i] = entry;
	}
	harvest_add(harvest, &kind_fd_table, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__FdTable *message = (const Cairn__FdTable *)base;
	for (size_t i = 0; i < message->n_entries; i++)
		if (message->entries[i]->fd > INT32_MAX - 1 ||
		    (i && message->entries[i]->fd <= message->entries[i - 1]->fd))
			return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: descriptors out of order", message->pid);
	return 0;
}

const struct kind kind_fd_table = {
	.name = "descriptor table",
	.tag = 24,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__fd_table__descriptor,
	.owner_field = "pid",
	.capture = capture,
	.check = check,
};
