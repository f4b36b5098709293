/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What checkpoint, restore and check share: the target as the user names it, and a library call's errors. */
#include <sys/types.h>

#include "cairn.h"
#include "cmd/cmd.h"

/* What a checkpoint is of. */
struct target {
	pid_t pid;   /* in this namespace, or, of a job, inside it (0: the whole job) */
	int job;     /* connection to the job's init, -1: it is none */
	char *name;  /* what the user called it; heap */
};
/* A PID, also one in a job of this user's (as root: of anybody's), or a job's name. */
int target_find(const char *text, struct target *ret_target, struct fault *fault);
void target_finish(struct target *target);

/* A PID in decimal, nothing else: FAULT_USAGE. */
int target_pid(const char *text, pid_t *ret_pid, struct fault *fault);
/* --map-path, as restore and check have it: the words become *ret_maps, cut at their first "=". FAULT_USAGE for a word without one. */
struct path_words {
	struct cairn_path_map *maps;
	size_t count;
};
int path_words_of(const struct cmd_list *words, struct path_words *ret_list, struct fault *fault);
void path_words_finish(struct path_words *list);

/* Blocks SIGINT, SIGTERM and SIGHUP, and gives them as a descriptor that an operation looks at. */
int cmd_signal_fd(void);
/* Prints the lines; returns the exit status. */
int cmd_report_error(const struct cmd_common *common, enum cairn_status status, const struct cairn_error *error);
