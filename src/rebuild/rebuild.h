/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Newborn world: from a plan to running processes. Everything is made by the calling thread, which traces every
 * newborn with EXITKILL: until the last step they die with it, and nothing remains. */
#include "base/clock.h"
#include "base/progress.h"
#include "rebuild/plan.h"

struct template; /* template.h */

struct rebuild_options {
	unsigned threads;         /* that load memory */
	bool any_pids;            /* --pids any: every task gets the number that comes */
	bool leave_stopped;       /* --leave-stopped */
	bool lazy;                /* memory is loaded behind the running program */
	bool mapped;              /* memory is mapped from the image, as far as that goes; not with lazy */
	bool close_tcp;           /* --tcp close */
	bool maps_addresses;      /* --map-address */
	bool roll_back;           /* --file-changed rollback */
	struct template *template; /* of clones; this process's copy of it goes with the births. NULL: none */
	const char *terminal;     /* path of the caller's controlling terminal, NULL: none */
	const struct deadline *deadline;
	struct progress *progress; /* NULL: nobody is told */
};

struct rebuild_result {
	pid_t root_pid;
	uint64_t pages;
	uint64_t newborn_ns; /* from the first process to the last detached */
};

struct rebuild; /* one that stands ready: every process complete and stopped */

/* Makes everything up to the last step. -EEXIST without remains when a PID is taken. */
int rebuild_prepare(const struct plan *plan, const struct image_reader *reader, const struct rebuild_options *options,
		    struct rebuild **ret_rebuild, struct fault *fault);
pid_t rebuild_root(const struct rebuild *rebuild);
/* The group that was in the foreground of the controlling terminal, 0: none of the tree's own. */
pid_t rebuild_foreground_group(const struct rebuild *rebuild);
/* The commit: lets them run. */
int rebuild_release(struct rebuild *rebuild, struct rebuild_result *ret_result, struct fault *fault);
/* Who loads memory behind the running program: pager_watch of pager.h. 0: nobody. */
pid_t rebuild_watch_pager(const struct rebuild *rebuild, int **ret_held, size_t *ret_count);
/* Kills what was not released, and frees. */
void rebuild_free(struct rebuild *rebuild);

/* PIDs of the plan that are taken here, or cannot be had: -EEXIST names the first. Waits up to @patience_ns for dying processes. */
int rebuild_check_pids(const struct plan *plan, uint64_t patience_ns, struct fault *fault);
