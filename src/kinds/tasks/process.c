/* SPDX-License-Identifier: Apache-2.0 */
/* A process's place in the tree: PID, parent, group, session, controlling terminal, exit signal, and whether it is a zombie or
 * stopped. All of it is in /proc/PID/stat. It is put back by the order in which newborns are made (rebuild/spawn.c), since
 * the kernel gives most of it only at birth. Not carried: processes whose parent shares their memory or files. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/kcmp.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int compare_files(const void *a, const void *b)
{
	return kcmp_order(SAME_FILES, *(const pid_t *)a, 0, *(const pid_t *)b, 0, NULL);
}

static int compare_fs(const void *a, const void *b)
{
	return kcmp_order(SAME_FS, *(const pid_t *)a, 0, *(const pid_t *)b, 0, NULL);
}

static int compare_vm(const void *a, const void *b)
{
	return kcmp_order(SAME_VM, *(const pid_t *)a, 0, *(const pid_t *)b, 0, NULL);
}

/* Processes that share something and are not parent and child: kcmp's order brings them side by side. */
static int refuse_sharing(const struct harvest *harvest, struct fault *fault)
{
	static const struct { int (*compare)(const void *, const void *); const char *name; } shared[] = {
		{ compare_vm, "memory (CLONE_VM)" },
		{ compare_files, "its descriptor table (CLONE_FILES)" },
		{ compare_fs, "its working directory (CLONE_FS)" },
	};
	size_t count = 0;
	int rc = 0;
	_free_ pid_t *pids = memory_new(harvest->processes.count * sizeof *pids);
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (!harvest->processes.at[i]->zombie)
			pids[count++] = harvest->processes.at[i]->view;
	for (size_t s = 0; rc == 0 && s < sizeof shared / sizeof *shared; s++) {
		qsort(pids, count, sizeof *pids, shared[s].compare);
		for (size_t i = 1; rc == 0 && i < count; i++)
			if (shared[s].compare(&pids[i - 1], &pids[i]) == 0)
				rc = fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP,
					       "process %d shares %s with process %d, which this version cannot carry; try again when one of "
					       "them has ended", pids[i], shared[s].name, pids[i - 1]);
	}
	return rc;
}

static int refuse_threads(const struct frozen_process *process, struct fault *fault)
{
	for (size_t i = 1; i < process->threads.count; i++) {
		pid_t tid = process->threads.at[i]->tid;
		int order = kcmp_order(SAME_FILES, tid, 0, process->view, 0, NULL);
		if (order == 1 || order == -1)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "thread %d has a descriptor table of its own (unshare(CLONE_FILES)), which this version cannot carry; try "
					 "again when it has ended", tid);
	}
	return 0;
}

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	static const struct { enum kcmp_what what; const char *name; } shared[] = {
		{ SAME_VM, "memory (CLONE_VM)" },
		{ SAME_FILES, "its descriptor table (CLONE_FILES)" },
		{ SAME_FS, "its working directory (CLONE_FS)" },
		{ SAME_SIGHAND, "its signal handlers (CLONE_SIGHAND)" },
	};
	for (size_t i = 0; process->parent && !process->parent->zombie && i < sizeof shared / sizeof *shared; i++)
		if (kcmp_order(shared[i].what, process->view, 0, process->parent->view, 0, NULL) == 0)
			return fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP,
						   "shares %s with its parent %d, as between vfork and exec; try again "
						   "later", shared[i].name, process->parent->pid);
	if (harvest->frozen) {
		int shares = process == harvest->processes.at[0] ? refuse_sharing(harvest, fault) : 0;
		if (shares == 0)
			shares = refuse_threads(process, fault);
		if (shares < 0)
			return shares;
	}
	uint64_t theirs[NS_COUNT];
	int rc = proc_namespaces(process->view, theirs, fault);
	for (int i = 0; rc == 0 && i < NS_COUNT; i++)
		if (theirs[i] && harvest->own_namespaces[i] != theirs[i]) /* 0: it is just ending */
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "lives in another %s namespace than Cairn; try to run cairn inside it (nsenter "
					 "-t %d -a cairn ...)", proc_namespace_names[i], process->pid);
	return rc;
}

/* Does the leader of a group or session live among the captured? A number that nobody has any more is the tree's own; 0 stands for
 * one outside this PID namespace. */
static bool is_outside(const struct harvest *harvest, pid_t leader)
{
	struct proc_stat stat;
	if (!leader)
		return true;
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->pid == leader)
			return false;
	return proc_stat_read(leader, 0, &stat, NULL) == 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	Cairn__Process *message = HARVEST_MESSAGE(harvest, Cairn__Process, cairn__process__init);
	(void)batch, (void)note, (void)fault;
	message->pid = (uint32_t)process->pid;
	message->parent_pid = process->parent ? (uint32_t)process->parent->pid : 0;
	message->group = (uint32_t)process->stat.group;
	message->session = (uint32_t)process->stat.session;
	message->exit_signal = process->stat.exit_signal;
	message->space = process->space ? process->space->id : 0;
	message->zombie = process->zombie;
	message->wait_status = process->zombie ? process->stat.exit_code : 0;
	message->stopped = process->job_stopped;
	message->stop_signal = (uint32_t)process->stop_signal;
	message->command = arena_string(&harvest->arena, process->stat.command);
	message->group_outside = is_outside(harvest, process->stat.group);
	message->session_outside = is_outside(harvest, process->stat.session);
	message->foreground = process->stat.terminal && process->stat.foreground == process->stat.group;
	message->terminal = process->stat.terminal;
	harvest_add(harvest, &kind_process, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Process *message = (const Cairn__Process *)base;
	if (!message->pid || message->pid > 1u << 22 || message->group > 1u << 22 || message->session > 1u << 22 ||
	    (!message->group && !message->group_outside) || (!message->session && !message->session_outside) ||
	    message->exit_signal > 64 || (!message->zombie && !message->space))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: impossible values", message->pid);
	return 0;
}

const struct kind kind_process = {
	.name = "process",
	.tag = 10,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__process__descriptor,
	.owner_field = "pid",
	.of_zombies = true,
	.refuse = refuse,
	.capture = capture,
	.check = check,
};
