/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What clones of one image have in common (cairn restore --clones): private anonymous memory of its address spaces, loaded once and verified, into the memory of a
 * Cairn, at places that are free in every address space to be made. Each clone is made by a child of that Cairn: so its newborns are born with that
 * memory, and what is a newborn's own is not filled but moved (mremap(2)) to where it belongs. It is anonymous memory as any other, shared copy-on-write with
 * all other clones, and in every clone at its old address. Not in it: what an heir has from its parent anyway (heritage.h), stacks that grow, huge and
 * droppable pages, mappings with few pages. */
#include "rebuild/newborn.h"

/* Loads it into this process. */
int template_load(const struct plan *plan, const struct image_reader *reader, const struct rebuild_options *options, struct template **ret_template,
		  struct fault *fault);
uint64_t template_pages(const struct template *template);
/* The memory alone: what clones have of it they keep. */
void template_forget(struct template *template);
void template_free(struct template *template);

/* Is it of this image? Decides what processes have of it. */
int template_share_out(struct rebuild *rebuild, struct fault *fault);
/* Where it lies in newborns that were just born; false: there is none. */
bool template_place(const struct template *template, uint64_t *ret_start, uint64_t *ret_end);
/* Makes the mapping @record by moving it there. false: it is not in the template. */
bool template_move(struct rebuild_process *process, const struct plan_record *record, struct batch *batch, int *ret_rc, struct fault *fault);
/* What is left of it in a newborn that bears nobody any more. */
void template_leave(const struct rebuild_process *process, struct batch *batch);
