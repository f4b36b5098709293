/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* --lazy: a process of its own that loads memory behind the running program. Faults come first, the rest of the image in the order in
 * which it was written last, by several threads.
 *
 * The program's memory must be that of plain anonymous memory at every moment: what it gives back (madvise, munmap) is zeros
 * afterwards and never comes from the image again; what it moves is loaded where it is by then; its children have it too. The kernel tells
 * each such change and holds the program until it has been read (userfaultfd(2), events); pages are put only while no change is on its way, under
 * one lock with the reading of the events.
 *
 * If the pager died, the kernel would give zeros for what was not loaded. So it has a guard, which is its parent and holds the same
 * descriptors: it kills the program if the pager ends without having loaded everything. */
#include "rebuild/faults.h"

struct pager; /* Cairn's end of it */

/* Starts guard and pager, which serve from now on, also what Cairn itself touches. Takes @spaces (each with a userfaultfd). */
int pager_start(const struct rebuild *rebuild, const struct fault_space *spaces, size_t count, struct pager **ret_pager,
		struct fault *fault);
/* The program is about to run, and its memory is the pager's business alone. */
void pager_commit(struct pager *pager);
/* The guard, which ends with status 0 when all is loaded, as a child of the caller's; and copies of what it holds (a new array): who keeps them
 * open until then can end the program himself should the guard be killed, before anything has seen zeros. */
pid_t pager_watch(const struct pager *pager, int **ret_held, size_t *ret_count);
/* Without a commit the pager ends. */
void pager_free(struct pager *pager);
