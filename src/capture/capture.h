/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Frozen world, from outside: running tree in, records and frozen pages out. */
#include "capture/freeze.h"
#include "capture/snapshot.h"
#include "kernel/bulletin.h"
#include "kinds/kind.h"

/* May this process be checkpointed at all (exists, no kernel thread, not PID 1, not Cairn itself or one of its ancestors)? */
int capture_check_target(pid_t target, struct fault *fault);
/* All that stands against a capture of the running tree, without touching it. Returns 0 also with refusals. @ret_bulletins (may be
 * NULL): those of the tree's processes, added to what it has. */
int capture_survey(pid_t target, const struct capture_policy *policy, struct fault_list *refusals,
		   struct bulletin_list *ret_bulletins, struct fault *fault);
/* Freezes the tree and gathers its records in @harvest. Transient states are tried again until the deadline.
 * On success the tree stands still, since *ret_frozen_at_ns (clock_now_ns), until freeze_thaw; on failure it runs. Refusals that only the frozen tree showed are in @refusals, with
 * FAULT_UNSUPPORTED returned. */
int capture_begin(struct harvest *harvest, pid_t target, const struct capture_policy *policy,
		  const struct deadline *deadline, uint64_t *ret_frozen_at_ns, struct fault_list *refusals,
		  struct fault *fault);
