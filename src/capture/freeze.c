/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/freeze.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "capture/tree.h"

/* How long a thread may take to stop before the whole tree is let go and tried again: it is then in an
 * uninterruptible sleep, as a vfork parent is until its child execs. */
enum { STOP_PATIENCE_MS = 100 };

static bool knows_thread(const struct frozen_process *process, pid_t tid)
{
	/* Both lists ascend but for a wrap of the numbers: most are settled by a look at the last. */
	size_t count = process->threads.count;
	if (!count || process->threads.at[count - 1]->tid == tid)
		return count;
	if (tid > process->highest_tid)
		return false;
	for (size_t i = 0; i < count; i++)
		if (process->threads.at[i]->tid == tid)
			return true;
	return false;
}

/* A thread that was just listed may be gone when it is seized, or be a zombie leader. */
static int seize_thread(struct frozen_thread *thread, struct fault *fault)
{
	/* Only the scheduler knows when it fell asleep, and only until it is woken. */
	sleep_look(thread->process->pid, thread->tid, &thread->sleep);
	int rc = ptrace_seize(thread->tid, false, fault);
	if (rc < 0)
		return rc;
	thread->seized = true;
	return ptrace_interrupt(thread->tid, fault);
}

/* Threads may have lower numbers than their leader, after a wrap or in a fresh PID namespace. */
static void leader_first(pid_t leader, struct pid_list *list)
{
	for (size_t i = 1; i < list->pids.count; i++)
		if (list->pids.at[i] == leader) {
			memmove(&list->pids.at[1], list->pids.at, i * sizeof *list->pids.at);
			list->pids.at[0] = leader;
			return;
		}
}

static int seize_new_threads(struct harvest *harvest, struct frozen_process *process, bool *ret_new,
			     struct fault *fault)
{
	struct pid_list list = { 0 };
	int rc = proc_threads(process->pid, &list, fault);
	if (rc == 0)
		leader_first(process->pid, &list);
	for (size_t i = 0; rc == 0 && i < list.pids.count; i++) {
		if (knows_thread(process, list.pids.at[i]) || (process->stat.state == 'Z' && list.pids.at[i] == process->pid))
			continue;
		*ret_new = true;
		rc = seize_thread(tree_add_thread(harvest, process, list.pids.at[i]), fault);
		/* The thread ended between the listing and the seizing; where that was the first, the next try knows. */
		if (rc == -ESRCH && process->threads.count > 1) {
			process->threads.count--;
			rc = 0;
		}
	}
	vec_finish(&list.pids);
	return rc;
}

static int name_vfork(const struct frozen_process *process, pid_t tid, struct fault *fault)
{
	struct pid_list children = { 0 };
	pid_t child = 0;
	if (proc_children(process->pid, &children, NULL) == 0 && children.pids.count)
		child = children.pids.at[children.pids.count - 1];
	vec_finish(&children.pids);
	if (child)
		return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT,
					   "thread %d sleeps where it cannot be stopped, likely until its vfork child "
					   "%d runs exec or ends; try again later, or a longer --timeout", tid, child);
	return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT,
				   "thread %d sleeps where it cannot be stopped (disk or driver); try again later, or "
				   "a longer --timeout", tid);
}

static int wait_thread(struct frozen_thread *thread, struct fault *fault)
{
	for (;;) {
		struct stop stop;
		int rc = ptrace_wait_stop(thread->tid, STOP_PATIENCE_MS * UINT64_C(1000000), &stop, fault);
		if (rc == -ETIMEDOUT)
			return name_vfork(thread->process, thread->tid, fault);
		if (rc < 0)
			return rc;
		switch (stop.kind) {
		case STOP_GROUP:
			thread->process->job_stopped = true;
			thread->process->stop_signal = stop.signal;
			thread->stopped = true;
			return 0;
		case STOP_INTERRUPT:
			thread->stopped = true;
			return 0;
		case STOP_ENDED:
			thread->seized = false;
			return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile",
						   thread->tid);
		default: /* a signal was on its way: it is delivered, the interrupt is still to come */
			rc = ptrace_resume(thread->tid, PTRACE_CONT, stop.kind == STOP_SIGNAL ? stop.signal : 0, fault);
			if (rc < 0)
				return rc;
		}
	}
}

/* A critical section of rseq does not survive the remote calls unnoticed: its abort handler is taken at once, as the
 * kernel would after a preemption (kernel/rseq.c rseq_ip_fixup, 6.18). */
static int abort_rseq(struct frozen_thread *thread, struct fault *fault)
{
	struct { uint32_t version, flags; uint64_t start, length, abort; } section;
	uint64_t pointer;
	enum { RSEQ_CS_OFFSET = 8 };
	if (!thread->rseq.address)
		return 0;
	int rc = memory_read(thread->tid, thread->rseq.address + RSEQ_CS_OFFSET, &pointer, sizeof pointer, fault);
	if (rc < 0 || !pointer)
		return rc;
	rc = memory_read(thread->tid, pointer, &section, sizeof section, fault);
	if (rc == 0 && registers_ip(&thread->guest.home) - section.start < section.length) {
		log_debug("thread %d: was in an rseq critical section, goes to its abort handler", thread->tid);
		registers_set_ip(&thread->guest.home, section.abort);
	}
	return rc;
}

/* What a program's own filters, or its handler of system calls (syscall user dispatch), would say to Cairn's calls. Filters that Cairn has as well let them pass (kinds/tasks/seccomp.c). Without a deputy
 * the death of Cairn would leave the thread to them in the middle of a call. */
static int suspend_filters(const struct harvest *harvest, struct frozen_thread *thread, struct fault *fault)
{
	bool filtered = thread->status.seccomp && !harvest->policy.filtered;
	struct dispatch_place dispatch;
	int rc = ptrace_get_dispatch(thread->tid, &dispatch, fault);
	if (rc < 0 || (!filtered && !dispatch.mode))
		return rc;
	if (!harvest->policy.by_deputy)
		return fault_set(fault, FAULT_VANISHED, EXDEV, "thread %d: went under a seccomp filter while it was looked at; try again", thread->tid);
	if (filtered)
		rc = ptrace_suspend_seccomp(thread->tid, false, fault);
	if (rc == 0 && dispatch.mode)
		rc = ptrace_set_dispatch(thread->tid, &(struct dispatch_place){ 0 }, fault);
	if (rc == 0)
		thread->dispatch = dispatch;
	return rc;
}

/* Everything that only the stop itself can tell, and the registers that undo what the stop did. */
static int examine_thread(struct harvest *harvest, struct frozen_thread *thread, struct sleep_clocks *clocks, struct fault *fault)
{
	struct registers before;
	int rc = proc_status_read(thread->process->pid, thread->tid, &harvest->arena, &thread->status, fault);
	if (rc == 0)
		rc = ptrace_get_registers(thread->tid, &before, fault);
	if (rc == 0)
		rc = ptrace_get_mask(thread->tid, &thread->guest.blocked, fault);
	if (rc == 0)
		rc = ptrace_get_rseq(thread->tid, &thread->rseq, fault);
	if (rc < 0)
		return rc;
	thread->guest.home = before;
	if (!registers_native(&before))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "thread %d runs 32-bit code, which this version cannot carry; try a 64-bit build of "
				 "the program", thread->tid);
	thread->frozen_at_ns = clock_now_ns();
	sleep_confirm(&thread->sleep, thread->status.voluntary_switches);
	uint64_t since = restart_wants_time(&before) ? sleep_since(&thread->sleep, clocks) : 0;
	const struct restart_sleep sleep = {
		.known = since && since < thread->frozen_at_ns,
		.slept_ns = since && since < thread->frozen_at_ns ? thread->frozen_at_ns - since : 0,
		.where = thread->sleep.where,
		.alone = thread->status.seccomp != 0,
	};
	rc = restart_examine(thread->tid, &thread->guest.home, &sleep, &thread->restart, fault);
	if (rc == 0)
		rc = abort_rseq(thread, fault);
	if (rc == 0 && memcmp(&before, &thread->guest.home, sizeof before))
		rc = ptrace_set_registers(thread->tid, &thread->guest.home, fault);
	thread->examined = rc == 0;
	return rc < 0 ? rc : suspend_filters(harvest, thread, fault);
}

/* Stops all threads of one process: new ones may appear until the last is stopped. */
static int freeze_process(struct harvest *harvest, struct frozen_process *process, struct fault *fault)
{
	size_t stopped = 0;
	for (bool found = true; found;) {
		found = false;
		int rc = seize_new_threads(harvest, process, &found, fault);
		for (; rc == 0 && stopped < process->threads.count; stopped++) {
			rc = wait_thread(process->threads.at[stopped], fault);
			/* A thread that ended is no part of the process any more, unless it was the leader. */
			if (rc == -ESRCH && stopped > 0) {
				memmove(&process->threads.at[stopped], &process->threads.at[stopped + 1],
					(process->threads.count - stopped - 1) * sizeof *process->threads.at);
				process->threads.count--;
				stopped--;
				rc = 0;
			}
		}
		if (rc < 0)
			return rc;
	}
	/* Clocks are read when all are stopped: see sleep_since. */
	struct sleep_clocks clocks = { 0 };
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < process->threads.count; i++)
		rc = examine_thread(harvest, process->threads.at[i], &clocks, fault);
	sleep_clocks_finish(&clocks);
	return rc;
}

static int freeze_one(struct harvest *harvest, pid_t pid, struct frozen_process *parent, struct fault *fault)
{
	struct frozen_process *process = tree_add_process(harvest, pid, parent);
	int rc = proc_stat_read(pid, 0, &process->stat, fault);
	process->zombie = rc == 0 && process->stat.state == 'Z' && process->stat.threads <= 1;
	if (rc == 0 && process->zombie && harvest->processes.count == 1)
		rc = fault_set(fault, FAULT_VANISHED, ESRCH, "ended before it could be frozen");
	if (rc == 0 && !process->zombie)
		rc = freeze_process(harvest, process, fault);
	/* A child that ended and was reaped by somebody else (its parent stands still) is no part of the tree. */
	bool target = harvest->processes.at[0] == process;
	if (rc == -ESRCH && !target && !process->threads.count) {
		tree_drop_last(harvest);
		return 0;
	}
	if (rc == -ESRCH && !target)
		fault->transient = 1; /* it became a zombie: the next round sees it so */
	return rc < 0 ? tree_at_process(process, rc, fault) : 0;
}

/* A frozen process makes no children; those it has are frozen in turn. */
static int freeze_children(struct harvest *harvest, struct frozen_process *process, struct fault *fault)
{
	struct pid_list children = { 0 };
	int rc = process->zombie ? 0 : proc_children(process->pid, &children, fault);
	for (size_t i = 0; rc == 0 && i < children.pids.count; i++)
		rc = freeze_one(harvest, children.pids.at[i], process, fault);
	vec_finish(&children.pids);
	return rc;
}

static bool is_root(const struct harvest *harvest, pid_t pid)
{
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (!harvest->processes.at[i]->parent && harvest->processes.at[i]->pid == pid)
			return true;
	return false;
}

/* What came to the adopter when its parent ended. Zombies there are the adopter's to reap. */
static int freeze_adopted(struct harvest *harvest, struct fault *fault)
{
	struct pid_list children = { 0 };
	int rc = harvest->policy.adopter ? proc_children(harvest->policy.adopter, &children, fault) : 0;
	for (size_t i = 0; rc == 0 && i < children.pids.count; i++) {
		pid_t pid = children.pids.at[i];
		struct proc_stat stat;
		if (policy_is_cairn(&harvest->policy, pid) || is_root(harvest, pid) || proc_stat_read(pid, 0, &stat, NULL) < 0 ||
		    (stat.state == 'Z' && stat.threads <= 1))
			continue;
		rc = freeze_one(harvest, pid, NULL, fault);
	}
	vec_finish(&children.pids);
	return rc;
}

/* Orphans of processes that ended while others were being frozen went to a subreaper, maybe one in the tree whose
 * children had been listed before: if anything of the kind happened, the tree is not whole. */
static int check_whole(struct harvest *harvest, struct fault *fault)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->zombie)
			continue;
		struct pid_list children = { 0 };
		int rc = proc_children(process->pid, &children, fault);
		size_t seen = children.pids.count;
		vec_finish(&children.pids);
		if (rc < 0)
			return rc;
		if (process->child_count != seen)
			return fault_set_transient(fault, FAULT_VANISHED, EAGAIN,
						   "process %d: its children changed while they were frozen; try again",
						   process->pid);
	}
	return 0;
}

int freeze_tree(struct harvest *harvest, pid_t root, const struct deadline *deadline, struct fault *fault)
{
	int rc = freeze_one(harvest, root, NULL, fault);
	for (size_t i = 0; rc == 0 && i < harvest->processes.count; i++) {
		rc = freeze_children(harvest, harvest->processes.at[i], fault);
		if (rc == 0 && i + 1 == harvest->processes.count)
			rc = freeze_adopted(harvest, fault);
		if (rc == 0)
			rc = deadline_check(deadline, fault);
	}
	if (rc == 0)
		rc = check_whole(harvest, fault);
	/* What /proc said of a process before all its threads stood still may have changed since. */
	for (size_t i = 0; rc == 0 && i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		rc = tree_read_process(harvest, process, fault);
		if (rc < 0)
			tree_at_process(process, rc, fault);
	}
	return rc;
}

/* What a stop does to a call has to be undone for a thread as well that was stopped, or is about to stop, when the freeze failed elsewhere. Ended, or
 * in front of a signal: false, and there is nothing to undo. */
static bool is_at_rest(struct harvest *harvest, struct frozen_thread *thread)
{
	struct stop stop = { .kind = STOP_INTERRUPT };
	struct sleep_clocks clocks = { 0 };
	if (!thread->stopped && ptrace_wait_stop(thread->tid, UINT64_C(1000000000), &stop, NULL) < 0)
		return false;
	if (stop.kind == STOP_SIGNAL)
		ptrace(PTRACE_DETACH, thread->tid, NULL, (unsigned long)stop.signal);
	if (stop.kind == STOP_SIGNAL || stop.kind == STOP_ENDED)
		return false;
	struct fault fault; /* it is let go in any case */
	if (!thread->examined)
		examine_thread(harvest, thread, &clocks, &fault);
	sleep_clocks_finish(&clocks);
	return true;
}

/* A relative timeout that the stop interrupted has gone on running: the program waits only for the rest. */
static void let_go(struct harvest *harvest, struct frozen_thread *thread)
{
	if (!is_at_rest(harvest, thread))
		return;
	const struct restart *restart = &thread->restart;
	uint64_t frozen_ns = clock_now_ns() - thread->frozen_at_ns;
	uint64_t left_ns = restart->left_ns > frozen_ns ? restart->left_ns - frozen_ns : 0;
	if (thread->examined && restart->timed && restart->known) {
		struct registers registers = thread->guest.home;
		if (restart_shorten(thread->tid, &registers, left_ns, NULL) == 0)
			ptrace_set_registers(thread->tid, &registers, NULL);
	}
	if (thread->dispatch.mode)
		ptrace_set_dispatch(thread->tid, &thread->dispatch, NULL);
	struct stop stop;
	/* Killed: its end is waited for. */
	if (ptrace_release(thread->tid, NULL) < 0 && ptrace_wait_stop(thread->tid, UINT64_C(1000000000), &stop, NULL) == 0 &&
	    stop.kind != STOP_ENDED)
		ptrace(PTRACE_DETACH, thread->tid, NULL, 0);
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
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		/* The leader last: its end is only seen when the others' have been. */
		for (size_t t = process->threads.count; t-- > 0;) {
			struct frozen_thread *thread = process->threads.at[t];
			if (thread->seized)
				let_go(harvest, thread);
			thread->seized = thread->stopped = thread->examined = false;
		}
	}
}
