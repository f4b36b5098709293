/* SPDX-License-Identifier: Apache-2.0 */
/* Who shares what. kcmp(2) orders what it compares, so that equal ones come side by side in a sort. */
#include "capture/sharing.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "capture/tree.h"
#include "kernel/kcmp.h"
#include "kernel/semundo.h"

struct member {
	struct frozen_process *process;
	size_t index, place; /* in the tree; in the order that is expected */
	enum kcmp_what what;
	bool is_same; /* as the one before has */
};
typedef VEC(struct member) members;

static const enum kcmp_what compared[SHARE_COUNT] = {
	[SHARE_VM] = SAME_VM, [SHARE_FILES] = SAME_FILES, [SHARE_FS] = SAME_FS, [SHARE_SIGHAND] = SAME_SIGHAND, [SHARE_SYSVSEM] = SAME_SYSVSEM,
};

static int compare(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	int order = kcmp_order(x->what, x->process->view, 0, y->process->view, 0, NULL);
	return order ? order : x->index < y->index ? -1 : 1;
}

static int compare_places(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	return x->place != y->place ? (x->place > y->place) - (x->place < y->place) : x->index < y->index ? -1 : 1;
}

/* False: it is not sorted. */
static bool compare_neighbours(members *list)
{
	list->at[0].is_same = false;
	for (size_t i = 1; i < list->count; i++) {
		const struct member *before = &list->at[i - 1];
		int order = kcmp_order(before->what, before->process->view, 0, list->at[i].process->view, 0, NULL);
		list->at[i].is_same = order == 0;
		if (order > 0 || (order == 0 && before->index > list->at[i].index))
			return false;
	}
	return true;
}

/* A sort asks the kernel some ten times for each of a thousand. In an order that is the right one already neighbours tell that. */
static void sort(members *list)
{
	if (list->count < 2)
		return;
	qsort(list->at, list->count, sizeof *list->at, compare_places);
	if (compare_neighbours(list))
		return;
	qsort(list->at, list->count, sizeof *list->at, compare);
	compare_neighbours(list);
}

static void group(members *list, enum share share)
{
	struct frozen_process *first = NULL;
	sort(list);
	for (size_t i = 0; i < list->count; i++) {
		struct member *member = &list->at[i];
		if (!first || !member->is_same)
			first = member->process;
		member->process->shares[share] = first;
		if (share == SHARE_VM && first != member->process)
			first->shared_memory = member->process->shared_memory = true;
	}
}

/* Handlers are shared only where memory is (clone(2)); a list of semaphore adjustments most processes do not have, and then it is nobody's. */
static bool may_share(const struct frozen_process *process, enum share share)
{
	if (process->zombie)
		return false;
	if (share == SHARE_SIGHAND)
		return process->shared_memory;
	return share != SHARE_SYSVSEM || process->has_adjustments;
}

void sharing_note_adjustments(struct harvest *harvest)
{
	struct semundo semundo = { 0 };
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		process->has_adjustments = !process->zombie && semundo_has(&semundo, process->view);
	}
	semundo_finish(&semundo);
}

static int compare_pids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
	return (x > y) - (x < y);
}

struct known_place {
	pid_t pid; /* first, for compare_pids */
	size_t place;
};

static void expect_order(members *list, const struct harvest *survey, enum share share)
{
	const size_t count = survey ? survey->orders[share].count : 0;
	_free_ struct known_place *places = memory_new((count + 1) * sizeof *places);
	for (size_t i = 0; i < count; i++)
		places[i] = (struct known_place){ survey->orders[share].pids[i], i };
	if (count)
		qsort(places, count, sizeof *places, compare_pids);
	for (size_t i = 0; count && i < list->count; i++) {
		const struct known_place *known = bsearch(&list->at[i].process->view, places, count, sizeof *places, compare_pids);
		list->at[i].place = known ? known->place : count;
	}
}

static void find_one(struct harvest *harvest, const struct harvest *survey, enum share share)
{
	members list = { 0 };
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		process->shares[share] = process;
		if (may_share(process, share))
			*vec_add(&list) = (struct member){ .process = process, .index = i, .what = compared[share] };
	}
	expect_order(&list, survey, share);
	group(&list, share);
	vec_finish(&list);
}

void sharing_find_memory(struct harvest *harvest)
{
	find_one(harvest, NULL, SHARE_VM);
}

void sharing_find(struct harvest *harvest, const struct harvest *survey)
{
	sharing_note_adjustments(harvest);
	for (enum share share = 0; share < SHARE_COUNT; share++)
		find_one(harvest, survey, share);
}

/* ---- with others ---- */

/* Who of @list, in the order of kcmp, has the same as @pid; NULL: none, or nobody who may be asked about. */
static const struct member *find_sharer(const members *list, pid_t pid)
{
	size_t low = 0, high = list->count;
	while (low < high) {
		const struct member *middle = &list->at[(low + high) / 2];
		int order = kcmp_order(middle->what, pid, 0, middle->process->view, 0, NULL);
		if (order == 0)
			return middle;
		if (order == -2)
			return NULL;
		if (order < 0)
			high = (low + high) / 2;
		else
			low = (low + high) / 2 + 1;
	}
	return NULL;
}

/* One that was born while the tree was looked at belongs to it. */
static bool is_below(const struct harvest *harvest, pid_t pid)
{
	struct proc_stat stat;
	const pid_t root = harvest->processes.at[0]->pid, adopter = harvest->policy.adopter;
	for (pid_t at = pid; at > 0; at = stat.parent) /* a job's init, the adopter, is 1 */
		if (at == root || (adopter && at == adopter) || proc_stat_read(at, 0, &stat, NULL) < 0)
			return true; /* gone: nobody's */
	return false;
}

/* Who is ending has none of it any more, as kernel threads never have: kcmp(2) calls all of those equal, and so a child of the tree's that just ends. */
static bool has_none(pid_t pid)
{
	enum { EXITING = 0x4, KERNEL_THREAD = 0x200000 }; /* PF_EXITING, PF_KTHREAD: include/linux/sched.h */
	struct proc_stat stat;
	return proc_stat_read(pid, 0, &stat, NULL) < 0 || stat.flags & (EXITING | KERNEL_THREAD);
}

/* Looked at again, as a number may be that of a thread that has just run exec. */
static bool still_shares(const struct member *member, pid_t pid)
{
	return !has_none(pid) && !has_none(member->process->view) && kcmp_order(member->what, pid, 0, member->process->view, 0, NULL) == 0;
}

static void refuse_sharer(const struct member *member, enum share share, pid_t outsider, struct fault_list *refusals)
{
	static const char *const names[SHARE_COUNT] = {
		[SHARE_VM] = "memory (CLONE_VM)", [SHARE_FILES] = "its descriptor table (CLONE_FILES)", [SHARE_FS] = "its working directory (CLONE_FS)",
	};
	struct fault fault;
	int rc = fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP, "shares %s with process %d, which is not below the target; try a target that both are "
			   "below", names[share], outsider);
	tree_at_process(member->process, rc, &fault);
	fault_list_add(refusals, &fault);
}

/* Most processes of an idle host are threads of the kernel's, who share nothing with a program. All are children of one, which is told by its number and its flags. */
static void add_kernel_threads(struct pid_list *list)
{
	const pid_t parent = 2;
	struct proc_stat stat;
	struct pid_list threads = { 0 };
	if (proc_stat_read(parent, 0, &stat, NULL) == 0 && stat.flags & PROC_PF_KTHREAD && proc_children_of(parent, &parent, 1, &threads, NULL) == 0)
		*vec_add(&list->pids) = parent;
	for (size_t i = 0; i < threads.pids.count; i++)
		*vec_add(&list->pids) = threads.pids.at[i];
	vec_finish(&threads.pids);
}

static void note_order(struct harvest *harvest, const members *list, enum share share)
{
	harvest->orders[share].pids = ARENA_ARRAY(&harvest->arena, pid_t, list->count + 1);
	harvest->orders[share].count = list->count;
	for (size_t i = 0; i < list->count; i++)
		harvest->orders[share].pids[i] = list->at[i].process->view;
}

void sharing_refuse_outside(struct harvest *harvest, struct fault_list *refusals)
{
	static const enum share shares[] = { SHARE_VM, SHARE_FILES, SHARE_FS };
	struct pid_list all = { 0 }, own = { 0 };
	if (proc_processes(&all, NULL) < 0)
		return;
	for (size_t i = 0; i < harvest->processes.count; i++)
		*vec_add(&own.pids) = harvest->processes.at[i]->pid;
	*vec_add(&own.pids) = harvest->processes.at[0]->stat.parent;
	*vec_add(&own.pids) = getpid(); /* a deputy shares with Cairn */
	add_kernel_threads(&own);
	qsort(own.pids.at, own.pids.count, sizeof *own.pids.at, compare_pids);
	for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
		members list = { 0 };
		for (size_t i = 0; i < harvest->processes.count; i++)
			if (may_share(harvest->processes.at[i], shares[s]))
				*vec_add(&list) = (struct member){ .process = harvest->processes.at[i], .index = i, .what = compared[shares[s]] };
		sort(&list);
		note_order(harvest, &list, shares[s]);
		for (size_t i = 0; i < all.pids.count; i++) {
			pid_t pid = all.pids.at[i];
			const struct member *member = bsearch(&pid, own.pids.at, own.pids.count, sizeof pid, compare_pids) ? NULL :
						      find_sharer(&list, pid);
			if (member && !is_below(harvest, pid) && still_shares(member, pid))
				refuse_sharer(member, shares[s], pid, refusals);
		}
		vec_finish(&list);
	}
	vec_finish(&all.pids);
	vec_finish(&own.pids);
}
