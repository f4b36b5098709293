/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A twin: a copy-on-write copy of a frozen process's memory, as a process that stands still and is read while the program runs on.
 *
 * A guest bears a helper with its own memory (CLONE_VM), which bears the twin and ends; the guest takes the helper's end, so that there is nobody whom the
 * program could wait for, and no signal. The twin belongs to whoever adopts orphans.
 *
 * Neither ever runs the program's code: they come from the system call that made them into calls of their own, behind which only the end is (stub_born). Both are seized from
 * birth (CLONE_PTRACE), so as long as Cairn lives they stand where it leaves them; from the helper's first stop on both die with Cairn (EXITKILL, which the guest never
 * has). A Cairn that dies before that leaves a helper and a twin that run through their calls to their ends, and a guest that goes home.
 *
 * The twin's own calls, made while the program still stands still, let go of all that is not memory to be read: its descriptors (an empty table, as that of the
 * program is shared until then: no file is closed by it), shared mappings, the session, the working directory. */
#include <sys/types.h>

#include "tracee/foothold.h"

struct twin_range {
	uint64_t start, end;
};

/* @suspended: the guest's seccomp filters are suspended. @unwanted: what the twin unmaps; TWIN_MOST_RANGES at most. A fault whose class is FAULT_FAILED and that is not
 * transient means that there is no twin and that the guest is as it was before. */
enum { TWIN_MOST_RANGES = 1000 };
int twin_make(struct foothold *foothold, struct guest *guest, bool suspended, const struct twin_range *unwanted, size_t count, pid_t *ret_pid,
	      struct fault *fault);
/* Ends it, and waits for that. */
void twin_end(pid_t pid);
