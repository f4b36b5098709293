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

/* How long a thread may take to stop before the whole tree is let go and tried again. One in an uninterruptible sleep, as a vfork parent is until its
 * child execs, will not do so soon; one that could run waits for a processor, which those that have stopped leave to it. */
enum { SLEEP_PATIENCE_MS = 100, RUN_PATIENCE_MS = 3000 };

/* By how much a clock of the scheduler's, which Cairn reads by running on its processor, may be misjudged: see kernel/sleep.c. */
enum { LATE_NS = 20000000 };

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
	rc = ptrace_interrupt(thread->tid, fault);
	struct stop stop;
	if (rc == -ESRCH) /* its tracer has to see its end, or its process cannot */
		thread->seized = ptrace_wait_stop(thread->tid, 10000000, &stop, NULL) < 0;
	return rc;
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
		/* The thread ended between the listing and the seizing. */
		if (rc == -ESRCH) {
			process->threads.count--;
			rc = process->threads.count ? 0 : rc;
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

static int name_slow(const struct frozen_thread *thread, char state, struct fault *fault)
{
	if (state == 'Z' || state == 'X')
		return fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "thread %d: ended before others of its process", thread->tid);
	if (state == 'D')
		return name_vfork(thread->process, thread->tid, fault);
	return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT, "thread %d does not stop, likely because others leave it no processor; try again later, or a "
				   "longer --timeout", thread->tid);
}

/* The next stop of a thread that is on its way to one. */
static int await_stop(const struct frozen_thread *thread, const struct deadline *deadline, struct stop *ret_stop, struct fault *fault)
{
	for (int waited_ms = 0;; waited_ms += SLEEP_PATIENCE_MS) {
		struct proc_stat stat;
		int rc = ptrace_wait_stop(thread->tid, SLEEP_PATIENCE_MS * UINT64_C(1000000), ret_stop, fault);
		if (rc != -ETIMEDOUT)
			return rc;
		char state = proc_stat_read(thread->process->pid, thread->tid, &stat, NULL) < 0 ? 'X' : stat.state;
		if (strchr("DZX", state) || waited_ms + SLEEP_PATIENCE_MS >= RUN_PATIENCE_MS)
			return name_slow(thread, state, fault);
		rc = deadline_check(deadline, fault);
		if (rc < 0)
			return rc == -ETIMEDOUT ? name_slow(thread, state, fault) : rc;
	}
}

static int wait_thread(struct frozen_thread *thread, const struct deadline *deadline, struct fault *fault)
{
	for (;;) {
		struct stop stop;
		int rc = await_stop(thread, deadline, &stop, fault);
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
			if (rc < 0 && rc != -ESRCH) /* killed: its end is still to come */
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
		/* What is known of it is late rather than early: a sleep may seem to begin after the stop that ended it. */
		.known = since && since < thread->frozen_at_ns + LATE_NS,
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
	/* Nobody can block it, so that it would come in the middle of Cairn's calls. */
	if (rc == 0 && !thread->process->job_stopped && ((thread->status.signal_pending | thread->status.shared_pending) >> (SIGSTOP - 1) & 1))
		return fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "thread %d: is just being stopped by a signal; try again", thread->tid);
	return rc < 0 ? rc : suspend_filters(harvest, thread, fault);
}

/* Stops all threads of one process: new ones may appear until the last is stopped. */
static int freeze_process(struct harvest *harvest, struct frozen_process *process, const struct deadline *deadline, struct fault *fault)
{
	size_t stopped = 0;
	for (bool found = true; found;) {
		found = false;
		int rc = seize_new_threads(harvest, process, &found, fault);
		for (; rc == 0 && stopped < process->threads.count; stopped++) {
			rc = wait_thread(process->threads.at[stopped], deadline, fault);
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

/* ---- the tree ---- */

/* The tree while it is being frozen. */
struct freezing {
	struct harvest *harvest;
	const struct deadline *deadline;
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
	int rc = process->zombie ? 0 : proc_children(process->pid, &children, fault);
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
			rc = seize_new_threads(freezing->harvest, process, &found, fault);
		if (rc < 0 && rc != -ESRCH && rc != -ENOENT)
			return tree_at_process(process, rc, fault);
		/* A vfork child has to run on, or its parent cannot stop. */
		if (rc == 0 && proc_children(process->pid, &children, NULL) == 0 && children.pids.count && !may_wait_for_child(process))
			for (size_t c = 0; c < children.pids.count; c++)
				meet_process(freezing, children.pids.at[c], process);
		vec_finish(&children.pids);
		if (i % 64 == 0 && (rc = deadline_check(freezing->deadline, fault)) < 0)
			return rc;
	}
	return 0;
}

static bool has_ended(struct frozen_thread *thread, const struct deadline *deadline)
{
	struct fault fault; /* of what has ended nothing is said */
	struct stop stop = { .kind = STOP_INTERRUPT };
	if (thread->seized && !thread->stopped)
		return wait_thread(thread, deadline, &fault) == -ESRCH;
	return !thread->seized || (ptrace_wait_stop(thread->tid, 50000000, &stop, NULL) == 0 && stop.kind == STOP_ENDED);
}

/* All of its threads have ended. A zombie that its parent, which stands still, has not seen yet is part of the tree. */
static int bury(struct freezing *freezing, struct frozen_process *process)
{
	for (; process->threads.count; process->threads.count--)
		if (!has_ended(process->threads.at[process->threads.count - 1], freezing->deadline))
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
	int rc;
	process->zombie = look_for_zombie(process, &rc, fault);
	if (rc == 0 && process->zombie && target)
		rc = fault_set(fault, FAULT_VANISHED, ESRCH, "ended before it could be frozen");
	if (rc == 0 && !process->zombie)
		rc = freeze_process(harvest, process, freezing->deadline, fault);
	else if (rc == 0 && process->threads.count) /* seized, and ended since */
		rc = -ESRCH;
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

/* A process whose parent ended before it was frozen has come to another one. */
static int find_parents(struct freezing *freezing, struct fault *fault)
{
	struct harvest *harvest = freezing->harvest;
	bool moved = false;
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

static void freezing_finish(struct freezing *freezing)
{
	vec_finish(&freezing->known);
}

int freeze_tree(struct harvest *harvest, pid_t root, const struct deadline *deadline, struct fault *fault)
{
	__attribute__((cleanup(freezing_finish))) struct freezing freezing = { .harvest = harvest, .deadline = deadline };
	meet_process(&freezing, root, NULL);
	int rc = meet_adopted(&freezing, fault);
	if (rc == 0)
		rc = seize_all(&freezing, fault);
	if (rc == 0)
		rc = freeze_all(&freezing, fault);
	/* What /proc said of a process before all its threads stood still may have changed since. */
	for (size_t i = 0; rc == 0 && i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		rc = tree_read_process(harvest, process, fault);
		if (rc < 0)
			tree_at_process(process, rc, fault);
	}
	if (rc == 0)
		rc = find_parents(&freezing, fault);
	return rc < 0 ? rc : check_whole(harvest, fault);
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
	if (thread->guest.held_stop && !thread->process->job_stopped)
		kill(thread->process->pid, SIGSTOP);
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
