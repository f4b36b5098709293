/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the kinds of System V semaphores have in common. */
#include "kinds/sysv.h"

/* Is it a set of the tree's? */
bool sysv_sem_is_of_tree(const struct harvest *harvest, const struct sysv_object *set);
