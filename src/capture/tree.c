/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crew.h"
#include "capture/files.h"
#include "capture/mapped.h"
#include "kernel/host.h"

struct frozen_process *tree_add_process(struct harvest *harvest, pid_t pid, struct frozen_process *parent)
{
	struct frozen_process *process = ARENA_NEW(&harvest->arena, struct frozen_process);
	process->pid = process->view = pid;
	process->parent = parent;
	if (parent)
		parent->child_count++;
	*vec_add(&harvest->processes) = process;
	return process;
}

void tree_drop(struct harvest *harvest, struct frozen_process *process)
{
	size_t place = harvest->processes.count - 1;
	while (harvest->processes.at[place] != process)
		place--;
	memmove(&harvest->processes.at[place], &harvest->processes.at[place + 1],
		(--harvest->processes.count - place) * sizeof *harvest->processes.at);
	if (process->parent)
		process->parent->child_count--;
	vec_finish(&process->threads);
}

struct frozen_thread *tree_add_thread(struct harvest *harvest, struct frozen_process *process, pid_t tid)
{
	struct frozen_thread *thread = ARENA_NEW(&harvest->arena, struct frozen_thread);
	thread->process = process;
	thread->tid = tid;
	thread->guest.tid = tid;
	if (tid > process->highest_tid)
		process->highest_tid = tid;
	*vec_add(&process->threads) = thread;
	return thread;
}

bool tree_has_map(const struct frozen_space *space, const struct kind *kind)
{
	bool has = false;
	for (size_t i = 0; kind->probe_map && i < space->maps.maps.count && !has; i++)
		has = space->maps.maps.at[i].inode && kind->probe_map(&space->maps.maps.at[i]);
	return has;
}

int tree_at_process(const struct frozen_process *process, int rc, struct fault *fault)
{
	return fault_at(fault, rc, "process %d (%s)", process->pid, process->stat.command);
}

/* The first thread has ended, and with it went all that /proc shows by its number: another one tells, of those that are frozen if any are. */
static int read_by_another(struct frozen_process *process, struct fault *fault)
{
	struct pid_list threads = { 0 };
	struct proc_stat other;
	int rc = process->threads.count ? 0 : proc_threads(process->pid, &threads, fault);
	pid_t view = process->threads.count ? process->threads.at[0]->tid : 0;
	for (size_t i = 0; rc == 0 && !view && i < threads.pids.count; i++)
		if (proc_stat_read(process->pid, threads.pids.at[i], &other, NULL) == 0 && other.state != 'Z' && other.state != 'X')
			view = threads.pids.at[i];
	vec_finish(&threads.pids);
	if (rc == 0 && !view)
		rc = fault_set_transient(fault, FAULT_VANISHED, ESRCH, "is just ending");
	if (rc == 0)
		rc = proc_stat_read(process->pid, view, &other, fault);
	if (rc < 0)
		return rc;
	struct proc_stat *stat = &process->stat;
	process->view = view;
	stat->start_code = other.start_code, stat->end_code = other.end_code, stat->start_stack = other.start_stack;
	stat->start_data = other.start_data, stat->end_data = other.end_data, stat->start_brk = other.start_brk;
	stat->arg_start = other.arg_start, stat->arg_end = other.arg_end;
	stat->env_start = other.env_start, stat->env_end = other.env_end;
	return 0;
}

int tree_read_process(struct frozen_process *process, struct arena *arena, struct fault *fault)
{
	int rc = proc_stat_read(process->pid, 0, &process->stat, fault);
	if (rc < 0)
		return rc;
	process->zombie = process->stat.state == 'Z' && process->stat.threads <= 1;
	if (process->stat.state == 'X')
		return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "ended meanwhile");
	process->view = process->pid;
	if (process->stat.state == 'Z' && !process->zombie)
		rc = read_by_another(process, fault);
	if (rc == 0)
		rc = proc_status_read(process->view, 0, arena, &process->status, fault);
	if (rc < 0 || process->zombie)
		return rc;
	rc = proc_link(process->view, "exe", arena, &process->executable, fault);
	if (rc == 0)
		rc = proc_link(process->view, "cwd", arena, &process->cwd, fault);
	if (rc == 0)
		rc = proc_link(process->view, "root", arena, &process->root, fault);
	/* Its memory, or its directories, are gone already, though it is no zombie yet (kernel/exit.c do_exit: exit_mm, then exit_fs). */
	if (rc == -ENOENT)
		return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "is just ending");
	return rc;
}

static void new_space(struct frozen_process *process, struct arena *arena)
{
	struct frozen_space *space = ARENA_NEW(arena, struct frozen_space);
	space->pid = process->view;
	space->process = process;
	process->space = space;
}

static void enter_space(struct harvest *harvest, struct frozen_process *process)
{
	struct frozen_space *space = process->space;
	space->id = harvest_new_id(harvest);
	*vec_add(&harvest->spaces) = space;
	/* A running one: what an earlier save has left armed. Who tracks a frozen one is known by then (track_adopt). */
	space->tracked = !harvest->frozen && tracking_find(harvest->policy.tracking, process->view, process->stat.start_time);
}

void tree_add_space(struct harvest *harvest, struct frozen_process *process)
{
	new_space(process, &harvest->arena);
	enter_space(harvest, process);
}

int tree_read_space(struct harvest *harvest, struct frozen_process *process, enum maps_detail detail, struct fault *fault)
{
	tree_add_space(harvest, process);
	return tree_read_maps(process, detail, &harvest->arena, fault);
}

int tree_read_maps(struct frozen_process *process, enum maps_detail detail, struct arena *arena, struct fault *fault)
{
	int rc = maps_read(process->view, detail, arena, &process->space->maps, fault);
	if (rc == 0)
		mapped_adopt(process->view, &process->space->maps);
	return rc;
}

static const struct frozen_process *find_process(const struct harvest *harvest, const struct frozen_process *process)
{
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->pid == process->pid &&
		    harvest->processes.at[i]->stat.start_time == process->stat.start_time)
			return harvest->processes.at[i];
	return NULL;
}

/* May @a and @b be the same mapping, one of them grown, cut or split? */
static bool is_same_mapping(const struct map *a, const struct map *b)
{
	return a->protection == b->protection && a->shared == b->shared && a->inode == b->inode && a->device == b->device &&
	       (!a->inode || a->offset - a->start == b->offset - b->start) && !strcmp(a->name, b->name);
}

bool tree_adopt_flags(struct frozen_process *process, const struct harvest *known)
{
	const struct frozen_process *before = find_process(known, process);
	if (!before || !before->space)
		return false;
	const struct map_list *old = &before->space->maps;
	size_t o = 0;
	for (size_t i = 0; i < process->space->maps.maps.count; i++) {
		struct map *map = &process->space->maps.maps.at[i];
		while (o < old->maps.count && old->maps.at[o].end <= map->start)
			o++;
		/* It may lie over one only: two could differ in what is not known of it. */
		if (o == old->maps.count || old->maps.at[o].start >= map->end || !is_same_mapping(&old->maps.at[o], map) ||
		    (o + 1 < old->maps.count && old->maps.at[o + 1].start < map->end))
			return false;
		map->flags = old->maps.at[o].flags;
		map->protection_key = old->maps.at[o].protection_key;
		memcpy(map->unknown, old->maps.at[o].unknown, sizeof map->unknown);
		map->page_size = old->maps.at[o].page_size;
		map->swapped = old->maps.at[o].swapped;
		map->resident = old->maps.at[o].resident;
		map->anonymous = old->maps.at[o].anonymous;
		map->shared_bytes = old->maps.at[o].shared_bytes;
		map->pages_shared = old->maps.at[o].pages_shared;
	}
	return true;
}

bool tree_adopt_all(struct harvest *harvest, const struct harvest *known)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->space && !tree_adopt_flags(process, known))
			return false;
	}
	return true;
}

bool tree_flags_stayed(const struct harvest *harvest, const struct harvest *now)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		const struct frozen_process *after = find_process(now, process);
		if (!process->space || !process->space->flags_adopted)
			continue;
		if (!after || !after->space)
			return false;
		size_t o = 0;
		for (size_t m = 0; m < process->space->maps.maps.count; m++) {
			const struct map *map = &process->space->maps.maps.at[m];
			const struct map_list *list = &after->space->maps;
			while (o < list->maps.count && list->maps.at[o].end <= map->start)
				o++;
			/* Tracking has ended meanwhile. */
			if (o == list->maps.count || list->maps.at[o].start >= map->end ||
			    ((list->maps.at[o].flags ^ map->flags) & ~(uint32_t)MAP_FLAG_UFFD_WP) ||
			    list->maps.at[o].protection_key != map->protection_key)
				return false;
		}
	}
	return true;
}

/* In the middle of exec, and from the moment its memory is gone until it is a zombie, a process's files in /proc belong to root
 * (fs/proc/base.c task_dump_owner): for an ordinary user that passes, and is no refusal. On a busy machine it may wait for a processor in that state. */
bool tree_passes(int rc, int *tries)
{
	enum { MOST_TRIES = 300 }; /* and as many milliseconds at least */
	if ((rc != -EACCES && rc != -EPERM) || geteuid() == 0 || ++*tries > MOST_TRIES)
		return false;
	clock_sleep_ns(1000000);
	return true;
}

/* What vanished from a running tree meanwhile is not there any more, that is all. */
static bool gone(int rc)
{
	return rc == -ESRCH || rc == -ENOENT;
}

struct work {
	struct frozen_process **processes;
	tree_worker *work;
	const void *context;
	struct arena arenas[CREW_MOST];
	pthread_mutex_t lock;
	size_t failed; /* of those that failed the first; count: none has */
	int rc;
	struct fault fault;
};

static void work_on(void *context, unsigned worker, size_t item)
{
	struct work *work = context;
	struct frozen_process *process = work->processes[item];
	struct fault fault;
	int rc = work->work(process, work->context, &work->arenas[worker], &fault);
	if (rc == 0)
		return;
	tree_at_process(process, rc, &fault);
	pthread_mutex_lock(&work->lock);
	if (item < work->failed) {
		work->failed = item;
		work->rc = rc;
		work->fault = fault;
	}
	pthread_mutex_unlock(&work->lock);
}

int tree_work(struct harvest *harvest, size_t first, tree_worker *worker, const void *context, struct fault *fault)
{
	size_t count = harvest->processes.count - first;
	struct work *work = memory_new(sizeof *work);
	*work = (struct work){ .processes = harvest->processes.at + first, .work = worker, .context = context,
			       .lock = PTHREAD_MUTEX_INITIALIZER, .failed = count };
	crew_run(count, 1, work_on, work);
	for (size_t i = 0; i < CREW_MOST; i++)
		arena_join(&harvest->arena, &work->arenas[i]);
	int rc = work->rc;
	if (rc < 0 && fault)
		*fault = work->fault;
	free(work);
	return rc;
}

int tree_children(const struct frozen_process *process, struct pid_list *ret_children, struct fault *fault)
{
	if (!process->threads.count)
		return process->stat.threads == 1 ? proc_children_of(process->pid, &process->pid, 1, ret_children, fault) :
						    proc_children(process->pid, ret_children, fault);
	_free_ pid_t *threads = memory_new(process->threads.count * sizeof *threads);
	for (size_t i = 0; i < process->threads.count; i++)
		threads[i] = process->threads.at[i]->tid;
	return proc_children_of(process->pid, threads, process->threads.count, ret_children, fault);
}

struct survey {
	const struct frozen_process *target;
	enum maps_detail detail;
};

/* What a live save of the running tree has to know of its mappings, as far as that is soon read where all is read again of the frozen one. */
static enum maps_detail survey_detail(const struct capture_policy *policy)
{
	return policy->ends && !(policy->tracking && policy->tracking->spaces.count) ? MAPS_FLAGS_IF_SHORT : MAPS_FLAGS;
}

/* Processes of a running tree that share its memory have a space each. */
static int survey_process(struct frozen_process *process, const void *context, struct arena *arena, struct fault *fault)
{
	const struct survey *survey = context;
	int rc, tries = 0;
	do {
		process->space = NULL;
		rc = tree_read_process(process, arena, fault);
		if (rc < 0 || process->zombie)
			continue;
		new_space(process, arena);
		rc = tree_read_maps(process, survey->detail, arena, fault);
		if (rc == 0)
			tree_children(process, &process->children, NULL);
		else
			maps_finish(&process->space->maps);
	} while (tree_passes(rc, &tries));
	process->vanished = rc < 0;
	return process != survey->target && gone(rc) ? 0 : rc;
}

/* Of the generation that begins at @first: whoever vanished is no part of the tree, whoever is there has its children in it. Returns where those begin. */
static size_t meet_next(struct harvest *harvest, size_t first)
{
	size_t count = harvest->processes.count;
	for (size_t i = first; i < count;) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->vanished) {
			tree_drop(harvest, process);
			count--;
			continue;
		}
		if (process->space)
			enter_space(harvest, process);
		for (size_t c = 0; c < process->children.pids.count; c++)
			tree_add_process(harvest, process->children.pids.at[c], process);
		vec_finish(&process->children.pids);
		i++;
	}
	return count;
}

/* Generation by generation. */
int tree_survey_spaces(struct harvest *harvest, pid_t root, enum maps_detail detail, struct fault *fault)
{
	struct pid_list adopted = { 0 };
	enum { MANY = 100 }; /* of which smaps takes as long as that of one with very many mappings */
	struct survey survey = { tree_add_process(harvest, root, NULL), detail };
	int rc = 0;
	if (harvest->policy.adopter && proc_children(harvest->policy.adopter, &adopted, NULL) == 0)
		for (size_t i = 0; i < adopted.pids.count; i++)
			if (adopted.pids.at[i] != root && !policy_is_cairn(&harvest->policy, adopted.pids.at[i]))
				tree_add_process(harvest, adopted.pids.at[i], NULL);
	vec_finish(&adopted.pids);
	for (size_t first = 0; rc == 0 && first < harvest->processes.count;) {
		if (detail == MAPS_FLAGS_IF_SHORT && harvest->processes.count > MANY)
			survey.detail = MAPS_PLACES;
		rc = tree_work(harvest, first, survey_process, &survey, fault);
		first = meet_next(harvest, first);
	}
	return rc;
}

int tree_survey(struct harvest *harvest, pid_t root, struct fault *fault)
{
	int rc = tree_survey_spaces(harvest, root, survey_detail(&harvest->policy), fault);
	return rc < 0 ? rc : files_read(harvest, fault);
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	if (!file->kind)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "%s: this kind of descriptor cannot be carried by this version; try to "
				 "checkpoint when the program has closed it", file->link);
	return file->kind->refuse_file ? file->kind->refuse_file(harvest, file, fault) : 0;
}

/* Those that no process has. */
static void refuse_in_flight(const struct harvest *harvest, struct fault_list *refusals)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		struct fault fault;
		int rc = file->carrier ? refuse_file(harvest, file, &fault) : 0;
		if (rc == 0 || rc == -ESRCH)
			continue;
		const struct frozen_file *carrier = file->carrier;
		while (carrier->carrier)
			carrier = carrier->carrier;
		fault_at(&fault, rc, "process %d, fd %d: a descriptor on its way in it", carrier->pid, carrier->fd);
		fault_list_add(refusals, &fault);
	}
}

/* What passes by itself is no refusal of a running tree. */
static void refuse_or_doubt(struct harvest *harvest, const struct fault *fault, struct fault_list *refusals)
{
	fault_list_add(harvest->frozen || !fault->transient ? refusals : &harvest->doubts, fault);
}

/* Nothing is known of what has come in the place of a descriptor, or while it was looked at: the frozen tree will show it. */
static bool is_certain(const struct harvest *harvest, const struct frozen_file *file, struct fault *fault)
{
	enum file_change change = harvest->frozen ? FILE_SAME : files_look_again(file);
	if (change == FILE_TOUCHED)
		fault->transient = true;
	return change != FILE_ANOTHER;
}

static void refuse_files(struct harvest *harvest, struct frozen_process *process, struct fault_list *refusals)
{
	for (size_t d = 0; d < process->descriptors.count; d++) {
		struct frozen_file *file = process->descriptors.at[d].file;
		struct fault fault;
		if (file->pid != process->view || file->fd != process->descriptors.at[d].fd)
			continue; /* said once, where it was first met */
		int rc = refuse_file(harvest, file, &fault);
		if (rc < 0 && rc != -ESRCH && is_certain(harvest, file, &fault)) {
			fault_at(&fault, rc, "fd %d", file->fd);
			tree_at_process(process, rc, &fault);
			refuse_or_doubt(harvest, &fault, refusals);
		}
	}
}

static int read_namespaces(struct frozen_process *process, const void *context, struct arena *arena, struct fault *fault)
{
	(void)context, (void)arena, (void)fault;
	process->namespaces_known = !process->zombie && proc_namespaces(process->view, process->namespaces, NULL) == 0;
	return 0;
}

size_t tree_refusals(struct harvest *harvest, struct fault_list *refusals)
{
	proc_namespaces(getpid(), harvest->own_namespaces, NULL);
	harvest->own_filters = host_filters();
	tree_work(harvest, 0, read_namespaces, NULL, NULL);
	for (size_t i = 0; i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		if (process->zombie)
			continue;
		for (const struct kind *const *kind = kinds; *kind; kind++) {
			struct fault fault;
			int rc = (*kind)->refuse ? (*kind)->refuse(harvest, process, &fault) : 0;
			if (rc < 0 && rc != -ESRCH) {
				tree_at_process(process, rc, &fault);
				refuse_or_doubt(harvest, &fault, refusals);
			}
		}
		refuse_files(harvest, process, refusals);
	}
	refuse_in_flight(harvest, refusals);
	return refusals->count;
}
