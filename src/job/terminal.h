/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The controlling terminal of the Cairn that the user started, and who is in its foreground. */
#include <stdbool.h>
#include <sys/types.h>

struct terminal {
	int fd;        /* -1: none */
	char path[64]; /* "": not known */
	bool ours;     /* the caller's group is in its foreground, or was when it was opened */
	pid_t group;   /* the job's own group, 0: it is in the caller's */
};

void terminal_open(struct terminal *terminal);
/* Brings @group to the foreground, also from the background, which SIGTTOU would stop; nothing if it is not ours to give. */
void terminal_give(const struct terminal *terminal, pid_t group);
