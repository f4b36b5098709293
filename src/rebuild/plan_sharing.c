/* SPDX-License-Identifier: Apache-2.0 */
/* What processes share without being threads of one (clone(2)). It is handed down at birth, by the parent, or by an earlier child of the same parent,
 * which bears it with CLONE_PARENT. */
#include <errno.h>
#include <sched.h>

#include "rebuild/plan.h"

static int impossible(const struct plan_process *process, struct fault *fault)
{
	return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: process %u shares what nobody could have handed down to it", process->process->pid);
}

/* @pid: 0: itself. Else an earlier process that has it for its own. */
static const struct plan_process *find_owner(const struct plan *plan, const struct plan_process *process, uint32_t pid)
{
	if (!pid)
		return process;
	for (size_t i = 0; i < process->index; i++)
		if (plan->processes.at[i]->process->pid == pid && !plan->processes.at[i]->process->zombie)
			return plan->processes.at[i];
	return NULL;
}

/* Has @other all that @process shares with anybody? */
static bool has_all(const struct plan_process *other, const struct plan_process *process)
{
	return !other->process->zombie && (process->space->owner == process || other->space == process->space) &&
	       (process->files == process || other->files == process->files) && (process->fs == process || other->fs == process->fs) &&
	       (process->handlers == process || other->handlers == process->handlers) &&
	       (process->semaphores == process || other->semaphores == process->semaphores);
}

static const struct plan_process *find_bearer(const struct plan *plan, const struct plan_process *process)
{
	if (process->parent && has_all(process->parent, process))
		return process->parent;
	for (size_t i = 0; i < process->index; i++)
		if (plan->processes.at[i]->parent == process->parent && has_all(plan->processes.at[i], process))
			return plan->processes.at[i];
	return NULL;
}

static bool can_inherit_session(const struct plan_process *bearer, const struct plan_process *process)
{
	const Cairn__Process *from = bearer->process, *to = process->process;
	return to->session == from->session || to->session == to->pid ||
	       (bearer == process->parent && from->session == from->pid && bearer->parent && to->session == bearer->parent->process->session);
}

static int link_one(const struct plan *plan, struct plan_process *process, struct fault *fault)
{
	const Cairn__Process *record = process->process;
	if (!process->space->owner)
		process->space->owner = process;
	bool shares_memory = process->space->owner != process;
	process->space->is_shared |= shares_memory;
	process->files = find_owner(plan, process, record->files_with);
	process->fs = find_owner(plan, process, record->fs_with);
	process->handlers = find_owner(plan, process, record->handlers_with);
	process->semaphores = find_owner(plan, process, record->semaphores_with);
	if (!process->files || !process->fs || !process->handlers || !process->semaphores || process->files->files != process->files ||
	    process->fs->fs != process->fs || process->handlers->handlers != process->handlers ||
	    process->semaphores->semaphores != process->semaphores ||
	    (process->handlers != process && process->handlers->space != process->space) || (process->files == process) != (process->descriptors != NULL))
		return impossible(process, fault);
	process->share_flags = (shares_memory ? CLONE_VM : 0) | (process->files != process ? CLONE_FILES : 0) |
			       (process->fs != process ? CLONE_FS : 0) | (process->handlers != process ? CLONE_SIGHAND : 0) |
			       (process->semaphores != process ? CLONE_SYSVSEM : 0);
	if (!process->share_flags)
		return 0;
	process->bearer = find_bearer(plan, process);
	if (!process->bearer || !can_inherit_session(process->bearer, process) ||
	    (process->bearer != process->parent && process->bearer->process->exit_signal != record->exit_signal))
		return impossible(process, fault);
	process->share_flags |= process->bearer != process->parent ? CLONE_PARENT : 0;
	return 0;
}

int plan_link_sharing(struct plan *plan, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < plan->processes.count; i++)
		rc = plan->processes.at[i]->process->zombie ? 0 : link_one(plan, plan->processes.at[i], fault);
	return rc;
}
