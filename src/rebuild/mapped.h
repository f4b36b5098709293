/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* --lazy=mapped: private anonymous memory whose pages lie in the image as they are is mapped from the image itself, privately: nothing is read before it is
 * needed, and what nobody writes to is in memory once, in the page cache, for all that are restored from it. It is not quite anonymous memory any more: what
 * that changes stands in cairn-restore(1). Not mapped, but loaded: what is compressed or in an ancestor, runs too short to be worth a mapping of their own,
 * and memory that only anonymous memory can be (stacks that grow, locked, wiped on fork, huge pages, with a name). */
#include "rebuild/newborn.h"

/* The image among what is lent to a newborn. */
#define MAPPED_OBJECT UINT32_MAX

/* Decides what is mapped. rebuild->is_mapped stays false where that is not the greater part: then it is as if nobody had asked. */
int mapped_find(struct rebuild *rebuild, struct fault *fault);
/* Over the mapping @record of @process, which is there: what of it is mapped. */
int mapped_map(struct rebuild_process *process, const struct plan_record *record, struct batch *batch, struct fault *fault);
/* When all of its mappings are there: by what a save knows them again (base/mapped.h). */
void mapped_mark(const struct rebuild *rebuild, const struct rebuild_process *process, struct batch *batch);
