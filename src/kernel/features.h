/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What this kernel and this user's permissions allow, asked by doing, never by version number. A probe leaves nothing
 * behind: what it has to change, it changes in a child of its own that has ended when it returns. */
#include <stdbool.h>

/* Ways of working. A way is open when every required feature works and every feature that names the way. */
enum feature_way {
	WAY_SAME_PIDS = 1 << 0, /* restore in the caller's PID namespace, at the old PIDs */
	WAY_PRIVATE = 1 << 1,   /* restore in a PID namespace of its own, made with the caller's capabilities */
	WAY_ANY = 1 << 3,       /* restore with the PIDs that come: what every way needs is enough */
	WAY_USER = 1 << 2,      /* in a user and PID namespace of its own, no capability needed */
};

struct feature {
	const char *name;    /* "PAGEMAP_SCAN" */
	const char *purpose; /* what Cairn uses it for */
	bool required;       /* without it no way works; false: there is a fallback, or only some ways need it */
	bool (*probe)(char *why, unsigned long size); /* false: why: the errno in words, and the remedy */
	unsigned int ways;   /* enum feature_way that need it */
};
/* Ends with a NULL name. */
extern const struct feature features[];

/* Effective capability of the calling process (CAP_* number). */
bool feature_capability(int capability);
/* Does pagemap_changed (kernel/pagemap.h) say pages that were given back, and such that never were there? Memory is tried with as the calls would have it. */
bool feature_changed(void);
/* May memory be served to a running program: userfaultfd with faults of the kernel's own and events of forks? */
bool feature_events(void);
