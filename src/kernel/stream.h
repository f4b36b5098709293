/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A file of /proc that may be long, piece by piece: the kernel takes as long to write one as Cairn to look at it, so that is done at the same time. */
#include "kernel/procfs.h"

/* @take gets all of /proc/@pid/@name in order, each time some whole lines and a NUL. Its failure ends it. -EFBIG without a fault: there are more than @most bytes. */
int proc_stream(pid_t pid, const char *name, size_t most, int (*take)(void *context, const char *lines, struct fault *fault), void *context,
		struct fault *fault);
