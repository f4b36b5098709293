/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The hooks of programs that use libcairn from inside, seen from the Cairn that saves them: before the freeze each is told and
 * waited for, and at the end it is told how it went. */
#include <stdbool.h>

#include "base/clock.h"
#include "kernel/bulletin.h"

struct hook_turn {
	struct bulletin_place place;
	int32_t helper;
	uint32_t turn;
};
struct hooks {
	VEC(struct hook_turn) told;
};

/* A fault when one objects, or is not done in time; whoever was told has to be told the end all the same. */
int hooks_before(const struct bulletin_list *bulletins, const struct deadline *deadline, struct hooks *hooks, struct fault *fault);
void hooks_after(const struct hooks *hooks, bool saved);
void hooks_finish(struct hooks *hooks);
