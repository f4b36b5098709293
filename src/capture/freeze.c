/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/freeze.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture/halt.h"
#include "capture/reaper.h"
#include "capture/tree.h"

/* The tree while it is being frozen. */
struct freezing {
	struct harvest *harvest;
	const struct deadline *deadline;
	struct reaper reaper;
	VEC(struct frozen_process *) known; /* by number */
};

/* Where @pid is among those that are known, or belongs. */
static size_t place_of(const struct freezing *freezing, pid_t pid)
{
	size_t low = 0, high = freezing->known.count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (freezing->known.at[middle]->pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct frozen_process *find_known(const struct freezing *freezing, pid_t pid)
{
	size_t place = place_of(freezing, pid);
	return place < freezing->known.count && freezing->known.at[place]->pid == pid ? freezing->known.at[place] : NULL;
}

static void meet_process(struct freezing *freezing, pid_t pid, struct frozen_process *parent)
{
	size_t place = place_of(freezing, pid), after = freezing->known.count - place;
	if (after && freezing->known.at[place]->pid == pid)
		return;
	vec_add(&freezing->known);
	memmove(&freezing->known.at[place + 1], &freezing->known.at[place], after * sizeof *freezing->known.at);
	freezing->known.at[place] = tree_add_process(freezing->harvest, pid, parent);
}

static void forget_process(struct freezing *freezing, struct frozen_process *process)
{
	size_t place = place_of(freezing, process->pid);
	memmove(&freezing->known.at[place], &freezing->known.at[place + 1],
		(--freezing->known.count - place) * sizeof *freezing->known.at);
	tree_drop(freezing->harvest, process);
}

static int meet_children(struct freezing *freezing, struct frozen_process *process, struct fault *fault)
{
	struct pid_list children = { 0 };
	int rc = process->zombie ? 0 : tree_children(process, &children, fault);
	for (size_t i = 0; rc == 0 && i < children.pids.count; i++)
		meet_process(freezing, children.pids.at[i], process);
	vec_finish(&children.pids);
	return rc;
}

/* What came to the adopter when its parent ended. Zombies there are the adopter's to reap. */
static int meet_adopted(struct freezing *freezing, struct fault *fault)
{
	const struct capture_policy *policy = &freezing->harvest->policy;
	struct pid_list children = { 0 };
	int rc = policy->adopter ? proc_children(policy->adopter, &children, fault) : 0;
	for (size_t i = 0; rc == 0 && i < children.pids.count; i++) {
		pid_t pid = children.pids.at[i];
		struct proc_stat stat;
		if (policy_is_cairn(policy, pid) || proc_stat_read(pid, 0, &stat, NULL) < 0 || (stat.state == 'Z' && stat.threads <= 1))
			continue;
		meet_process(freezing, pid, NULL);
	}
	vec_finish(&children.pids);
	return rc;
}

static bool look_for_zombie(struct frozen_process *process, int *ret_rc, struct fault *fault)
{
	*ret_rc = proc_stat_read(process->pid, 0, &process->stat, fault);
	return *ret_rc == 0 && process->stat.state == 'Z' && process->stat.threads <= 1;
}

/* Is one of its threads in an uninterruptible sleep, maybe until its vfork child execs? */
static bool may_wait_for_child(const struct frozen_process *process)
{
	struct proc_stat stat;
	for (size_t i = 0; i < process->threads.count; i++)
		if (proc_stat_read(process->pid, process->threads.at[i]->tid, &stat, NULL) == 0 && stat.state == 'D')
			return true;
	return false;
}

/* All are asked to stop before anybody is waited for: whoever still runs bears others, and may leave those no processor who have been asked.
 * What fails here is seen again when they are waited for. */
static int seize_all(struct freezing *freezing, struct fault *fault)
{
	for (size_t i = 0; i < freezing->harvest->processes.count; i++) {
		struct frozen_process *process = freezing->harvest->processes.at[i];
		struct pid_list children = { 0 };
		bool found;
		int rc;
		if (!look_for_zombie(process, &rc, NULL) && rc == 0)
			rc = halt_seize(freezing->harvest, process, &found, fault);
		if (rc < 0 && rc != -ESRCH && rc != -ENOENT)
			return tree_at_process(process, rc, fault);
		/* A vfork child has to run on, or its parent cannot stop. */
		if (rc == 0 && tree_children(process, &children, NULL) == 0 && children.pids.count && !may_wait_for_child(process))
			for (size_t c = 0; c < children.pids.count; c++)
				meet_process(freezing, children.pids.at[c], process);
		vec_finish(&children.pids);
		if (i % 64 == 0 && (rc = deadline_check(freezing->deadline, fault)) < 0)
			return rc;
	}
	return 0;
}

/* All of its threads have ended. A zombie that its parent, which stands still, has not seen yet is part of the tree. */
static int bury(struct freezing *freezing, struct frozen_process *process)
{
	for (; process->threads.count; process->threads.count--)
		if (!halt_has_ended(process->threads.at[process->threads.count - 1], freezing->deadline))
			return -ESRCH;
	int rc;
	process->zombie = look_for_zombie(process, &rc, NULL);
	if (rc < 0)
		forget_process(freezing, process);
	return rc == 0 && !process->zombie ? -ESRCH : 0;
}

static int freeze_one(struct freezing *freezing, struct frozen_process *process, struct fault *fault)
{
	struct harvest *harvest = freezing->harvest;
	bool target = harvest->processes.at[0] == process;
	int rc = 0;
	/* One that was seized and has ended since says so by its threads. */
	process->zombie = !process->threads.count && look_for_zombie(process, &rc, fault);
	if (rc == 0 && process->zombie && target)
		rc = fault_set(fault, FAULT_VANISHED, ESRCH, "ended before it could be frozen");
	if (rc == 0 && !process->zombie)
		rc = halt_process(harvest, process, freezing->deadline, fault);
	if (rc == -ESRCH && !target) {
		rc = bury(freezing, process);
		if (rc < 0)
			return tree_at_process(process, fault_set_transient(fault, FAULT_VANISHED, ESRCH, "is just ending"), fault);
	}
	return rc < 0 ? tree_at_process(process, rc, fault) : 0;
}

/* Parents before children, otherwise as they were met. */
static void sort_tree(struct harvest *harvest)
{
	__typeof__(harvest->processes) sorted = { 0 };
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (!harvest->processes.at[i]->parent)
			*vec_add(&sorted) = harvest->processes.at[i];
	for (size_t i = 0; i < sorted.count; i++)
		for (size_t c = 0; c < harvest->processes.count; c++)
			if (harvest->processes.at[c]->parent == sorted.at[i])
				*vec_add(&sorted) = harvest->processes.at[c];
	vec_finish(&harvest->processes);
	harvest->processes = sorted;
}

/* A zombie whose parent ended before it was frozen belongs to nobody of the tree any more: whoever has it now reaps it. */
static void drop_strays(struct freezing *freezing)
{
	struct harvest *harvest = freezing->harvest;
	for (size_t i = 1; i < harvest->processes.count;) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->zombie && (process->vanished || !find_known(freezing, process->stat.parent)))
			forget_process(freezing, process);
		else
			i++;
	}
}

/* A process whose parent ended before it was frozen has come to another one. */
static int find_parents(struct freezing *freezing, struct fault *fault)
{
	struct harvest *harvest = freezing->harvest;
	bool moved = false;
	drop_strays(freezing);
	for (size_t i = 1; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i], *before = process->parent;
		pid_t parent = process->stat.parent;
		if (!before || before->pid == parent)
			continue;
		process->parent = find_known(freezing, parent);
		if (!process->parent && (!harvest->policy.adopter || parent != harvest->policy.adopter))
			return fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "process %d: left the tree while it was frozen; try again", process->pid);
		before->child_count--;
		if (process->parent)
			process->parent->child_count++;
		moved = true;
	}
	if (moved)
		sort_tree(harvest);
	return 0;
}

/* Orphans of processes that ended while others were being frozen went to a subreaper, maybe one in the tree whose
 * children had been listed before: if anything of the kind happened, the tree is not whole. */
static int check_whole(struct frozen_process *process, const void *context, struct arena *arena, struct fault *fault)
{
	struct pid_list children = { 0 };
	(void)context, (void)arena;
	int rc = process->zombie ? 0 : tree_children(process, &children, fault);
	if (rc == 0 && !process->zombie && process->child_count != children.pids.count)
		rc = fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "its children changed while they were frozen; try again");
	vec_finish(&children.pids);
	return rc;
}

/* What /proc said of a process before all its threads stood still may have changed since. */
static int read_frozen(struct frozen_process *process, const void *context, struct arena *arena, struct fault *fault)
{
	(void)context;
	int rc = tree_read_process(process, arena, fault);
	if (rc == 0 && process->threads.count && process->threads.at[0]->tid == process->pid)
		process->threads.at[0]->stat = process->stat;
	process->vanished = process->zombie && (rc == -ESRCH || rc == -ENOENT);
	return process->vanished ? 0 : rc;
}

/* A frozen process makes no children; those it has are frozen in turn. */
static int freeze_all(struct freezing *freezing, struct fault *fault)
{
	struct harvest *harvest = freezing->harvest;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < harvest->processes.count;) {
		struct frozen_process *process = harvest->processes.at[i];
		rc = freeze_one(freezing, process, fault);
		bool gone = i == harvest->processes.count || harvest->processes.at[i] != process;
		if (rc == 0 && !gone)
			rc = meet_children(freezing, process, fault);
		i += !gone;
		if (rc == 0 && i == harvest->processes.count)
			rc = meet_adopted(freezing, fault);
		if (rc == 0)
			rc = deadline_check(freezing->deadline, fault);
	}
	return rc;
}

static void freezing_begin(struct freezing *freezing)
{
	reaper_init(&freezing->reaper);
	freezing->harvest->reaper = &freezing->reaper;
}

static void freezing_finish(struct freezing *freezing)
{
	freezing->harvest->reaper = NULL;
	reaper_finish(&freezing->reaper);
	vec_finish(&freezing->known);
}

int freeze_tree(struct harvest *harvest, pid_t root, const struct deadline *deadline, struct fault *fault)
{
	__attribute__((cleanup(freezing_finish))) struct freezing freezing = { .harvest = harvest, .deadline = deadline };
	freezing_begin(&freezing);
	meet_process(&freezing, root, NULL);
	int rc = meet_adopted(&freezing, fault);
	if (rc == 0)
		rc = seize_all(&freezing, fault);
	if (rc == 0)
		rc = freeze_all(&freezing, fault);
	if (rc == 0)
		rc = tree_work(harvest, 0, read_frozen, NULL, fault);
	if (rc == 0)
		rc = find_parents(&freezing, fault);
	return rc < 0 ? rc : tree_work(harvest, 0, check_whole, NULL, fault);
}

static void leave_foothold(struct frozen_process *process)
{
	struct frozen_thread *last = NULL;
	for (size_t i = 0; i < process->threads.count; i++) {
		struct frozen_thread *thread = process->threads.at[i];
		if (thread->guest.inside)
			foothold_leave(&process->space->foothold, &thread->guest, true, NULL);
		else if (thread->stopped)
			last = thread;
	}
	/* An area that is still there after a failure goes by any thread. */
	if (last && process->space && process->space->foothold.area) {
		last->guest.inside = true;
		foothold_leave(&process->space->foothold, &last->guest, true, NULL);
	}
}

void freeze_thaw(struct harvest *harvest, enum freeze_end end)
{
	const uint64_t patience_ns = 1000000000;
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (end != FREEZE_KILL)
			leave_foothold(harvest->processes.at[i]);
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->zombie || !process->threads.count)
			continue;
		if (end == FREEZE_STOP)
			kill(process->pid, SIGSTOP);
		else if (end == FREEZE_KILL)
			kill(process->pid, SIGKILL);
	}
	const uint64_t until_ns = clock_now_ns() + patience_ns; /* for all of those that do not stop */
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		/* The leader last: its end is only seen when the others' have been. */
		for (size_t t = process->threads.count; t-- > 0;) {
			struct frozen_thread *thread = process->threads.at[t];
			if (thread->seized)
				halt_let_go(harvest, thread, until_ns);
			thread->seized = thread->stopped = thread->examined = false;
		}
	}
}
