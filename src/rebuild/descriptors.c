/* SPDX-License-Identifier: Apache-2.0 */
/* Handing descriptors over. A newborn has none but the inbox, whose number is above all that it will have; what it receives gets
 * the lowest free numbers, 0, 1, 2 ... in order. Sent in ascending order of the numbers they belong at, each lies at or
 * below its place, so that moving them from the last to the first never overwrites one. What SCM_RIGHTS does not take (an io_uring, 6.7: net/core/scm.c
 * scm_fp_copy) the newborn fetches from Cairn itself (pidfd_getfd(2)), so that it comes to the same place. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "rebuild/newborn.h"

enum { AT_ONCE = 253 }; /* SCM_MAX_FD, include/net/scm.h */

static int send_some(int outbox, const int *fds, size_t count, struct fault *fault)
{
	char byte = 0;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(AT_ONCE * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	if (sendmsg(outbox, &message, MSG_NOSIGNAL) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "hand over descriptors: %s", strerror(errno));
	return 0;
}

/* *@ret_first: the number that the first one got. */
static int receive_some(struct rebuild *rebuild, struct rebuild_process *process, size_t count, int *ret_first, struct fault *fault)
{
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	struct batch_place byte = batch_room(&batch, 1);
	struct batch_place control = batch_room(&batch, CMSG_SPACE(AT_ONCE * sizeof(int)));
	struct iovec iov = { (void *)(uintptr_t)byte.address, 1 };
	struct batch_place iov_place = batch_data(&batch, &iov, sizeof iov);
	struct msghdr message = {
		.msg_iov = (void *)(uintptr_t)iov_place.address, .msg_iovlen = 1,
		.msg_control = (void *)(uintptr_t)control.address, .msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct batch_place message_place = batch_data(&batch, &message, sizeof message);
	batch_call(&batch, recvmsg, (uint64_t)rebuild->inbox_number, message_place.address, MSG_DONTWAIT);
	int rc = newborn_run(&process->threads.at[0]->newborn, &batch, fault);
	if (rc == 0) {
		struct msghdr got;
		memcpy(&got, batch_bytes(&batch, message_place), sizeof got);
		if (got.msg_flags & MSG_CTRUNC)
			rc = fault_set(fault, FAULT_FAILED, EMFILE,
				       "process %d: has too few descriptors here; try to raise `ulimit -n`",
				       process->newborn.pid);
		memcpy(ret_first, (const uint8_t *)batch_bytes(&batch, control) + CMSG_LEN(0), sizeof *ret_first);
	}
	batch_finish(&batch);
	return rc;
}

/* The newborn looks for Cairn's descriptor @fd through @pidfd, a number of its own where that one is to be. */
static int fetch_by(struct rebuild_process *process, int pidfd, int fd, struct fault *fault)
{
	struct newborn_thread *leader = &process->threads.at[0]->newborn;
	struct batch fetch, move;
	newborn_batch(&process->newborn, &fetch);
	newborn_batch(&process->newborn, &move);
	size_t call = batch_try(&fetch, pidfd_getfd, (uint64_t)pidfd, (uint64_t)fd, 0);
	int rc = newborn_run(leader, &fetch, fault);
	int64_t own = rc == 0 ? batch_result(&fetch, call) : 0;
	if (own < 0)
		rc = fault_set(fault, fault_class_of((int)-own), (int)-own, "process %d: fetch a descriptor that cannot be sent (an io_uring): %s; try as root, or "
			       "--pids private", process->newborn.pid, strerror((int)-own));
	batch_call(&move, dup3, (uint64_t)own, (uint64_t)pidfd, 0);
	batch_call(&move, close, (uint64_t)own);
	if (rc == 0)
		rc = newborn_run(leader, &move, fault);
	batch_finish(&fetch);
	batch_finish(&move);
	return rc;
}

static int fetch_one(struct rebuild *rebuild, struct rebuild_process *process, int fd, struct fault *fault)
{
	_close_ int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int pidfd = -1, rc = self < 0 ? fault_set(fault, FAULT_FAILED, errno, "pidfd_open: %s", strerror(errno)) : 0;
	if (rc == 0)
		rc = send_some(rebuild->outbox, &self, 1, fault);
	if (rc == 0)
		rc = receive_some(rebuild, process, 1, &pidfd, fault);
	prctl(PR_SET_PTRACER, (unsigned long)process->newborn.pid); /* where Yama would forbid it */
	if (rc == 0)
		rc = fetch_by(process, pidfd, fd, fault);
	prctl(PR_SET_PTRACER, 0);
	return rc;
}

static int hand_over(struct rebuild *rebuild, struct rebuild_process *process, const int *fds, size_t count, struct fault *fault)
{
	int first, rc = send_some(rebuild->outbox, fds, count, fault);
	if (rc == 0)
		return receive_some(rebuild, process, count, &first, fault);
	if (rc != -EINVAL)
		return rc;
	if (count == 1)
		return fetch_one(rebuild, process, *fds, fault);
	rc = hand_over(rebuild, process, fds, count / 2, fault);
	return rc < 0 ? rc : hand_over(rebuild, process, fds + count / 2, count - count / 2, fault);
}

int descriptors_send(struct rebuild *rebuild, struct rebuild_process *process, const int *fds, size_t count,
		     struct fault *fault)
{
	for (size_t done = 0; done < count;) {
		size_t some = count - done < AT_ONCE ? count - done : AT_ONCE;
		int rc = hand_over(rebuild, process, fds + done, some, fault);
		if (rc < 0)
			return rc;
		done += some;
	}
	return 0;
}

/* From where they arrived to where they belong, then the numbers in between are closed. */
static void add_moves(const Cairn__FdTable *table, uint64_t inbox, struct batch *batch)
{
	size_t count = table->n_entries;
	for (size_t i = count; i-- > 0;) {
		const Cairn__FdTable__Entry *entry = table->entries[i];
		batch_group(batch, 2, 0);
		if (entry->fd != i)
			batch_call(batch, dup3, i, entry->fd, entry->close_on_exec ? O_CLOEXEC : 0);
		else if (entry->close_on_exec)
			batch_call(batch, fcntl, i, F_SETFD, FD_CLOEXEC);
	}
	uint64_t next = 0;
	for (size_t i = 0; i < count; i++) {
		if (table->entries[i]->fd > next)
			batch_call(batch, close_range, next, table->entries[i]->fd - 1, 0);
		next = (uint64_t)table->entries[i]->fd + 1;
	}
	if (next < inbox)
		batch_call(batch, close_range, next, inbox - 1, 0);
}

static bool has_file(const struct rebuild_process *process, uint32_t file)
{
	const Cairn__FdTable *table = process->plan->descriptors;
	for (size_t i = 0; table && i < table->n_entries; i++)
		if (table->entries[i]->file == file)
			return true;
	return false;
}

/* By the first that has it, then, if that was another, by the owner: the last descriptor is what the kernel remembers. */
static void add_asynchronous(struct rebuild *rebuild, struct rebuild_process *process, const Cairn__FdTable__Entry *entry,
			     const struct plan_record *record, struct batch *batch)
{
	uint32_t owner;
	if (!kind_is_asynchronous(record->kind, record->message, &owner))
		return;
	size_t first = 0;
	while (!has_file(rebuild->processes.at[first], entry->file))
		first++;
	if (rebuild->processes.at[first] == process || owner == process->plan->process->pid)
		kind_set_asynchronous((int)entry->fd, record->kind, record->message, batch);
}

static int add_connects(struct rebuild *rebuild, struct rebuild_process *process, struct batch *batch,
			struct fault *fault)
{
	const Cairn__FdTable *table = process->plan->descriptors;
	for (size_t i = 0; i < table->n_entries; i++) {
		const struct plan_record *record = rebuild_file(rebuild, table->entries[i]->file);
		/* One descriptor of several to the same description is enough. */
		bool earlier = false;
		for (size_t j = 0; j < i && !earlier; j++)
			earlier = table->entries[j]->file == table->entries[i]->file;
		if (earlier)
			continue;
		int rc = record->kind->connect && !record->redirect ? record->kind->connect(&process->threads.at[0]->newborn, (int)table->entries[i]->fd,
								       record->message, batch, fault) : 0;
		if (rc < 0)
			return rc;
		add_asynchronous(rebuild, process, table->entries[i], record, batch);
	}
	return 0;
}

int descriptors_place(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	const Cairn__FdTable *table = process->plan->descriptors;
	if (!table) /* it is another's, too */
		return 0;
	_free_ int *fds = memory_new(table->n_entries * sizeof *fds);
	for (size_t i = 0; i < table->n_entries; i++)
		fds[i] = workshop_fd(&rebuild->workshop, table->entries[i]->file);
	int rc = descriptors_send(rebuild, process, fds, table->n_entries, fault);
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	add_moves(table, (uint64_t)rebuild->inbox_number, &batch);
	if (rc == 0)
		rc = add_connects(rebuild, process, &batch, fault);
	batch_group(&batch, 1, 0);
	batch_call(&batch, close, (uint64_t)rebuild->inbox_number);
	if (rc == 0)
		rc = newborn_run(&process->threads.at[0]->newborn, &batch, fault);
	batch_finish(&batch);
	return rc;
}
