/* SPDX-License-Identifier: Apache-2.0 */
/* A process's place in the tree: PID, parent, group, session, controlling terminal, exit signal, and whether it is a zombie or
 * stopped. All of it is in /proc/PID/stat. It is put back by the order in which newborns are made (rebuild/spawn.c), since
 * the kernel gives most of it only at birth. So is what it shares with another process, memory, descriptors, directory, handlers, adjustments of
 * semaphores (clone(2)): the first process that has it has the records of it. Not carried: what no birth could hand down, and a descriptor table that a
 * thread has for itself. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "kernel/kcmp.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static const char *const share_names[SHARE_COUNT] = {
	[SHARE_VM] = "memory (CLONE_VM)", [SHARE_FILES] = "its descriptor table (CLONE_FILES)",
	[SHARE_FS] = "its working directory (CLONE_FS)", [SHARE_SIGHAND] = "its signal handlers (CLONE_SIGHAND)",
	[SHARE_SYSVSEM] = "its semaphore adjustments (CLONE_SYSVSEM)",
};

/* Has @other all that @process shares with anybody? */
static bool has_all(const struct frozen_process *other, const struct frozen_process *process)
{
	for (enum share share = 0; share < SHARE_COUNT; share++)
		if (!frozen_owns(process, share) && other->shares[share] != process->shares[share])
			return false;
	return !other->zombie;
}

/* What is shared is given at birth: by the parent, or by an earlier child of the same parent (CLONE_PARENT). rebuild/plan_sharing.c finds the same. */
static const struct frozen_process *bearer_of(const struct harvest *harvest, const struct frozen_process *process)
{
	if (process->parent && has_all(process->parent, process))
		return process->parent;
	for (size_t i = 0; harvest->processes.at[i] != process; i++)
		if (harvest->processes.at[i]->parent == process->parent && has_all(harvest->processes.at[i], process))
			return harvest->processes.at[i];
	return NULL;
}

static bool can_inherit_session(const struct frozen_process *bearer, const struct frozen_process *process)
{
	const struct proc_stat *from = &bearer->stat, *to = &process->stat;
	return to->session == from->session || to->session == process->pid ||
	       (bearer == process->parent && from->session == bearer->pid && bearer->parent && to->session == bearer->parent->stat.session);
}

static int refuse_sharing(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	enum share share = 0;
	while (share < SHARE_COUNT && frozen_owns(process, share))
		share++;
	if (share == SHARE_COUNT)
		return 0;
	const struct frozen_process *bearer = bearer_of(harvest, process), *with = process->shares[share];
	if (!bearer || !can_inherit_session(bearer, process))
		return fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP, "shares %s with process %d, and neither its parent nor an earlier child of that "
					   "could hand it all down that it shares with others; try again when one of them has ended",
					   share_names[share], with->pid);
	if (bearer != process->parent && bearer->stat.exit_signal != process->stat.exit_signal)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP, "shares %s with process %d, and ends with another signal than that, which came "
					   "from the same parent; try again when one of them has ended", share_names[share], bearer->pid);
	return 0;
}

/* Its memory would change while it is saved, and be two afterwards. */
static int refuse_outside(const struct frozen_process *process, struct fault *fault)
{
	static const enum kcmp_what compared[] = { SAME_VM, SAME_FILES, SAME_FS };
	for (size_t i = 0; i < sizeof compared / sizeof *compared; i++)
		if (kcmp_order(compared[i], process->view, 0, process->stat.parent, 0, NULL) == 0)
			return fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP, "shares %s with its parent %d, as between vfork and exec; try again "
						   "later, or with that process as the target", share_names[i], process->stat.parent);
	return 0;
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
	int shares = process->parent || process->stat.parent <= 1 ? 0 : refuse_outside(process, fault);
	if (shares == 0 && harvest->frozen)
		shares = refuse_sharing(harvest, process, fault);
	if (shares == 0 && harvest->frozen)
		shares = refuse_threads(process, fault);
	if (shares < 0)
		return shares;
	uint64_t theirs[NS_COUNT];
	memcpy(theirs, process->namespaces, sizeof theirs);
	int rc = process->namespaces_known ? 0 : proc_namespaces(process->view, theirs, fault);
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

static uint32_t shared_with(const struct frozen_process *process, enum share share)
{
	return frozen_owns(process, share) ? 0 : (uint32_t)process->shares[share]->pid;
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
	message->files_with = shared_with(process, SHARE_FILES);
	message->fs_with = shared_with(process, SHARE_FS);
	message->handlers_with = shared_with(process, SHARE_SIGHAND);
	message->semaphores_with = shared_with(process, SHARE_SYSVSEM);
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
