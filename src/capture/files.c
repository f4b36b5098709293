/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/crew.h"
#include "capture/tree.h"
#include "kernel/descriptors.h"
#include "kernel/kcmp.h"

/* What identifies an open file description without asking kcmp. */
static int file_compare_key(const struct frozen_file *a, const struct frozen_file *b)
{
#define COMPARE(x, y)   \
	if ((x) != (y)) \
	return (x) < (y) ? -1 : 1
	COMPARE(a->stat.st_dev, b->stat.st_dev);
	COMPARE(a->stat.st_ino, b->stat.st_ino);
	COMPARE(a->info.flags, b->info.flags);
	COMPARE(a->info.position, b->info.position);
	COMPARE(a->info.mount_id, b->info.mount_id);
	COMPARE(a->info.object, b->info.object);
#undef COMPARE
	return 0;
}

/* Orders by key, then by kcmp: a total order in which equal means the same open file description. */
static int file_compare(const struct frozen_file *a, const struct frozen_file *b, int *ret_order, struct fault *fault)
{
	*ret_order = file_compare_key(a, b);
	if (*ret_order)
		return 0;
	*ret_order = kcmp_order(SAME_FILE, a->pid, a->fd, b->pid, b->fd, fault);
	return *ret_order == -2 ? -EIO : 0;
}

/* Where in the sorted files one belongs. */
static int sorted_place(const struct harvest *harvest, const struct frozen_file *file, size_t *ret_place,
			bool *ret_found, struct fault *fault)
{
	size_t low = 0, high = harvest->sorted.count;
	*ret_found = false;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int order, rc = file_compare(file, harvest->sorted.at[middle], &order, fault);
		if (rc < 0)
			return rc;
		if (order == 0) {
			*ret_found = true;
			low = middle;
			break;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	*ret_place = low;
	return 0;
}

static void sorted_insert(struct harvest *harvest, size_t place, struct frozen_file *file)
{
	vec_add(&harvest->sorted);
	memmove(&harvest->sorted.at[place + 1], &harvest->sorted.at[place],
		(harvest->sorted.count - 1 - place) * sizeof *harvest->sorted.at);
	harvest->sorted.at[place] = file;
}

/* The file that was @seen: a new one, or one that is known. */
static int meet_file(struct harvest *harvest, const struct frozen_file *seen, struct frozen_file **ret_file,
		     struct fault *fault)
{
	bool found = false;
	size_t place = 0;
	/* A running program's descriptors change while they are compared: identity is only asked of a frozen one. */
	int rc = harvest->frozen ? sorted_place(harvest, seen, &place, &found, fault) : 0;
	if (rc < 0)
		return rc;
	if (found) {
		*ret_file = harvest->sorted.at[place];
		return 0;
	}
	struct frozen_file *file = arena_copy(&harvest->arena, seen, sizeof *seen);
	file->id = harvest_new_id(harvest);
	*vec_add(&harvest->files) = file;
	if (harvest->frozen)
		sorted_insert(harvest, place, file);
	*ret_file = file;
	return 0;
}

static int read_file(const struct proc_descriptors *descriptors, struct arena *arena, int fd, struct text *text, struct frozen_file *file,
		     struct fault *fault)
{
	static const char deleted[] = " (deleted)";
	char *link;
	int rc = proc_descriptor_look(descriptors, fd, arena, &link, &file->stat, text, &file->info, fault);
	if (rc < 0)
		return rc;
	size_t length = strlen(link);
	if (length > sizeof deleted - 1 && !strcmp(link + length - (sizeof deleted - 1), deleted) &&
	    file->stat.st_nlink == 0) {
		link[length - (sizeof deleted - 1)] = 0;
		file->deleted = true;
	}
	file->link = link;
	file->pid = descriptors->pid;
	file->fd = fd;
	file->own = -1;
	file->fdinfo = arena_string(arena, text->at);
	return 0;
}

static enum file_change compare_looks(const struct frozen_file *seen, const struct frozen_file *now)
{
	const struct stat *a = &seen->stat, *b = &now->stat;
	if (a->st_dev != b->st_dev || a->st_ino != b->st_ino || seen->deleted != now->deleted || strcmp(seen->link, now->link))
		return FILE_ANOTHER;
	/* A number of an inode is given again at once by some file systems. */
	bool same = a->st_nlink == b->st_nlink && a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
	return same ? FILE_SAME : FILE_TOUCHED;
}

enum file_change files_look_again(const struct frozen_file *seen)
{
	struct proc_descriptors descriptors;
	struct arena arena = { 0 };
	struct text text = { 0 };
	struct frozen_file now = { 0 };
	if (proc_descriptors_open(seen->pid, &descriptors, NULL) < 0)
		return FILE_ANOTHER;
	int rc = read_file(&descriptors, &arena, seen->fd, &text, &now, NULL);
	enum file_change change = rc == 0 ? compare_looks(seen, &now) : rc == -ESRCH || rc == -ENOENT ? FILE_ANOTHER : FILE_SAME;
	proc_descriptors_close(&descriptors);
	text_finish(&text);
	arena_finish(&arena);
	return change;
}

/* ---- a process ---- */

struct look {
	int fd, rc;
	struct frozen_file seen;
};

struct looks {
	bool frozen;
	struct proc_descriptors descriptors;
	VEC(struct look) list;
	struct arena arenas[CREW_MOST];
	struct text texts[CREW_MOST];
};

/* What vanished from a running tree meanwhile is not there any more, that is all. */
static bool is_gone(const struct harvest *harvest, int rc)
{
	return !harvest->frozen && (rc == -ESRCH || rc == -ENOENT);
}

static void look_at(void *context, unsigned worker, size_t item)
{
	struct looks *looks = context;
	struct look *look = &looks->list.at[item];
	int tries = 0;
	do
		look->rc = read_file(&looks->descriptors, &looks->arenas[worker], look->fd, &looks->texts[worker], &look->seen, NULL);
	while (!looks->frozen && tree_passes(look->rc, &tries));
}

static int meet_descriptor(struct harvest *harvest, struct frozen_process *process, struct look *look, struct fault *fault)
{
	struct frozen_file *file, *seen = &look->seen;
	bool close_on_exec = seen->info.flags & O_CLOEXEC;
	seen->info.flags &= ~(uint32_t)O_CLOEXEC;
	seen->pidfd = &process->pidfd;
	int rc = meet_file(harvest, seen, &file, fault);
	if (rc < 0)
		return rc;
	/* Each process sees only its own POSIX locks. */
	const char *locks = strstr(seen->fdinfo, "\nlock:");
	if ((file->pid != seen->pid || file->fd != seen->fd) && locks)
		file->fdinfo = arena_format(&harvest->arena, "%s%s", file->fdinfo, locks + 1);
	*vec_add(&process->descriptors) = (struct frozen_descriptor){ look->fd, close_on_exec, file };
	return 0;
}

static int look_at_all(struct harvest *harvest, struct frozen_process *process, struct looks *looks, struct fault *fault)
{
	struct pid_list list = { 0 };
	int rc = proc_descriptors_list(&looks->descriptors, &list, fault);
	looks->list.count = 0;
	for (size_t i = 0; rc == 0 && i < list.pids.count; i++)
		*vec_add(&looks->list) = (struct look){ .fd = list.pids.at[i] };
	vec_finish(&list.pids);
	crew_run(looks->list.count, CREW_FILES, look_at, looks);
	for (size_t i = 0; rc == 0 && i < looks->list.count; i++) {
		struct look *look = &looks->list.at[i];
		/* A failed one once more, for what there is to say of it. */
		if (look->rc < 0 && !is_gone(harvest, look->rc))
			look->rc = read_file(&looks->descriptors, &harvest->arena, look->fd, &looks->texts[0], &look->seen, fault);
		if (!is_gone(harvest, look->rc))
			rc = look->rc < 0 ? look->rc : meet_descriptor(harvest, process, look, fault);
	}
	return rc;
}

static int read_process(struct harvest *harvest, struct frozen_process *process, struct looks *looks, struct fault *fault)
{
	int rc, tries = 0;
	do
		rc = proc_descriptors_open(process->view, &looks->descriptors, fault);
	while (!harvest->frozen && tree_passes(rc, &tries));
	if (rc == 0) {
		rc = look_at_all(harvest, process, looks, fault);
		proc_descriptors_close(&looks->descriptors);
	}
	return is_gone(harvest, rc) ? 0 : rc;
}

/* ---- all of them ---- */

/* What was seen of a process with few descriptors. */
struct glance {
	struct look *at;
	size_t count;
	bool is_whole; /* there are no more, and nothing is left to say of them */
};

struct glances {
	struct harvest *harvest;
	struct looks *looks;
	struct glance *of; /* by process */
};

static bool has_table(const struct frozen_process *process)
{
	return !process->zombie && frozen_owns(process, SHARE_FILES);
}

static bool look_at_few(const struct harvest *harvest, const struct proc_descriptors *descriptors, const struct pid_list *list, struct arena *arena,
			struct text *text, struct glance *glance)
{
	enum { FEW = 32 }; /* of more each is an item of its own */
	if (list->pids.count > FEW)
		return false;
	glance->at = ARENA_ARRAY(arena, struct look, list->pids.count + 1);
	for (glance->count = 0; glance->count < list->pids.count; glance->count++) {
		struct look *look = &glance->at[glance->count];
		look->fd = list->pids.at[glance->count];
		look->rc = read_file(descriptors, arena, look->fd, text, &look->seen, NULL);
		if (look->rc < 0 && !is_gone(harvest, look->rc))
			return false;
	}
	return true;
}

static void glance_at(void *context, unsigned worker, size_t item)
{
	const struct glances *glances = context;
	const struct frozen_process *process = glances->harvest->processes.at[item];
	struct proc_descriptors descriptors;
	struct pid_list list = { 0 };
	if (!has_table(process) || proc_descriptors_open(process->view, &descriptors, NULL) < 0)
		return;
	struct glance *glance = &glances->of[item];
	glance->is_whole = proc_descriptors_list(&descriptors, &list, NULL) == 0 &&
			   look_at_few(glances->harvest, &descriptors, &list, &glances->looks->arenas[worker], &glances->looks->texts[worker], glance);
	vec_finish(&list.pids);
	proc_descriptors_close(&descriptors);
}

static int meet_glance(struct harvest *harvest, struct frozen_process *process, const struct glance *glance, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < glance->count; i++)
		if (!is_gone(harvest, glance->at[i].rc))
			rc = meet_descriptor(harvest, process, &glance->at[i], fault);
	return rc;
}

/* Several processes at a time; those with many descriptors, and those of which there is a fault to be told, one after the other. */
static int read_all(struct harvest *harvest, struct fault *fault)
{
	enum { GRAIN = 4 };
	struct looks looks = { .frozen = harvest->frozen };
	struct glances glances = { harvest, &looks, memory_new((harvest->processes.count + 1) * sizeof *glances.of) };
	int rc = 0;
	crew_run(harvest->processes.count, GRAIN, glance_at, &glances);
	for (size_t i = 0; rc == 0 && i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		if (has_table(process))
			rc = glances.of[i].is_whole ? meet_glance(harvest, process, &glances.of[i], fault) :
						      read_process(harvest, process, &looks, fault);
		if (rc < 0)
			tree_at_process(process, rc, fault);
	}
	free(glances.of);
	for (size_t i = 0; i < CREW_MOST; i++) {
		arena_join(&harvest->arena, &looks.arenas[i]);
		text_finish(&looks.texts[i]);
	}
	vec_finish(&looks.list);
	return rc;
}

int harvest_in_flight(struct harvest *harvest, struct frozen_file *carrier, int own, struct frozen_file **ret_file,
		      struct fault *fault)
{
	struct frozen_file seen = { 0 };
	struct text text = { 0 };
	struct proc_descriptors descriptors;
	int rc = proc_descriptors_open(getpid(), &descriptors, fault);
	if (rc == 0) {
		rc = read_file(&descriptors, &harvest->arena, own, &text, &seen, fault);
		proc_descriptors_close(&descriptors);
	}
	text_finish(&text);
	seen.info.flags &= ~(uint32_t)O_CLOEXEC;
	seen.carrier = carrier;
	if (rc == 0)
		rc = meet_file(harvest, &seen, ret_file, fault);
	if (rc < 0 || (*ret_file)->pid != getpid() || (*ret_file)->fd != own)
		close(own);
	else
		(*ret_file)->own = own;
	return rc;
}

/* Getting a copy of a descriptor costs as much as looking into it. */
static void keep_copies(struct harvest *harvest)
{
	struct rlimit limit;
	bool has_room = harvest->frozen && getrlimit(RLIMIT_NOFILE, &limit) == 0 && harvest->files.count + harvest->files.count / 4 + 512 < limit.rlim_cur;
	for (size_t i = 0; i < harvest->files.count; i++)
		harvest->files.at[i]->keeps_own = has_room;
}

static void find_kind(void *context, unsigned worker, size_t item)
{
	struct frozen_file *file = ((const struct harvest *)context)->files.at[item];
	(void)worker;
	for (const struct kind *const *kind = kinds; *kind && !file->kind; kind++)
		if ((*kind)->probe && (*kind)->probe(file))
			file->kind = *kind;
}

/* Which kind each is of; and of a frozen tree those that are in flight in others, and what is in flight in those, and so on. */
static int find_kinds(struct harvest *harvest, struct fault *fault)
{
	for (const struct kind *const *kind = kinds; *kind; kind++)
		if ((*kind)->census)
			(*kind)->census(harvest);
	crew_run(harvest->files.count, CREW_FILES, find_kind, harvest);
	for (size_t i = 0; harvest->frozen && i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		find_kind(harvest, 0, i); /* that was in flight in another */
		int rc = file->kind && file->kind->reach ? file->kind->reach(harvest, file, fault) : 0;
		if (rc < 0)
			return fault_at(fault, rc, "process %d, fd %d", file->pid, file->fd);
	}
	return 0;
}

int files_read(struct harvest *harvest, struct fault *fault)
{
	int rc = read_all(harvest, fault);
	keep_copies(harvest);
	return rc < 0 ? rc : find_kinds(harvest, fault);
}
