/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Standing a tree still, and letting it go on. Freezing is complete when every thread of every process is at an
 * interrupt stop and no process has a child that is not. All calls come from one thread of Cairn: the tracer. */
#include "base/clock.h"
#include "kinds/kind.h"

/* Freezes @root and its descendants into @harvest (processes, threads, registers). Transient faults mean: thaw, and try again. On
 * failure freeze_thaw undoes what was done. */
int freeze_tree(struct harvest *harvest, pid_t root, const struct deadline *deadline, struct fault *fault);

enum freeze_end { FREEZE_RUN, FREEZE_STOP, FREEZE_KILL };
/* Lets all go: on, or stopped as by SIGSTOP, or killed. Never fails: a thread that ended meanwhile needs nothing. */
void freeze_thaw(struct harvest *harvest, enum freeze_end end);
