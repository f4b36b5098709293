/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Write tracking that outlives a save: what one save hands to the next, through whoever keeps it meanwhile.
 *
 * The private anonymous memory of these processes is registered with the userfaultfds for asynchronous write protection, and was protected
 * when the tree stood still for the image: a registered page that is there and unwritten is what the image has at that address. Whoever
 * closes the descriptors ends the tracking, which harms nobody: the next save then copies all. */
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/memory.h"

struct tracking_space {
	pid_t pid;
	uint64_t start_time; /* with the PID, what makes it this process (proc_pid_stat(5), field 22) */
	uint8_t image[16];   /* id of the image */
	int userfaultfd;     /* -1: taken, or somebody else's */
};
struct tracking {
	VEC(struct tracking_space) spaces;
};

static inline void tracking_finish(struct tracking *tracking)
{
	for (size_t i = 0; i < tracking->spaces.count; i++)
		if (tracking->spaces.at[i].userfaultfd >= 0)
			close(tracking->spaces.at[i].userfaultfd);
	vec_finish(&tracking->spaces);
}

static inline struct tracking_space *tracking_find(const struct tracking *tracking, pid_t pid, uint64_t start_time)
{
	for (size_t i = 0; tracking && i < tracking->spaces.count; i++)
		if (tracking->spaces.at[i].pid == pid && tracking->spaces.at[i].start_time == start_time)
			return &tracking->spaces.at[i];
	return NULL;
}
