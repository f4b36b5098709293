/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The tree of processes as /proc shows it: a look that touches nothing. Works on a running tree (for the
 * refusals before the freeze, where what vanishes meanwhile is passed over) and on a frozen one. */
#include "kinds/kind.h"

/* Adds what /proc says of @process: stat, status, links. Threads are not listed here. */
int tree_read_process(struct harvest *harvest, struct frozen_process *process, struct fault *fault);
/* Adds mappings of the process as a new space. */
int tree_read_space(struct harvest *harvest, struct frozen_process *process, struct fault *fault);
/* Adds the descriptors of all processes, and the open file descriptions behind them, each once; of a frozen tree also those that are in
 * flight in its sockets. */
int tree_read_files(struct harvest *harvest, struct fault *fault);
/* Everything at once for a running tree. */
int tree_survey(struct harvest *harvest, pid_t root, struct fault *fault);

struct frozen_process *tree_add_process(struct harvest *harvest, pid_t pid, struct frozen_process *parent);
void tree_drop_last(struct harvest *harvest);
struct frozen_thread *tree_add_thread(struct harvest *harvest, struct frozen_process *process, pid_t tid);

/* All refusals of all kinds, and of the walker itself. Returns their number. */
size_t tree_refusals(struct harvest *harvest, struct fault_list *refusals);
/* "process 4121 (postgres)" in front of a fault. */
int tree_at_process(const struct frozen_process *process, int rc, struct fault *fault);
