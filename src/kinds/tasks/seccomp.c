/* SPDX-License-Identifier: Apache-2.0 */
/* Seccomp filters (/proc/PID/status). Reading one takes CAP_SYS_ADMIN in the first user namespace and a Cairn without any (PTRACE_SECCOMP_GET_FILTER).
 * What can be carried without: the filters that a container's runtime has put on all that lives in it, Cairn included. A process with as many as
 * Cairn has them too, and so have its newborns, from their birth, at a restore by a Cairn that has as many. More than that, or strict mode, is
 * refused. Remote calls in such a process are judged by the same filters as Cairn's own. */
#include <errno.h>
#include <linux/seccomp.h>
#include <unistd.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

/* Kernels before 5.9 do not count: one at least. */
static uint32_t filters_of(const struct proc_status *status)
{
	return status->seccomp != SECCOMP_MODE_FILTER ? 0 : status->seccomp_filters ? status->seccomp_filters : 1;
}

static uint32_t own_filters(void)
{
	struct arena arena = { 0 };
	struct proc_status status = { 0 };
	uint32_t count = proc_status_read(getpid(), 0, &arena, &status, NULL) == 0 ? filters_of(&status) : 0;
	arena_finish(&arena);
	return count;
}

static int judge(const struct proc_status *status, pid_t tid, struct fault *fault)
{
	if (!status->seccomp)
		return own_filters() ? fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d has no seccomp filter, while this Cairn has: it was "
						 "started in another container, or outside; try Cairn from there", tid) : 0;
	if (status->seccomp == SECCOMP_MODE_STRICT)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d is in seccomp's strict mode, which cannot be left for the calls that "
				 "a checkpoint makes; try when it has ended", tid);
	uint32_t own = own_filters(), theirs = filters_of(status);
	return theirs == own ? 0 :
		fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d runs under %u seccomp filters, and this Cairn under %u: only those that a "
			  "container puts on all in it are carried; try to start it without its own (a sandbox option of the program or its "
			  "service), or Cairn within its container", tid, theirs, own);
}

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	(void)harvest;
	return judge(&process->status, process->pid, fault);
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	(void)batch, (void)note;
	for (size_t i = 0; i < process->threads.count; i++) {
		int rc = judge(&process->threads.at[i]->status, process->threads.at[i]->tid, fault);
		if (rc < 0)
			return rc;
	}
	if (!process->status.seccomp)
		return 0;
	Cairn__Seccomp *message = HARVEST_MESSAGE(harvest, Cairn__Seccomp, cairn__seccomp__init);
	message->pid = (uint32_t)process->pid;
	message->inherited = filters_of(&process->status);
	harvest_add(harvest, &kind_seccomp, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Seccomp *message = (const Cairn__Seccomp *)base;
	if (!message->inherited)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: impossible seccomp filters", message->pid);
	uint32_t own = own_filters();
	return own == message->inherited ? 0 :
		fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "process %u: had the %u seccomp filters of its container, and this Cairn has %u: it would "
			  "be more, or less, free than it was; try to restore in a container of the same kind", message->pid, message->inherited, own);
}

const struct kind kind_seccomp = {
	.name = "seccomp",
	.tag = 28,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__seccomp__descriptor,
	.owner_field = "pid",
	.refuse = refuse,
	.capture = capture,
	.check = check,
};
