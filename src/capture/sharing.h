/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "kinds/kind.h"

/* What processes of the frozen tree share without being threads of one (clone(2)): each gets, for each thing, the first process that has the same one. */
void sharing_find(struct harvest *harvest);
/* Memory only; also of a running tree. */
void sharing_find_memory(struct harvest *harvest);
