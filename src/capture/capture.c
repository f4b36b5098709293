/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/capture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "capture/sharing.h"
#include "capture/files.h"
#include "capture/tree.h"

static bool is_ancestor_or_self(pid_t pid)
{
	for (pid_t at = getpid(); at > 0;) {
		struct proc_stat stat;
		if (at == pid)
			return true;
		if (proc_stat_read(at, 0, &stat, NULL) < 0)
			return false;
		at = stat.parent;
	}
	return false;
}

int capture_check_target(pid_t target, struct fault *fault)
{
	struct proc_stat stat;
	int rc = proc_stat_read(target, 0, &stat, fault);
	if (rc < 0) {
		if (rc == -ESRCH || rc == -ENOENT)
			return fault_set(fault, FAULT_VANISHED, ESRCH,
					 "process %d: no such process; try `ps` for the PIDs that exist", target);
		return fault_at(fault, rc, "process %d", target);
	}
	if (stat.flags & PROC_PF_KTHREAD)
		return fault_set(fault, FAULT_UNSUPPORTED, EINVAL,
				 "process %d (%s): is a kernel thread, which has no memory of its own to save; try a "
				 "program's PID", target, stat.command);
	if (target == 1)
		return fault_set(fault, FAULT_UNSUPPORTED, EINVAL,
				 "process 1 (%s): is the init of this PID namespace and cannot be replaced; try one of "
				 "the processes below it", stat.command);
	if (is_ancestor_or_self(target))
		return fault_set(fault, FAULT_UNSUPPORTED, EINVAL,
				 "process %d (%s): is %s; try from another shell or terminal", target, stat.command,
				 target == getpid() ? "Cairn itself" :
						      "an ancestor of this Cairn, which would freeze with it");
	if ((stat.state == 'Z' && stat.threads <= 1) || stat.state == 'X')
		return fault_set(fault, FAULT_VANISHED, ESRCH,
				 "process %d (%s): has ended and only waits for its parent to notice; try another PID",
				 target, stat.command);
	return 0;
}

static void find_bulletins(const struct harvest *harvest, struct bulletin_list *list)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		uint64_t address = process->space ? bulletin_in(&process->space->maps) : 0;
		if (address)
			*vec_add(&list->places) = (struct bulletin_place){ process->view, address };
	}
}

bool capture_needs_deputy(const struct harvest *survey)
{
	bool needs = false;
	for (size_t i = 0; i < survey->spaces.count; i++)
		for (const struct kind *const *kind = kinds; *kind; kind++)
			needs |= (*kind)->by_deputy && tree_has_map(survey->spaces.at[i], *kind);
	for (size_t i = 0; i < survey->processes.count && !survey->policy.filtered; i++)
		needs |= survey->processes.at[i]->status.seccomp != 0;
	for (size_t i = 0; i < survey->files.count; i++)
		needs |= survey->files.at[i]->kind && survey->files.at[i]->kind->by_deputy;
	return needs;
}

/* What an earlier save left armed in one process's memory is armed in that of all who share it. */
static void spread_tracking(struct harvest *harvest)
{
	sharing_find_memory(harvest);
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < harvest->processes.count; i++) {
			const struct frozen_process *process = harvest->processes.at[i], *owner = process->shares[SHARE_VM];
			if (!process->space || !owner->space)
				continue;
			bool tracked = process->space->tracked || owner->space->tracked;
			process->space->tracked = owner->space->tracked = tracked;
		}
}

int capture_survey(struct harvest *harvest, pid_t target, const struct capture_policy *policy, struct fault_list *refusals,
		   struct bulletin_list *ret_bulletins, struct fault *fault)
{
	*harvest = (struct harvest){ .policy = *policy };
	int rc = tree_survey(harvest, target, fault);
	if (rc == 0 && policy->tracking && policy->tracking->spaces.count)
		spread_tracking(harvest);
	if (rc == 0) {
		for (size_t i = 0; i < harvest->processes.count; i++) {
			struct frozen_process *process = harvest->processes.at[i];
			struct fault refusal;
			int traced = process->status.tracer ?
				fault_set(&refusal, FAULT_UNSUPPORTED, EBUSY, "is traced by process %d already; try "
					  "again when that debugger or tracer is detached", process->status.tracer) : 0;
			if (traced < 0) {
				tree_at_process(process, traced, &refusal);
				fault_list_add(refusals, &refusal);
			}
		}
		sharing_note_adjustments(harvest);
		tree_refusals(harvest, refusals);
		sharing_refuse_outside(harvest, refusals);
		if (ret_bulletins)
			find_bulletins(harvest, ret_bulletins);
	}
	return rc;
}

/* Process and space kinds are asked of the leader. */
static bool is_asked(const struct kind *kind, const struct frozen_process *process, bool leader)
{
	return kind->scope == SCOPE_THREAD || (leader && kind->scope == SCOPE_PROCESS) ||
	       (leader && kind->scope == SCOPE_SPACE && frozen_owns(process, SHARE_VM));
}

void frozen_batch(const struct frozen_thread *thread, struct batch *ret_batch)
{
	batch_init(ret_batch, thread->process->space->foothold.area);
}

int frozen_run(struct frozen_thread *thread, struct batch *batch, struct fault *fault)
{
	return foothold_run(&thread->process->space->foothold, &thread->guest, batch, fault);
}

/* What a thread has answered for itself and, if it leads, for its process. */
enum { MOST_KINDS = 64 };
struct answers {
	struct frozen_thread *thread; /* NULL: there are none, or they have been taken */
	bool leader;
	void *notes[MOST_KINDS];
	struct batch batch;
};

/* The answers of a thread are taken while the next one makes its calls, for which there is nothing to do but to wait. */
struct questioning {
	struct harvest *harvest;
	struct answers before;
	bool failed; /* to take those; the fault says whose they were */
	struct fault fault;
};

static int take_answers(struct harvest *harvest, struct answers *answers, struct fault *fault)
{
	struct frozen_thread *thread = answers->thread;
	int rc = 0;
	for (unsigned k = 0; thread && rc == 0 && kinds[k]; k++)
		if (is_asked(kinds[k], thread->process, answers->leader) && kinds[k]->capture)
			rc = kinds[k]->capture(harvest, thread, &answers->batch, answers->notes[k], fault);
	batch_finish(&answers->batch);
	*answers = (struct answers){ 0 };
	return rc < 0 ? tree_at_process(thread->process, rc, fault) : 0;
}

/* What fails here is told when the thread that works now is back. */
static int attend(void *context, struct fault *fault)
{
	struct questioning *questioning = context;
	(void)fault;
	if (!questioning->failed)
		questioning->failed = take_answers(questioning->harvest, &questioning->before, &questioning->fault) < 0;
	return 0;
}

static int take_last(struct questioning *questioning, struct fault *fault)
{
	attend(questioning, NULL);
	if (questioning->failed)
		*fault = questioning->fault;
	return questioning->failed ? -(fault->error ? fault->error : EIO) : 0;
}

/* One thread answers for itself and, if it leads, for its process. */
static int ask_thread(struct questioning *questioning, struct frozen_thread *thread, bool leader, bool last, struct fault *fault)
{
	struct harvest *harvest = questioning->harvest;
	struct answers now = { .thread = thread, .leader = leader };
	struct foothold *foothold = &thread->process->space->foothold;
	/* A thread rests for half a second only: what was late once (files on a network) is not done meanwhile again. */
	int rc = harvest->policy.unhurried ? take_last(questioning, fault) : 0;
	if (rc == 0)
		rc = foothold_enter(foothold, &thread->guest, fault);
	batch_init(&now.batch, foothold->area);
	for (unsigned k = 0; rc == 0 && kinds[k]; k++) {
		batch_group(&now.batch, 16, 8192);
		if (is_asked(kinds[k], thread->process, leader) && kinds[k]->ask)
			rc = kinds[k]->ask(harvest, thread, &now.batch, &now.notes[k], fault);
	}
	if (rc == 0)
		rc = foothold_run_attended(foothold, &thread->guest, &now.batch, attend, questioning, fault);
	for (unsigned k = 0; rc == 0 && leader && frozen_owns(thread->process, SHARE_VM) && kinds[k]; k++)
		rc = kinds[k]->visit ? kinds[k]->visit(harvest, thread, fault) : 0;
	struct fault leaving;
	int left = foothold_leave(foothold, &thread->guest, last || rc < 0, &leaving);
	if (rc == 0 && left < 0) {
		*fault = leaving;
		rc = left;
	}
	if (rc == 0 && thread->guest.held_stop && !thread->process->job_stopped) /* a stopped one needs no other stop */
		rc = fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "thread %d: is just being stopped by a signal; try again", thread->tid);
	if (rc == 0 || questioning->failed)
		rc = take_last(questioning, fault); /* there may have been nothing to wait for */
	else
		tree_at_process(thread->process, rc, fault);
	if (rc == 0)
		questioning->before = now;
	else
		batch_finish(&now.batch);
	return rc;
}

static int read_xstates(const struct frozen_process *process, struct fault *fault)
{
	for (size_t i = 0; i < process->threads.count; i++) {
		struct frozen_thread *thread = process->threads.at[i];
		_free_ uint8_t *xstate = memory_new(XSTATE_MAX);
		size_t size = XSTATE_MAX;
		int rc = ptrace_get_xstate(thread->tid, xstate, &size, fault);
		if (rc < 0)
			return rc;
		thread->xstate = memory_new(size);
		memcpy(thread->xstate, xstate, size);
		thread->xstate_size = size;
	}
	return 0;
}

/* What is behind each mapping, as the id of an object. */
static int capture_maps(struct harvest *harvest, struct frozen_process *process, struct fault *fault)
{
	struct frozen_space *space = process->space;
	space->objects = ARENA_ARRAY(&harvest->arena, uint32_t, space->maps.maps.count);
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		const struct kind *const *kind = kinds;
		while (map->inode && *kind && !((*kind)->probe_map && (*kind)->probe_map(map)))
			kind++;
		if (!map->inode)
			continue;
		if (!*kind)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "mapping 0x%llx-0x%llx of %s: cannot be carried by this version; try to checkpoint "
					 "when the program has unmapped it", (unsigned long long)map->start,
					 (unsigned long long)map->end, map->name);
		int rc = (*kind)->capture_map(harvest, process, map, &space->objects[i], fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int capture_find_foothold(struct frozen_process *process, const struct deadline *deadline, struct fault *fault)
{
	struct frozen_space *space = process->space;
	_free_ uint64_t *ips = memory_new(process->threads.count * sizeof *ips);
	for (size_t i = 0; i < process->threads.count; i++) {
		const struct frozen_thread *thread = process->threads.at[i];
		ips[i] = registers_ip(&thread->guest.home);
		/* Left alone, it would be killed on its way home. */
		if (thread->is_suspended)
			deadline = NULL;
	}
	return foothold_find(process->view, &space->maps, ips, process->threads.count, deadline, &space->foothold, fault);
}

/* A first thread that has ended while others live is a zombie, whose number and end the process still has. */
static int capture_ended(struct harvest *harvest, struct frozen_process *process, struct fault *fault)
{
	if (process->view == process->pid)
		return 0;
	struct frozen_thread *first = ARENA_NEW(&harvest->arena, struct frozen_thread);
	first->process = process;
	first->tid = process->pid;
	first->ended = true;
	int rc = proc_status_read(process->pid, 0, &harvest->arena, &first->status, fault);
	if (rc == 0)
		rc = proc_stat_read(process->pid, process->pid, &first->stat, fault);
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++)
		if ((*kind)->scope == SCOPE_THREAD && (*kind)->of_zombies)
			rc = (*kind)->capture(harvest, first, NULL, NULL, fault);
	return rc;
}

static int capture_zombie(struct harvest *harvest, struct frozen_process *process, struct fault *fault)
{
	struct frozen_thread *none = ARENA_NEW(&harvest->arena, struct frozen_thread);
	none->process = process;
	for (const struct kind *const *kind = kinds; *kind; kind++) {
		int rc = (*kind)->scope == SCOPE_PROCESS && (*kind)->of_zombies ?
				 (*kind)->capture(harvest, none, NULL, NULL, fault) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int capture_process(struct questioning *questioning, struct frozen_process *process, const struct deadline *deadline, struct fault *fault)
{
	struct harvest *harvest = questioning->harvest;
	int rc;
	if (process->zombie) { /* nothing can be asked of it; only its place in the tree is left */
		rc = take_last(questioning, fault);
		if (rc < 0)
			return rc;
		rc = capture_zombie(harvest, process, fault);
		return rc < 0 ? tree_at_process(process, rc, fault) : 0;
	}
	rc = capture_ended(harvest, process, fault);
	if (rc == 0)
		rc = read_xstates(process, fault);
	harvest->thread_count += (uint32_t)process->threads.count;
	if (rc == 0 && frozen_owns(process, SHARE_VM))
		rc = capture_maps(harvest, process, fault);
	if (rc == 0)
		rc = capture_find_foothold(process, deadline, fault);
	if (rc < 0)
		tree_at_process(process, rc, fault);
	for (size_t i = 0; rc == 0 && i < process->threads.count; i++)
		rc = ask_thread(questioning, process->threads.at[i], i == 0, i + 1 == process->threads.count, fault);
	return rc;
}

static int capture_processes(struct harvest *harvest, const struct deadline *deadline, struct fault *fault)
{
	struct questioning *questioning = memory_new(sizeof *questioning);
	questioning->harvest = harvest;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < harvest->processes.count; i++) {
		rc = capture_process(questioning, harvest->processes.at[i], deadline, fault);
		if (rc == 0)
			rc = deadline_check(deadline, fault);
	}
	if (rc == 0)
		rc = take_last(questioning, fault);
	batch_finish(&questioning->before.batch);
	free(questioning);
	return rc;
}

static int capture_files(struct harvest *harvest, struct fault *fault)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		int rc = file->kind->capture_file(harvest, file, fault);
		if (rc < 0) {
			fault_at(fault, rc, "process %d, fd %d", file->pid, file->fd);
			return rc;
		}
	}
	return 0;
}

/* The mappings; with what smaps says of them, if that is not known already or if asking is cheap. */
static int gather_space(struct frozen_process *process, const void *context, struct arena *arena, struct fault *fault)
{
	const struct capture_live *live = context;
	if (process->zombie || !frozen_owns(process, SHARE_VM))
		return 0;
	int rc = tree_read_maps(process, live->known ? MAPS_PLACES : MAPS_FLAGS, arena, fault);
	if (rc < 0 || !live->known)
		return rc;
	process->space->flags_adopted = tree_adopt_flags(process, live->known);
	if (!process->space->flags_adopted) {
		log_debug("process %d: mappings changed just before the freeze: all of smaps is read while it stands still",
			  process->pid);
		maps_finish(&process->space->maps);
		rc = tree_read_maps(process, MAPS_FLAGS, arena, fault);
	}
	return rc;
}

static int gather_spaces(struct harvest *harvest, const struct capture_live *live, struct fault *fault)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->zombie)
			continue;
		/* The one that owns it comes first. */
		if (frozen_owns(process, SHARE_VM))
			tree_add_space(harvest, process);
		else
			process->space = process->shares[SHARE_VM]->space;
	}
	int rc = tree_work(harvest, 0, gather_space, live, fault);
	for (size_t i = 0; rc == 0 && live->track && i < harvest->processes.count; i++)
		if (!harvest->processes.at[i]->zombie)
			track_adopt(live->track, harvest->processes.at[i]);
	return rc;
}

/* Is there anything against it? All is known then but what the threads have to be asked. */
static int judge(struct harvest *harvest, const struct capture_live *live, struct fault_list *refusals, struct fault *fault)
{
	sharing_find(harvest, live->survey);
	int rc = gather_spaces(harvest, live, fault);
	harvest->frozen = true;
	if (rc == 0)
		rc = files_read(harvest, fault);
	if (rc == 0 && tree_refusals(harvest, refusals)) {
		*fault = refusals->at[0];
		for (size_t i = 0; i < refusals->count; i++)
			fault->transient &= refusals->at[i].transient;
		return fault->error ? -fault->error : -ENOTSUP;
	}
	return rc;
}

int capture_rehearse(pid_t target, const struct harvest *survey, const struct deadline *deadline, struct fault_list *refusals, struct fault *fault)
{
	struct harvest harvest = { .policy = survey->policy };
	const struct capture_live live = { .known = survey };
	int rc = freeze_tree(&harvest, target, deadline, fault);
	if (rc == 0)
		rc = judge(&harvest, &live, refusals, fault);
	freeze_thaw(&harvest, FREEZE_RUN);
	log_debug("rehearsal, as there was a doubt: %s: %s", survey->doubts.at[0].text, rc < 0 ? fault->text : "nothing stands against it");
	harvest_finish(&harvest);
	if (rc == 0 || !fault->transient)
		return rc;
	fault_list_finish(refusals);
	return 0;
}

static int gather(struct harvest *harvest, const struct capture_live *live, const struct deadline *deadline, struct fault_list *refusals,
		  struct fault *fault)
{
	int rc = judge(harvest, live, refusals, fault);
	if (rc == 0)
		rc = capture_processes(harvest, deadline, fault);
	if (rc == 0)
		rc = capture_files(harvest, fault);
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++)
		rc = (*kind)->capture_tree ? (*kind)->capture_tree(harvest, fault) : 0;
	/* Last, as nothing may fail behind them but the pages. */
	return rc == 0 && live->twins ? twins_make(live->twins, harvest, deadline, fault) : rc;
}

int capture_depart(struct harvest *harvest, bool ends, struct fault *fault)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		int rc = file->kind->depart ? file->kind->depart(harvest, file, ends, fault) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Cairn holds copies of the tree's sockets for a while. */
static void raise_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* How long a state that passes by itself is waited for before --in-flight lose takes effect. */
#define LOSE_AFTER_NS UINT64_C(1000000000)

int capture_begin(struct harvest *harvest, pid_t target, const struct capture_policy *policy,
		  const struct capture_live *live, const struct deadline *deadline, uint64_t *ret_frozen_at_ns, struct fault_list *refusals,
		  struct fault *fault)
{
	struct fault last = { 0 }; /* why it was let go the last time */
	__attribute__((cleanup(harvest_finish))) struct harvest look = { .policy = *policy }; /* the one before this try; what the caller knows is of the first */
	struct capture_live now = *live;
	const uint64_t begin_ns = clock_now_ns();
	raise_descriptors();
	for (uint64_t pause_ns = 1000000;;) {
		fault_list_finish(refusals);
		*harvest = (struct harvest){ .policy = *policy };
		harvest->policy.losing = policy->lose_in_flight && clock_now_ns() - begin_ns > LOSE_AFTER_NS;
		harvest->policy.unhurried = last.transient;
		*ret_frozen_at_ns = clock_now_ns();
		int rc = freeze_tree(harvest, target, deadline, fault);
		if (rc == 0)
			rc = gather(harvest, &now, deadline, refusals, fault);
		if (rc == 0)
			return 0;
		freeze_thaw(harvest, FREEZE_RUN);
		harvest_finish(harvest);
		if (fault->class == FAULT_TIMEOUT && !fault->transient && last.transient)
			return fault_set(fault, FAULT_TIMEOUT, ETIMEDOUT, "%s", last.text);
		if (!fault->transient)
			return rc;
		last = *fault;
		fault_list_finish(refusals);
		rc = deadline_check(deadline, fault);
		if (rc < 0)
			return fault->class == FAULT_TIMEOUT ? fault_set(fault, FAULT_TIMEOUT, ETIMEDOUT, "%s", last.text) : rc;
		log_debug("%s; let go, and tried again in %llu ms", fault->text,
			  (unsigned long long)(pause_ns / 1000000));
		clock_sleep_ns(pause_ns);
		if (pause_ns < 50000000)
			pause_ns *= 2;
		harvest_finish(&look);
		look = (struct harvest){ .policy = *policy };
		now.known = live->known && tree_survey_spaces(&look, target, MAPS_FLAGS, NULL) == 0 ? &look : NULL;
	}
}
