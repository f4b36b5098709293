/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Write tracking of a running tree, for a live save: private anonymous memory is registered with a userfaultfd for asynchronous write
 * protection (UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN, Linux 6.7), copied while the program runs, and only what was written meanwhile is
 * copied again when it stands still.
 *
 * The userfaultfd has to be made by the process itself: one short freeze, one remote call; Cairn takes the descriptor and closes the
 * process's own. It never has to be served: a write to a protected page is let through by the kernel, which notes it. When Cairn dies
 * the registration ends with its descriptor.
 *
 * Not tracked, and so read from a copy-on-write child (twins.h) or copied while frozen: mappings of files (a page that is given back leaves a marker there, mm/memory.c
 * zap_install_uffd_wp_if_needed, 6.18, and would look unwritten), what is shared, small mappings, everything of a process with an
 * O_DIRECT descriptor or an io_uring (a device writes to pages without telling the page table), processes born meanwhile. */
#include "base/tracking.h"
#include "capture/snapshot.h"

struct tracked_space {
	pid_t pid;
	uint64_t start_time; /* with the PID, what makes it this process */
	int userfaultfd;
	size_t store;
	bool known;          /* registered since an earlier image, whose pages are in the store */
	VEC(struct map) maps; /* those registered */
};
struct track {
	struct arena arena; /* names in the maps */
	VEC(struct tracked_space) spaces;
	bool is_kept; /* what is tracked is wanted for the next save too */
	bool is_quiet;      /* nothing was written during the last round */
	uint64_t pages;     /* copied in all rounds */
	uint64_t freeze_ns; /* how long the program stood still for it */
};

/* Chooses what of @survey (a look at the running tree, with flags and sizes, and with who shares memory: sharing_find_memory) is worth tracking. Of @kept, which an earlier
 * save left, it takes over what is of those processes and since the image @parent (id; NULL: nothing): their stores are to be filled with that image's places
 * before a round, or track_forget called. */
void track_choose(struct track *track, const struct harvest *survey, struct tracking *kept, const uint8_t *parent, struct snapshot *snapshot);
/* Ends what was left of @kept, in steps as track_finish does. */
void track_drop(struct tracking *kept, const struct harvest *survey);
/* Nothing is known of it: it is registered anew. */
void track_forget(struct tracked_space *space);
/* Starts tracking what was chosen. Nothing worth it, or not possible here: 0, and no spaces; -v says why. A fault is only what ends the
 * operation. */
int track_begin(struct track *track, const struct harvest *survey, pid_t root, const struct deadline *deadline, struct fault *fault);
/* Copies all that is tracked, then again what was written meanwhile, until that is little or does not become less. *ret_left: pages of the
 * last round; so many will have been written when it stands still. */
int track_copy(struct track *track, struct snapshot *snapshot, uint64_t *ret_left, struct fault *fault);
bool track_has(const struct track *track, pid_t pid, uint64_t start); /* the mapping that begins there? */
bool track_follows(const struct track *track, pid_t pid);             /* anything of that process? */
/* Is the space of this process tracked? Then its store is the one with the copies. */
void track_adopt(const struct track *track, struct frozen_process *process);
/* When the tree stands still and its descriptors are known: of whom might writes have been missed after all? Nothing of them that was
 * copied before counts. */
void track_doubt(const struct harvest *harvest, struct snapshot *snapshot);
/* Ends nothing: hands on the tracking of what @harvest says was not missed, as being since @image. */
void track_keep(struct track *track, const struct harvest *harvest, const uint8_t image[16], struct tracking *ret_tracking);
/* Ends tracking, in steps that hold nobody up for long. */
void track_finish(struct track *track);
