/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Twins (tracee/twin.h) of a live save: of address spaces whose writes cannot be tracked, and of which more would have to be copied while the program stands still
 * than it costs to fork. Made at the end of the freeze, read when the program has gone on (snapshot_twins), and ended.
 *
 * A twin has what fork(2) copies: private mappings without MADV_DONTFORK and MADV_WIPEONFORK. Not asked of it: private huge pages of a pool, which it gives up
 * while the program stands still, and the text that holds the foothold, as that has the stub in it. */
#include "kinds/kind.h"

struct twins {
	uint64_t most_bytes; /* that all of them may come to hold, if the program writes to all of its memory; 0: as the machine and the cgroup have room */
	bool refused;        /* there shall be none */
	uint64_t bytes;      /* that those that there are may come to */
	VEC(struct frozen_space *) spaces; /* that have one; the harvest's */
};

/* Is this mapping read from the twin of its space, if that has one? */
bool twins_have(const struct frozen_space *space, const struct map *map);
/* As far as smaps says, what would have to be copied of it in the freeze if it has none. */
uint64_t twins_bytes(const struct frozen_space *space, const struct map *map);
/* Is it worth a twin to have @copied bytes less to copy in the freeze, in a space with @maps? */
bool twins_pay(const struct map_list *maps, uint64_t copied);
/* Bytes of @space that would be read from its twin; 0: it is not worth one. Of a running tree: as things are. */
uint64_t twins_expect(const struct twins *twins, const struct frozen_space *space);
/* Makes twins for those spaces of the frozen tree that are not tracked and are worth one. Where there can be none (-v says why) all is copied in the freeze. A fault is
 * only what ends the freeze. */
int twins_make(struct twins *twins, struct harvest *harvest, const struct deadline *deadline, struct fault *fault);
/* Have they all that twins_have says? A program that calls madvise(2) just before and just after the freeze could hide from all other looks. Takes as long as smaps. */
bool twins_are_whole(const struct twins *twins);
/* Have all of them been there until now? The kernel ends them first when it wants memory, and one that has ended seems to have no pages. */
bool twins_live(const struct twins *twins);
void twins_end(struct twins *twins);
