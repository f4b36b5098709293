/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The tree of processes as /proc shows it: a look that touches nothing. Works on a running tree (for the
 * refusals before the freeze, where what vanishes meanwhile is passed over) and on a frozen one. */
#include "kinds/kind.h"

/* Adds what /proc says of @process: stat, status, links. Threads are not listed here. */
int tree_read_process(struct frozen_process *process, struct arena *arena, struct fault *fault);
/* Adds mappings of the process as a new space; with what only smaps says of them, which costs 10 ms and more per GiB of small pages. */
int tree_read_space(struct harvest *harvest, struct frozen_process *process, enum maps_detail detail, struct fault *fault);
/* The space alone; the mappings alone, of the space that it has. */
void tree_add_space(struct harvest *harvest, struct frozen_process *process);
int tree_read_maps(struct frozen_process *process, enum maps_detail detail, struct arena *arena, struct fault *fault);
/* Several threads do @work for the processes from @first on: it reads /proc and touches nothing but its process and its arena, whose contents live as long
 * as the harvest. The fault is that of the first in their order. */
typedef int tree_worker(struct frozen_process *process, const void *context, struct arena *arena, struct fault *fault);
int tree_work(struct harvest *harvest, size_t first, tree_worker *work, const void *context, struct fault *fault);
/* Is one of its mappings of that kind? */
bool tree_has_map(const struct frozen_space *space, const struct kind *kind);
/* Takes what only smaps says from a look at the running tree just before. false: the mappings are not the same any more. */
bool tree_adopt_flags(struct frozen_process *process, const struct harvest *known);
bool tree_adopt_all(struct harvest *harvest, const struct harvest *known);
/* Nor did it change until a look just after the program went on? madvise(2) changes it unseen in /proc/PID/maps. */
bool tree_flags_stayed(const struct harvest *harvest, const struct harvest *now);
/* Processes and mappings of a running tree; with all descriptors. */
int tree_survey_spaces(struct harvest *harvest, pid_t root, enum maps_detail detail, struct fault *fault);
int tree_survey(struct harvest *harvest, pid_t root, struct fault *fault);

/* Children of all its threads that are known, before that of all that it has. */
int tree_children(const struct frozen_process *process, struct pid_list *ret_children, struct fault *fault);

struct frozen_process *tree_add_process(struct harvest *harvest, pid_t pid, struct frozen_process *parent);
void tree_drop(struct harvest *harvest, struct frozen_process *process);
struct frozen_thread *tree_add_thread(struct harvest *harvest, struct frozen_process *process, pid_t tid);

/* All refusals of all kinds, and of the walker itself. Returns their number. */
size_t tree_refusals(struct harvest *harvest, struct fault_list *refusals);
/* Was the process of a running tree just executing or ending, so that an ordinary user's look failed? Then a moment has passed, and another try is worth it. */
bool tree_passes(int rc, int *tries);
/* "process 4121 (postgres)" in front of a fault. */
int tree_at_process(const struct frozen_process *process, int rc, struct fault *fault);
