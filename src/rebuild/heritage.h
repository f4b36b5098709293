/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Memory that a process has from its parent: pages that the image names for both at the same address are shared copy-on-write again, because the
 * parent has them already when the child is born. So a parent of heirs gets its mappings and pages before it bears a child (it is loaded); of
 * what a child is born with, an heir keeps those mappings that are its own too, and of their pages those that are the same; everything else
 * goes. A child that is no heir keeps nothing. Pages that the children share, but not with their parent, which has overwritten them, the parent
 * has as well while it bears (seeds), and its own after that. */
#include "rebuild/newborn.h"

/* Decides who is whose heir, from the image. */
void heritage_find(struct rebuild *rebuild);
void heritage_finish(struct heritage *heritage);
/* The mappings and pages of a parent of heirs. */
int heritage_load(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
/* Just born of a process that is loaded: away with what is not @child's. */
int heritage_take(struct rebuild_process *child, struct fault *fault);
/* Everything but the stub, what clones have in common (template.h), and what @process keeps. */
void heritage_unmap_rest(const struct rebuild_process *process, struct batch *batch);
/* When all children are born: what @process had only for them goes. */
int heritage_end(struct rebuild_process *process, struct fault *fault);
/* The end of the first stretch of [@start, @end) that lies in @ranges as a whole, or not at all; *ret_within says which. */
uint64_t heritage_stretch(const heritage_ranges *ranges, uint64_t start, uint64_t end, bool *ret_within);
/* What of @ranges lies in none of @gone; both ascending and without overlaps. */
void heritage_subtract(heritage_ranges *ranges, const heritage_ranges *gone);
/* The mapping @vma, but for what of it is there already. */
int heritage_map(struct rebuild_process *process, const struct plan_record *record, struct batch *batch, struct fault *fault);
