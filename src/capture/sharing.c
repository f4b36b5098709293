/* SPDX-License-Identifier: Apache-2.0 */
/* Who shares what. kcmp(2) orders what it compares, so that equal ones come side by side in a sort. */
#include "capture/sharing.h"

#include <stdlib.h>
#include <unistd.h>

#include "kernel/kcmp.h"

struct member {
	struct frozen_process *process;
	size_t index;
	enum kcmp_what what;
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

static void group(members *list, enum share share)
{
	struct frozen_process *first = NULL;
	if (list->count > 1)
		qsort(list->at, list->count, sizeof *list->at, compare);
	for (size_t i = 0; i < list->count; i++) {
		struct member *member = &list->at[i];
		if (!first || kcmp_order(member->what, first->view, 0, member->process->view, 0, NULL) != 0)
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
	return share != SHARE_SYSVSEM || kcmp_order(SAME_SYSVSEM, getpid(), 0, process->view, 0, NULL) != 0;
}

static void find_one(struct harvest *harvest, enum share share)
{
	members list = { 0 };
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		process->shares[share] = process;
		if (may_share(process, share))
			*vec_add(&list) = (struct member){ process, i, compared[share] };
	}
	group(&list, share);
	vec_finish(&list);
}

void sharing_find_memory(struct harvest *harvest)
{
	find_one(harvest, SHARE_VM);
}

void sharing_find(struct harvest *harvest)
{
	for (enum share share = 0; share < SHARE_COUNT; share++)
		find_one(harvest, share);
}
