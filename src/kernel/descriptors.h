/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A process's descriptors as /proc/PID/fd and /proc/PID/fdinfo show them. Both directories are held open: a path from the root is
 * walked, and permission asked, for every look otherwise. */
#include <sys/stat.h>

#include "kernel/fdinfo.h"

struct proc_descriptors {
	pid_t pid;
	int links, infos; /* descriptors of the directories */
};

int proc_descriptors_open(pid_t pid, struct proc_descriptors *ret_descriptors, struct fault *fault);
void proc_descriptors_close(struct proc_descriptors *descriptors);
/* Their numbers, ascending; once. */
int proc_descriptors_list(const struct proc_descriptors *descriptors, struct pid_list *ret_list, struct fault *fault);
/* What the link of descriptor @fd says, what stat(2) says, and fdinfo with its text. -ESRCH: the process is gone; -ENOENT: the descriptor. */
int proc_descriptor_look(const struct proc_descriptors *descriptors, int fd, struct arena *arena, char **ret_link, struct stat *ret_stat,
			 struct text *text, struct fdinfo *ret_info, struct fault *fault);
