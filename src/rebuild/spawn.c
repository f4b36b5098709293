/* SPDX-License-Identifier: Apache-2.0 */
/* Births: the root by Cairn itself, every other process by its parent, each with the PID it had (clone3 set_tid, 5.5). What the
 * kernel gives only at birth, parent and session, is given by who makes whom, and when:
 *   - a session comes from the parent at birth, or is made by the process itself. A child of an older session than its
 *     parent's own is born before the parent makes that;
 *   - a root whose session's leader is long gone is born of a helper with the leader's number, which ends at once; the root then comes
 *     to Cairn, its subreaper;
 *   - so are members of such a session further down: their parent, for that time a subreaper, bears the helper, and gets them from it;
 *   - groups are joined when all processes exist; a group whose leader is gone is led by a helper until it is joined. */
#include <errno.h>
#include <fcntl.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "rebuild/heritage.h"

/* Everything but what the end of a batch needs (force_sig resets the action of a blocked signal). */
#define NEWBORN_MASK (~(UINT64_C(1) << (SIGTRAP - 1)))

static struct clone_args birth_args(uint64_t flags, uint64_t exit_signal, uint64_t tid_address)
{
	return (struct clone_args){
		.flags = flags, .exit_signal = exit_signal, .set_tid = tid_address, .set_tid_size = 1,
	};
}

/* A number is given back last when somebody ends, after /proc and kill(2) have ceased to know him (kernel/exit.c release_task, 6.18): those of a tree that
 * was just killed, or of a thread of Cairn's own. So one that is taken is tried again for a while. */
static bool may_be_free_soon(int64_t result, unsigned *tries)
{
	enum { MOST_TRIES = 1000 };
	if (result != -EEXIST || ++*tries > MOST_TRIES)
		return false;
	clock_sleep_ns(1000000);
	return true;
}

/* @pid 0: any; by clone(2), because filters that containers set let clone3 pass for nobody who may not choose. */
static pid_t clone_with_pid(pid_t pid, uint64_t exit_signal)
{
	pid_t tid = pid;
	struct clone_args args = birth_args(0, exit_signal, (uint64_t)(uintptr_t)&tid);
	if (!pid)
		return (pid_t)syscall(SYS_clone, exit_signal, NULL, NULL, NULL, 0UL);
	unsigned tries = 0;
	pid_t born;
	do
		born = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	while (born < 0 && may_be_free_soon(-errno, &tries));
	return born;
}

static int birth_fault(struct fault *fault, pid_t pid, int error)
{
	if (error == EEXIST)
		return fault_set(fault, FAULT_FAILED, EEXIST, "PID %d is taken; try --pids private", pid);
	if (error == EPERM)
		return fault_set(fault, FAULT_PERMISSION, EPERM,
				 "process %d: choosing its PID needs CAP_CHECKPOINT_RESTORE; try --pids private, or --pids any for a "
				 "program that can bear another", pid);
	if (error == ENOSYS)
		return fault_set(fault, FAULT_PERMISSION, ENOSYS, "process %d: choosing its PID needs clone3, which a seccomp filter hides here "
				 "(Docker's default); try Docker's --security-opt seccomp=unconfined, or --pids any", pid);
	return fault_set(fault, fault_class_of(error), error, "process %d: clone3: %s", pid, strerror(error));
}

/* What runs in the root newborn until it is seized: nothing but waiting. Its maker's death is its own, also one that came before the
 * prctl. A root born of a helper waits for that to end, and comes to @maker. */
__attribute__((noreturn)) static void wait_to_be_seized(pid_t maker, pid_t helper)
{
	const struct timespec shortly = { 0, 100000 };
	while (helper && getppid() == helper)
		nanosleep(&shortly, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != maker)
		_exit(1);
	for (;;)
		syscall(SYS_pause);
}

/* A helper leads the old session, and the root is its child. *ret_session is the helper's number. */
static pid_t birth_in_old_session(pid_t session, pid_t root, uint64_t exit_signal, pid_t *ret_session)
{
	pid_t maker = getpid(), born = 0;
	int ends[2], status;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	_close_ int from = ends[0], to = ends[1];
	pid_t helper = clone_with_pid(session, SIGCHLD);
	if (helper == 0) {
		pid_t own = setsid();
		born = clone_with_pid(root, exit_signal);
		if (born == 0)
			wait_to_be_seized(maker, own);
		_exit(born < 0 ? errno : write(to, &born, sizeof born) == sizeof born ? 0 : EIO);
	}
	if (helper < 0 || waitpid(helper, &status, __WALL) < 0)
		return -1;
	errno = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
	if (errno || read(from, &born, sizeof born) != sizeof born)
		return -1;
	*ret_session = helper;
	return born;
}

/* Cairn's own rseq area, which a child inherits: it has to go before its memory does, or the kernel kills the newborn at the next
 * preemption (DESIGN.md section 2). */
static void add_rseq_end(const struct rebuild *rebuild, struct batch *batch)
{
	enum { RSEQ_FLAG_UNREGISTER_ = 1, GLIBC_SIGNATURE = 0x53053053 };
	if (rebuild->own_rseq)
		batch_try(batch, rseq, rebuild->own_rseq, rebuild->own_rseq_size, RSEQ_FLAG_UNREGISTER_, GLIBC_SIGNATURE);
}

static int empty_root(struct rebuild *rebuild, struct rebuild_process *root, struct fault *fault)
{
	struct rebuild_thread *leader = root->threads.at[0];
	const uint64_t inbox = (uint64_t)rebuild->inbox_number;
	struct batch batch;
	newborn_batch(&root->newborn, &batch);
	batch_call(&batch, prctl, PR_SET_PDEATHSIG, 0);
	add_rseq_end(rebuild, &batch);
	batch_call(&batch, set_robust_list, 0, sizeof(void *) * 3);
	batch_call(&batch, set_tid_address, 0);
	heritage_unmap_rest(root, &batch);
	if (rebuild->inbox != rebuild->inbox_number)
		batch_call(&batch, dup3, (uint64_t)rebuild->inbox, inbox, 0);
	batch_call(&batch, close_range, 0, inbox - 1, 0);
	batch_call(&batch, close_range, inbox + 1, UINT32_MAX, 0);
	int rc = newborn_run(&leader->newborn, &batch, fault);
	batch_finish(&batch);
	return rc;
}

static int spawn_root(struct rebuild *rebuild, struct rebuild_process *root, struct fault *fault)
{
	const Cairn__Process *record = root->plan->process;
	struct newborn_thread *leader = newborn_leader(root);
	const bool any = rebuild->options.any_pids;
	pid_t pid = any ? 0 : (pid_t)record->pid;
	bool old_session = record->session != record->pid && !record->session_outside;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t maker = getpid(), session = 0;
	pid_t born = old_session ? birth_in_old_session(any ? 0 : (pid_t)record->session, pid, SIGCHLD, &session) :
				   clone_with_pid(pid, SIGCHLD);
	if (born == 0)
		wait_to_be_seized(maker, 0);
	if (born < 0)
		return birth_fault(fault, (pid_t)record->pid, errno);
	pid = born;
	numbers_note(root, 0, record->pid, born);
	if (session)
		*vec_add(&rebuild->workshop.numbers) = (struct workshop_number){ record->session, session };
	root->made = true;
	int rc = ptrace_seize(pid, true, fault);
	if (rc < 0)
		kill(pid, SIGKILL);
	if (rc == 0)
		rc = ptrace_interrupt(pid, fault);
	if (rc == 0)
		rc = newborn_arrive(leader, fault);
	if (rc == 0)
		rc = ptrace_set_mask(pid, NEWBORN_MASK, fault);
	return rc < 0 ? rc : empty_root(rebuild, root, fault);
}

/* A zombie: exits, or dies of the signal that ended it. Nothing may dump core for it. */
static int end_newborn(struct rebuild_process *process, struct fault *fault)
{
	int status = process->plan->process->wait_status;
	struct newborn_thread *leader = newborn_leader(process);
	const uint64_t no_core[2] = { 0, 0 };
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	struct batch_place limit = batch_data(&batch, no_core, sizeof no_core);
	struct batch_place name = batch_data(&batch, process->plan->process->command,
					     strnlen(process->plan->process->command, 63) + 1);
	batch_call(&batch, prlimit64, 0, 4 /* RLIMIT_CORE */, limit.address, 0);
	batch_call(&batch, prctl, PR_SET_NAME, name.address);
	int rc = newborn_run(leader, &batch, fault);
	batch_finish(&batch);
	if (rc == 0)
		rc = ptrace_set_mask(leader->tid, 0, fault);
	if (rc == 0 && WIFSIGNALED(status)) {
		rc = ptrace_resume(leader->tid, PTRACE_CONT, WTERMSIG(status), fault);
	} else if (rc == 0) {
		newborn_batch(&process->newborn, &batch);
		batch_call(&batch, exit_group, (uint64_t)WEXITSTATUS(status));
		struct registers registers = leader->birth;
		registers_enter(&registers, process->newborn.code + (uint64_t)(stub_batch - stub_begin));
		registers_batch(&registers, process->newborn.area, process->newborn.area + sizeof(struct stub_call), 0, 0);
		rc = memory_write(leader->tid, process->newborn.area, batch.pieces.at[0].calls, sizeof(struct stub_call),
				  fault);
		if (rc == 0)
			rc = ptrace_set_registers(leader->tid, &registers, fault);
		if (rc == 0)
			rc = ptrace_resume(leader->tid, PTRACE_CONT, 0, fault);
		batch_finish(&batch);
	}
	struct stop stop = { 0 };
	while (rc == 0 && stop.kind != STOP_ENDED) {
		rc = ptrace_wait_stop(leader->tid, UINT64_MAX, &stop, fault);
		if (rc == 0 && stop.kind != STOP_ENDED)
			rc = ptrace_resume(leader->tid, PTRACE_CONT, stop.kind == STOP_SIGNAL ? stop.signal : 0, fault);
	}
	process->ended = true;
	return rc;
}

/* Children of @parent: those of a session older than its own before it makes that, or the others after. */
static bool born_before(const struct rebuild_process *parent, const struct rebuild_process *child)
{
	const Cairn__Process *up = parent->plan->process, *down = child->plan->process;
	return up->session == up->pid && down->session != up->session && down->session != down->pid;
}

/* A birth by a newborn. Returns the call's number; it may fail. */
static size_t add_birth(const struct newborn_process *parent, struct batch *batch, uint64_t flags, uint64_t exit_signal, pid_t pid)
{
	if (parent->workshop->renumber)
		return batch_try(batch, clone, flags | exit_signal, 0, 0, 0, 0);
	struct batch_place tid = batch_data(batch, &pid, sizeof pid);
	struct clone_args args = birth_args(flags, exit_signal, tid.address);
	struct batch_place place = batch_data(batch, &args, sizeof args);
	return batch_try(batch, clone3, place.address, sizeof args);
}

/* @parent: or a brother who shares with the child what it is to have (share_flags). */
static int bear(struct rebuild_process *parent, struct rebuild_process *child, struct fault *fault)
{
	const Cairn__Process *record = child->plan->process;
	const uint64_t flags = child->plan->share_flags; /* CLONE_PARENT: with the brother's exit signal */
	pid_t pid = (pid_t)record->pid;
	struct pid_list births = { 0 };
	struct batch batch;
	newborn_batch(&parent->newborn, &batch);
	size_t call = add_birth(&parent->newborn, &batch, flags, flags & CLONE_PARENT ? 0 : record->exit_signal, pid);
	unsigned tries = 0;
	int rc;
	do
		rc = newborn_run_births(newborn_leader(parent), &batch, &births, fault);
	while (rc == 0 && may_be_free_soon(batch_result(&batch, call), &tries));
	if (rc == 0 && batch_result(&batch, call) < 0)
		rc = birth_fault(fault, pid, (int)-batch_result(&batch, call));
	if (rc == 0 && births.pids.count != 1)
		rc = fault_set(fault, FAULT_FAILED, EIO, "process %d: its birth was not seen", pid);
	if (rc == 0) {
		numbers_note(child, 0, record->pid, births.pids.at[0]);
		child->made = true;
		rc = newborn_arrive(newborn_leader(child), fault);
		if (rc == 0 && parent->is_loaded && !(flags & CLONE_VM))
			rc = heritage_take(child, fault);
	}
	batch_finish(&batch);
	vec_finish(&births.pids);
	return rc;
}

static int spawn_below(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);

static struct rebuild_process *find_process(const struct rebuild *rebuild, uint32_t pid)
{
	for (size_t i = 0; i < rebuild->processes.count; i++)
		if (rebuild->processes.at[i]->plan->process->pid == pid)
			return rebuild->processes.at[i];
	return NULL;
}

/* Is the child in a session of its own tree that nobody leads any more, and its parent is not in? */
static bool needs_session_helper(const struct rebuild *rebuild, const struct rebuild_process *parent,
				 const struct rebuild_process *child)
{
	const Cairn__Process *record = child->plan->process;
	return record->session != parent->plan->process->session && !record->session_outside &&
	       !find_process(rebuild, record->session);
}

/* A PID for a process that lives only for a moment: none of those that are to be made, and free here. */
static uint32_t free_number(const struct rebuild *rebuild)
{
	char path[64];
	for (uint32_t number = 300;; number++) {
		bool taken = false;
		for (size_t i = 0; i < rebuild->processes.count && !taken; i++)
			for (size_t t = 0; t < rebuild->processes.at[i]->threads.count && !taken; t++)
				taken = rebuild->processes.at[i]->threads.at[t]->newborn.tid == (pid_t)number;
		snprintf(path, sizeof path, "/proc/%u", number);
		if (!taken && access(path, F_OK) < 0)
			return number;
	}
}

/* A process that is only there for its number: the leader of a group or session that has ended. */
struct helper {
	Cairn__Process record;
	struct plan_process plan;
	struct rebuild_process process;
	struct rebuild_thread thread;
};

static int helper_bear(struct rebuild_process *parent, uint32_t number, struct helper *helper, struct fault *fault)
{
	*helper = (struct helper){ .record = CAIRN__PROCESS__INIT };
	helper->record.pid = number;
	helper->record.exit_signal = SIGCHLD;
	helper->record.command = parent->plan->process->command;
	helper->plan.process = &helper->record;
	helper->process.plan = &helper->plan;
	helper->process.newborn = parent->newborn;
	helper->process.template = parent->template;
	helper->process.newborn.pid = (pid_t)number;
	helper->thread.newborn.process = &helper->process.newborn;
	helper->thread.newborn.tid = (pid_t)number;
	*vec_add(&helper->process.threads) = &helper->thread;
	return bear(parent, &helper->process, fault);
}

/* Ends it, and has @parent wait for it. */
static int helper_end(struct rebuild_process *parent, struct helper *helper, struct fault *fault)
{
	int rc = end_newborn(&helper->process, fault);
	if (rc == 0) {
		struct batch batch;
		newborn_batch(&parent->newborn, &batch);
		batch_call(&batch, wait4, (uint64_t)helper->process.newborn.pid, 0, __WALL, 0);
		rc = newborn_run(newborn_leader(parent), &batch, fault);
		batch_finish(&batch);
	}
	vec_finish(&helper->process.threads);
	return rc;
}

static int run_one(struct rebuild_process *process, long number, const char *name, const uint64_t args[6],
		   struct fault *fault)
{
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	batch_call_raw(&batch, name, false, number, args);
	int rc = newborn_run(newborn_leader(process), &batch, fault);
	batch_finish(&batch);
	return rc;
}
#define RUN_ONE(process, call, fault, ...) run_one((process), __NR_##call, #call, BATCH_ARGS(__VA_ARGS__), (fault))

/* All children of @parent that are in the leaderless session @session. */
static int bear_in_session(struct rebuild *rebuild, struct rebuild_process *parent, uint32_t session,
			   struct fault *fault)
{
	struct helper helper = { 0 };
	int rc = RUN_ONE(parent, prctl, fault, PR_SET_CHILD_SUBREAPER, 1);
	if (rc == 0)
		rc = helper_bear(parent, session, &helper, fault);
	if (rc < 0)
		return rc;
	rc = RUN_ONE(&helper.process, setsid, fault, 0);
	for (struct rebuild_process *child = parent->first_child; rc == 0 && child; child = child->next_sibling)
		if (child->plan->process->session == session)
			rc = bear(&helper.process, child, fault);
	if (rc == 0)
		rc = helper_end(parent, &helper, fault);
	if (rc == 0)
		rc = RUN_ONE(parent, prctl, fault, PR_SET_CHILD_SUBREAPER, 0);
	for (struct rebuild_process *child = parent->first_child; rc == 0 && child; child = child->next_sibling)
		if (child->plan->process->session == session)
			rc = spawn_below(rebuild, child, fault);
	return rc;
}

static struct rebuild_process *bearer_of(const struct rebuild *rebuild, const struct rebuild_process *child, struct rebuild_process *parent)
{
	return child->plan->bearer ? rebuild->processes.at[child->plan->bearer->index] : parent;
}

static int bear_children(struct rebuild *rebuild, struct rebuild_process *process, bool before, struct fault *fault)
{
	for (struct rebuild_process *child = process->first_child; child; child = child->next_sibling) {
		int rc = 0;
		if (needs_session_helper(rebuild, process, child)) {
			if (!before && !child->made)
				rc = bear_in_session(rebuild, process, child->plan->process->session, fault);
		} else if (born_before(process, child) == before) {
			rc = bear(bearer_of(rebuild, child, process), child, fault);
			if (rc == 0) /* zombies have nobody below, but may have made a session that orphans of theirs are in */
				rc = spawn_below(rebuild, child, fault);
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* A leader of a session without a terminal gets the one that it opens as its own (tty_io.c tty_open_proc_set_tty). A newborn has no
 * descriptor but the inbox: what it opens is 0. */
static int with_terminal(struct rebuild_process *process, uint64_t flags, pid_t foreground, struct fault *fault)
{
	const char *path = workshop_terminal(process->newborn.workshop, process->plan->process->terminal);
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	struct batch_place name = batch_data(&batch, path, strlen(path) + 1);
	struct batch_place group = batch_data(&batch, &foreground, sizeof foreground);
	batch_call(&batch, openat, (uint64_t)AT_FDCWD, name.address, O_RDWR | flags, 0);
	if (foreground)
		batch_try(&batch, ioctl, 0, TIOCSPGRP, group.address);
	batch_call(&batch, close, 0);
	int rc = newborn_run(newborn_leader(process), &batch, fault);
	batch_finish(&batch);
	return rc;
}

static int take_terminal(struct rebuild_process *process, struct fault *fault)
{
	if (!workshop_terminal(process->newborn.workshop, process->plan->process->terminal))
		return 0;
	return with_terminal(process, 0, 0, fault);
}

/* The group that was in the foreground, if anybody is in it. */
static uint32_t foreground_of(const struct rebuild *rebuild, const Cairn__Process *leader)
{
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		const Cairn__Process *record = rebuild->processes.at[i]->plan->process;
		if (record->foreground && record->session == leader->pid && record->terminal == leader->terminal && !record->zombie)
			return record->group;
	}
	return 0;
}

int spawn_terminals(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	const Cairn__Process *record = process->plan->process;
	uint32_t group = record->session == record->pid && workshop_terminal(&rebuild->workshop, record->terminal) ?
				 foreground_of(rebuild, record) : 0;
	if (!group)
		return 0;
	return with_terminal(process, O_NOCTTY, workshop_task(&rebuild->workshop, group), fault);
}

static int spawn_below(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	int rc = process->bears_heirs ? heritage_load(rebuild, process, fault) : 0;
	if (rc == 0)
		rc = bear_children(rebuild, process, true, fault);
	if (rc == 0 && process->plan->process->session == process->plan->process->pid) {
		rc = RUN_ONE(process, setsid, fault, 0);
		/* Its children inherit it, and cannot get it in another way. */
		if (rc == 0)
			rc = take_terminal(process, fault);
	}
	if (rc == 0)
		rc = bear_children(rebuild, process, false, fault);
	return rc < 0 || !process->is_loaded ? rc : heritage_end(process, fault);
}

/* An orphan whose session's leader lives: a child of the leader's bears it and ends, and it comes to Cairn, the subreaper, as it once
 * came to its adopter. */
static int bear_orphan(struct rebuild *rebuild, struct rebuild_process *leader, struct rebuild_process *orphan,
		       struct fault *fault)
{
	struct helper helper = { 0 };
	int rc = helper_bear(leader, free_number(rebuild), &helper, fault);
	if (rc == 0)
		rc = bear(&helper.process, orphan, fault);
	return rc < 0 ? rc : helper_end(leader, &helper, fault);
}

int spawn_tree(struct rebuild *rebuild, struct fault *fault)
{
	int rc = 0;
	/* Sessions are handed down by those who live in them: these first. */
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; rc == 0 && i < rebuild->processes.count; i++) {
			struct rebuild_process *process = rebuild->processes.at[i];
			const Cairn__Process *record = process->plan->process;
			struct rebuild_process *leader = record->session == record->pid || record->session_outside ?
								 NULL : find_process(rebuild, record->session);
			/* What a root shares with an earlier one, that one hands down, with its session. */
			struct rebuild_process *brother = bearer_of(rebuild, process, NULL);
			if (process->parent || (leader || brother) != pass)
				continue;
			rc = brother ? bear(brother, process, fault) : leader ? bear_orphan(rebuild, leader, process, fault) : spawn_root(rebuild, process, fault);
			if (rc == 0)
				rc = spawn_below(rebuild, process, fault);
		}
	return rc;
}

static int join_group(struct rebuild_process *process, pid_t group, struct fault *fault)
{
	return RUN_ONE(process, setpgid, fault, 0, (uint64_t)workshop_task(process->newborn.workshop, (uint32_t)group));
}

/* All members of group @group join it. */
static int join_members(struct rebuild *rebuild, uint32_t group, struct fault *fault)
{
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		const Cairn__Process *record = process->plan->process;
		if (record->group != group || record->pid == group || record->session == record->pid)
			continue;
		int rc = join_group(process, (pid_t)group, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* A group whose leader has ended: a child of the first member has its number for as long as it takes to join. */
static int lead_by_helper(struct rebuild *rebuild, struct rebuild_process *member, uint32_t group, struct fault *fault)
{
	struct helper helper = { 0 };
	int rc = helper_bear(member, group, &helper, fault);
	if (rc == 0)
		rc = join_group(&helper.process, 0, fault);
	if (rc == 0)
		rc = join_members(rebuild, group, fault);
	return rc < 0 ? rc : helper_end(member, &helper, fault);
}

static bool is_first_of_group(const struct rebuild *rebuild, size_t index)
{
	uint32_t group = rebuild->processes.at[index]->plan->process->group;
	for (size_t i = 0; i < index; i++)
		if (rebuild->processes.at[i]->plan->process->group == group)
			return false;
	return true;
}

int spawn_groups(struct rebuild *rebuild, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		uint32_t group = process->plan->process->group;
		if (process->plan->process->group_outside || !is_first_of_group(rebuild, i))
			continue;
		struct rebuild_process *leader = find_process(rebuild, group);
		if (!leader && process->plan->process->session == group) {
			/* The helper that led the session led this group too, and its children were born into it. */
			rc = join_members(rebuild, group, fault);
			continue;
		}
		if (!leader) {
			rc = lead_by_helper(rebuild, process, group, fault);
			continue;
		}
		if (leader->plan->process->session != leader->plan->process->pid)
			rc = join_group(leader, 0, fault);
		if (rc == 0)
			rc = join_members(rebuild, group, fault);
	}
	/* Zombies were needed for their groups until now; their parents must not see more of their end than the image says. */
	for (size_t i = 0; rc == 0 && i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		if (!process->plan->process->zombie)
			continue;
		rc = end_newborn(process, fault);
	}
	return rc;
}

/* One thread whose number was taken. */
static int bear_thread_again(struct rebuild_process *process, uint64_t flags, pid_t tid, struct pid_list *births, struct fault *fault)
{
	struct batch batch;
	unsigned tries = 0;
	int64_t result = -EEXIST;
	int rc = 0;
	newborn_batch(&process->newborn, &batch);
	size_t call = add_birth(&process->newborn, &batch, flags, 0, tid);
	while (rc == 0 && may_be_free_soon(result, &tries)) {
		rc = newborn_run_births(newborn_leader(process), &batch, births, fault);
		result = rc == 0 ? batch_result(&batch, call) : result;
	}
	batch_finish(&batch);
	return rc == 0 && result < 0 ? birth_fault(fault, tid, (int)-result) : rc;
}

int spawn_threads(struct rebuild_process *process, struct fault *fault)
{
	const uint64_t flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	struct pid_list births = { 0 };
	struct batch batch;
	if (process->threads.count < 2)
		return 0;
	newborn_batch(&process->newborn, &batch);
	_free_ size_t *calls = memory_new(process->threads.count * sizeof *calls);
	for (size_t i = 1; i < process->threads.count; i++) {
		pid_t tid = process->threads.at[i]->newborn.tid;
		batch_group(&batch, 1, 512);
		calls[i] = add_birth(&process->newborn, &batch, flags, 0, tid);
	}
	int rc = newborn_run_births(newborn_leader(process), &batch, &births, fault);
	for (size_t i = 1; rc == 0 && i < process->threads.count; i++) {
		int64_t result = batch_result(&batch, calls[i]);
		if (result == -EEXIST)
			rc = bear_thread_again(process, flags, process->threads.at[i]->newborn.tid, &births, fault);
		else if (result < 0)
			rc = birth_fault(fault, process->threads.at[i]->newborn.tid, (int)-result);
	}
	if (rc == 0 && births.pids.count + 1 != process->threads.count)
		rc = fault_set(fault, FAULT_FAILED, EIO, "process %d: not all births of its threads were seen", process->newborn.pid);
	for (size_t i = 1; rc == 0 && i < process->threads.count; i++) {
		/* In the order of their birth, unless they have the numbers that were asked for. */
		const pid_t born = process->newborn.workshop->renumber ? births.pids.at[i - 1] : process->threads.at[i]->newborn.tid;
		numbers_note(process, i, process->threads.at[i]->plan->tid, born);
		rc = newborn_arrive(&process->threads.at[i]->newborn, fault);
	}
	batch_finish(&batch);
	vec_finish(&births.pids);
	return rc;
}
