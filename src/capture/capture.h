/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Frozen world, from outside: running tree in, records and frozen pages out. */
#include "capture/freeze.h"
#include "capture/snapshot.h"
#include "capture/track.h"
#include "capture/twins.h"
#include "kernel/bulletin.h"
#include "kinds/kind.h"

/* May this process be checkpointed at all (exists, no kernel thread, not PID 1, not Cairn itself or one of its ancestors)? */
int capture_check_target(pid_t target, struct fault *fault);
/* All that stands against a capture of the running tree, without touching it, and the tree as it was seen (harvest_finish is the
 * caller's, also after a fault). Returns 0 also with refusals. @ret_bulletins (may be NULL): those of the tree's processes, added to
 * what it has. */
int capture_survey(struct harvest *harvest, pid_t target, const struct capture_policy *policy, struct fault_list *refusals,
		   struct bulletin_list *ret_bulletins, struct fault *fault);
/* Has the tree seccomp filters that Cairn has not, or files or mappings whose kind wants it? Only its processes' first threads are looked at; capture_begin gives -EXDEV where the freeze
 * finds others and policy.by_deputy is not set. */
bool capture_needs_deputy(const struct harvest *survey);
/* The image is safe and the tree will not run on: what its end must not do to the outside (@ends: it is killed next). */
int capture_depart(struct harvest *harvest, bool ends, struct fault *fault);
/* Chooses the place for Cairn's foothold in a frozen process, whose mappings have been read. */
int capture_find_foothold(struct frozen_process *process, const struct deadline *deadline, struct fault *fault);

/* What a capture of a program that is to run on knows from before. */
struct capture_live {
	const struct harvest *known;  /* a look at its mappings just before; NULL: take the time while it stands still */
	const struct track *track;    /* whose writes were tracked, NULL: nobody's */
	struct twins *twins;          /* what of it is to be read when the program runs on, NULL: nothing */
	const struct harvest *survey; /* when it was first looked at */
};
/* Freezes a running tree for a moment, to see what a @survey of it could only suspect (harvest.doubts). What stands against a capture is in @refusals, with
 * FAULT_UNSUPPORTED returned; what passes by itself is nothing. */
int capture_rehearse(pid_t target, const struct harvest *survey, const struct deadline *deadline, struct fault_list *refusals, struct fault *fault);
/* Freezes the tree and gathers its records in @harvest. Transient states are tried again until the deadline.
 * On success the tree stands still, since *ret_frozen_at_ns (clock_now_ns), until freeze_thaw; on failure it runs. Refusals that only the frozen tree showed are in @refusals, with
 * FAULT_UNSUPPORTED returned. */
int capture_begin(struct harvest *harvest, pid_t target, const struct capture_policy *policy,
		  const struct capture_live *live, const struct deadline *deadline, uint64_t *ret_frozen_at_ns, struct fault_list *refusals,
		  struct fault *fault);
