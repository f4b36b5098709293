/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Who undoes what a restore has made if its Cairn is killed: queues, segments and files that outlive processes. */
#include "kinds/kind.h"

/* A process that shares all memory with Cairn and waits for its death, on which it calls workshop_fail. None to be had: a killed restore leaves
 * those things behind. */
void janitor_hire(struct workshop *workshop);
void janitor_dismiss(struct workshop *workshop);
