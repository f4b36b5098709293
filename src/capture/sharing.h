/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "kinds/kind.h"

/* What processes of the frozen tree share without being threads of one (clone(2)): each gets, for each thing, the first process that has the same one.
 * @survey: of the running tree, whose order is likely to be the same still; NULL: there was none. */
void sharing_find(struct harvest *harvest, const struct harvest *survey);
/* Who has a list of semaphore adjustments at all; also of a running tree. */
void sharing_note_adjustments(struct harvest *harvest);
/* Memory only; also of a running tree. */
void sharing_find_memory(struct harvest *harvest);
/* Refuses what a running tree shares with processes outside of it: sharing begins at birth. The target's parent is left to the kind of processes, because that
 * passes if the target is between vfork and exec. */
void sharing_refuse_outside(struct harvest *harvest, struct fault_list *refusals);
