/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How much more memory a process may come to use: proc_meminfo(5), and Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst. */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct room {
	uint64_t left;     /* bytes, until the machine or a cgroup has no more to give without taking it from somebody */
	bool one_for_all;  /* all of a cgroup are killed where one is for want of memory (memory.oom.group) */
};
/* Of @pid. What cannot be asked sets no bound. */
void room_look(pid_t pid, struct room *ret_room);

/* A memory cgroup. */
struct room_group {
	bool unified; /* version 2 */
	char path[PATH_MAX];
};
/* From the text of /proc/PID/cgroup: of version 1 if that has the controller, else of version 2. false: there is none. */
bool room_group_parse(const char *text, struct room_group *ret_group);
/* Its directory, by the text of /proc/PID/mountinfo; the mount point is its first *@ret_top bytes. false: it is not to be seen from here. */
bool room_directory_parse(const char *text, const struct room_group *group, char ret_path[PATH_MAX], size_t *ret_top);
