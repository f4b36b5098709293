/* SPDX-License-Identifier: Apache-2.0 */
/* --fd N=FILE: the open file behind descriptor N of the root, wherever else in the tree it is shared, is another file here. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rebuild/plan.h"

static uint32_t file_behind(const struct plan *plan, int fd)
{
	const Cairn__FdTable *table = plan->processes.at[0]->descriptors;
	for (size_t i = 0; table && i < table->n_entries; i++)
		if ((int)table->entries[i]->fd == fd)
			return table->entries[i]->file;
	return 0;
}

int plan_redirect(struct plan *plan, int fd, const char *path, struct fault *fault)
{
	uint32_t id = file_behind(plan, fd);
	const ProtobufCMessage *message = NULL;
	for (size_t i = 0; id && i < plan->files.count; i++) {
		struct plan_record *record = &plan->files.at[i];
		if (kind_owner(record->kind, record->message) != id)
			continue;
		record->redirect = path;
		message = record->message;
	}
	for (size_t i = 0; message && i < plan->records.count; i++)
		if (plan->records.at[i].message == message)
			plan->records.at[i].redirect = path;
	return message ? 0 : fault_set(fault, FAULT_USAGE, EBADF, "--fd %d=%s: process %u has no descriptor %d; try `cairn inspect`", fd, path,
				       plan->processes.at[0]->process->pid, fd);
}

int redirect_make(struct workshop *workshop, const struct plan_record *record, struct fault *fault)
{
	enum { KEPT = O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC };
	int old = kind_open_flags(record->kind, record->message), flags = (old & O_PATH ? O_RDWR : old & KEPT) | O_CLOEXEC | O_NOCTTY;
	struct stat status;
	int fd = open(record->redirect, flags | ((flags & O_ACCMODE) == O_RDONLY ? 0 : O_CREAT), 0666);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s; try another --fd", record->redirect, strerror(errno));
	/* What is written goes behind what is there. */
	if ((flags & O_ACCMODE) != O_RDONLY && fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
		lseek(fd, 0, SEEK_END);
	workshop_put(workshop, kind_owner(record->kind, record->message), fd);
	return 0;
}
