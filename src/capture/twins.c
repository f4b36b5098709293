/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/twins.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "capture/snapshot.h"
#include "kernel/room.h"
#include "tracee/twin.h"

/* ---- which ---- */

static bool is_copied_by_fork(const struct map *map)
{
	return snapshot_is_private(map) && !(map->flags & (MAP_FLAG_DONT_COPY | MAP_FLAG_WIPE_ON_FORK | MAP_FLAG_HUGETLB));
}

bool twins_have(const struct frozen_space *space, const struct map *map)
{
	return is_copied_by_fork(map) && (space->foothold.code < map->start || space->foothold.code >= map->end);
}

/* What an heir has is its parent's. Of a file's pages those that were written are its own; of an image's, all. */
uint64_t twins_bytes(const struct frozen_space *space, const struct map *map)
{
	if (!twins_have(space, map) || kin_is_heir(space->process, map))
		return 0;
	return map->image_inode ? map->end - map->start : map->anonymous;
}

/* Measured on the machine of the README, by two threads: 34 ms to copy 200 MiB into memory that was touched before, 12, 33 and 112 ms to fork 256 MiB, 1 GiB and 4 GiB of small
 * pages, 2 ms to fork very little. */
bool twins_pay(const struct map_list *maps, uint64_t copied)
{
	enum { FORK_NS = 2000000, COPY_BYTE_PS = 170, FORK_BYTE_PS = 30 };
	uint64_t forked = 0;
	for (size_t i = 0; i < maps->maps.count; i++)
		forked += maps->maps.at[i].anonymous ? maps->maps.at[i].resident : 0;
	return copied / 1000 * COPY_BYTE_PS > FORK_NS + forked / 1000 * FORK_BYTE_PS;
}

uint64_t twins_expect(const struct twins *twins, const struct frozen_space *space)
{
	const struct map_list *maps = &space->maps;
	uint64_t copied = 0;
	for (size_t i = 0; i < maps->maps.count; i++)
		copied += twins_bytes(space, &maps->maps.at[i]);
	return !twins->refused && twins_pay(maps, copied) ? copied : 0;
}

/* ---- one ---- */

/* What it need not have: everything that is shared, and huge pages of a pool, which are not read from it. A program that writes to one that another has too needs a
 * page more; where the pool has none, and it reserved none (MAP_NORESERVE, or a child of who did), that is SIGBUS (mm/hugetlb.c hugetlb_wp, 6.18). Neighbours are one range. */
static size_t unwanted_by_twin(const struct map_list *maps, struct twin_range *ret_ranges)
{
	size_t count = 0;
	for (size_t i = 0; i < maps->maps.count; i++) {
		const struct map *map = &maps->maps.at[i];
		if ((!map->shared && !(map->flags & MAP_FLAG_HUGETLB)) || (map->flags & MAP_FLAG_DONT_COPY))
			continue;
		if (count && ret_ranges[count - 1].end == map->start)
			ret_ranges[count - 1].end = map->end;
		else if (count == TWIN_MOST_RANGES)
			return SIZE_MAX;
		else
			ret_ranges[count++] = (struct twin_range){ map->start, map->end };
	}
	return count;
}

static const struct frozen_process *reaper_of(const struct frozen_process *process)
{
	while (process && !process->reaps_orphans)
		process = process->parent;
	return process;
}

/* If memory is wanted, it is to be the first to go, and not the program. */
static int let_it_go_first(pid_t pid, struct fault *fault)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, "1000", 4) != 4 ? fault_set(fault, FAULT_FAILED, errno, "%s: %s", path, strerror(errno)) : 0;
}

static bool is_suspended(const struct frozen_process *process)
{
	return process->threads.at[0]->is_suspended && process->threads.at[0]->status.seccomp;
}

static int make_one(struct frozen_process *process, struct fault *fault)
{
	struct foothold *foothold = &process->space->foothold;
	struct guest *guest = &process->threads.at[0]->guest;
	_free_ struct twin_range *unwanted = memory_new(TWIN_MOST_RANGES * sizeof *unwanted);
	size_t count = unwanted_by_twin(&process->space->maps, unwanted);
	pid_t twin = 0;
	if (count == SIZE_MAX)
		return fault_set(fault, FAULT_FAILED, E2BIG, "it has more than %d mappings that are shared or of huge pages", TWIN_MOST_RANGES);
	int rc = foothold_enter(foothold, guest, fault);
	/* The calls of the twin would lie in a mapping of the program's, which it may not have. */
	if (rc == 0 && foothold->grown)
		rc = fault_set(fault, FAULT_FAILED, ENOMEM, "it has as many mappings as it may (sysctl vm.max_map_count)");
	if (rc == 0)
		rc = twin_make(foothold, guest, is_suspended(process), unwanted, count, &twin, fault);
	struct fault leaving;
	int left = foothold_leave(foothold, guest, true, &leaving);
	if (left < 0) {
		*fault = leaving;
		fault->transient = true;
	}
	if (rc == 0 && left == 0)
		rc = let_it_go_first(twin, fault);
	if (twin && (rc < 0 || left < 0))
		twin_end(twin);
	else
		process->space->twin = twin;
	return left < 0 ? left : rc;
}

/* After unshare(2) of CLONE_NEWPID the first child is a namespace's init, whose number is not Cairn's, and whose end is that of all who come after. */
static bool bears_elsewhere(const struct frozen_process *process)
{
	struct arena arena = { 0 };
	char *own, *born;
	bool same = proc_link(process->view, "ns/pid_for_children", &arena, &born, NULL) == 0 && proc_link(getpid(), "ns/pid", &arena, &own, NULL) == 0 &&
		    !strcmp(own, born);
	arena_finish(&arena);
	return !same;
}

/* What stands against one, as a fault. @bytes: of all that there would be then. */
static int check_one(const struct twins *twins, const struct frozen_process *process, uint64_t bytes, struct fault *fault)
{
	const struct frozen_process *reaper = reaper_of(process);
	if (process->space->foothold.window)
		return fault_set(fault, FAULT_FAILED, ENOTSUP, "its text has no room for Cairn's calls");
	if (reaper)
		return fault_set(fault, FAULT_FAILED, ENOTSUP, "process %d adopts orphans (PR_SET_CHILD_SUBREAPER), and would see it", reaper->pid);
	if (bears_elsewhere(process))
		return fault_set(fault, FAULT_FAILED, ENOTSUP, "its children are born into another PID namespace");
	if (twins->most_bytes && bytes > twins->most_bytes)
		return fault_set(fault, FAULT_FAILED, ENOMEM, "it may come to %llu MiB, and --max-extra-memory is less",
				 (unsigned long long)(bytes >> 20));
	struct room room;
	room_look(process->view, &room);
	if (room.one_for_all)
		return fault_set(fault, FAULT_FAILED, ENOTSUP, "its cgroup is killed as a whole where one is for want of memory (memory.oom.group)");
	return bytes > room.left ? fault_set(fault, FAULT_FAILED, ENOMEM, "it may come to %llu MiB, and the machine or its memory cgroup has %llu MiB left",
					     (unsigned long long)(bytes >> 20), (unsigned long long)(room.left >> 20)) : 0;
}

/* ---- all ---- */

static bool ends_the_freeze(const struct fault *fault)
{
	return fault->transient || fault->class == FAULT_TIMEOUT || fault->class == FAULT_VANISHED;
}

int twins_make(struct twins *twins, struct harvest *harvest, const struct deadline *deadline, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < harvest->processes.count; i++) {
		struct frozen_process *process = harvest->processes.at[i];
		struct fault why;
		if (process->zombie || !frozen_owns(process, SHARE_VM) || process->space->tracked)
			continue;
		uint64_t bytes = twins_expect(twins, process->space), begin = clock_now_ns();
		if (!bytes)
			continue;
		rc = check_one(twins, process, twins->bytes + bytes, &why);
		if (rc == 0)
			rc = make_one(process, &why);
		if (rc == 0) {
			*vec_add(&twins->spaces) = process->space;
			twins->bytes += bytes;
			log_info("checkpoint: process %d: %llu MiB are read from a copy-on-write child, made in %.2f ms", process->pid,
				 (unsigned long long)(bytes >> 20), (double)(clock_now_ns() - begin) / 1e6);
		} else if (ends_the_freeze(&why)) {
			*fault = why;
		} else {
			log_info("checkpoint: process %d: no copy-on-write child: %s; continuing with a copy of %llu MiB while it stands still", process->pid,
				 why.text, (unsigned long long)(bytes >> 20));
			rc = deadline_check(deadline, fault);
		}
	}
	if (rc < 0)
		twins_end(twins);
	return rc;
}

/* Did the fork copy [@start, @end)? *@next: the first of @maps that may matter, from one range to the next above it. */
static bool is_covered(const struct map_list *maps, uint64_t start, uint64_t end, size_t *next)
{
	while (*next < maps->maps.count && maps->maps.at[*next].end <= start)
		++*next;
	for (size_t i = *next; start < end && i < maps->maps.count && maps->maps.at[i].start <= start; i++) {
		if (!is_copied_by_fork(&maps->maps.at[i]))
			return false;
		start = maps->maps.at[i].end;
	}
	return start >= end;
}

bool twins_are_whole(const struct twins *twins)
{
	bool whole = true;
	for (size_t i = 0; whole && i < twins->spaces.count; i++) {
		const struct frozen_space *space = twins->spaces.at[i];
		struct arena arena = { 0 };
		struct map_list maps = { 0 };
		/* Flags that were read in the freeze were those that the fork saw. */
		whole = !space->flags_adopted || maps_read(space->twin, MAPS_FLAGS, &arena, &maps, NULL) == 0;
		for (size_t m = 0, next = 0; whole && space->flags_adopted && m < space->maps.maps.count; m++) {
			const struct map *map = &space->maps.maps.at[m];
			whole = !twins_have(space, map) || is_covered(&maps, map->start, map->end, &next);
		}
		maps_finish(&maps);
		arena_finish(&arena);
	}
	return whole;
}

bool twins_live(const struct twins *twins)
{
	for (size_t i = 0; i < twins->spaces.count; i++) {
		struct proc_stat stat;
		if (proc_stat_read(twins->spaces.at[i]->twin, 0, &stat, NULL) < 0 || stat.state != 't')
			return false;
	}
	return true;
}

void twins_end(struct twins *twins)
{
	for (size_t i = 0; i < twins->spaces.count; i++) {
		twin_end(twins->spaces.at[i]->twin);
		twins->spaces.at[i]->twin = 0;
	}
	vec_finish(&twins->spaces);
	twins->bytes = 0;
}
