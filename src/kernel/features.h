/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What this kernel and this user's permissions allow, asked by doing, never by version number. */
#include <stdbool.h>

struct feature {
	const char *name;    /* "PAGEMAP_SCAN" */
	const char *purpose; /* what Cairn uses it for */
	bool required;       /* false: Cairn has a fallback */
	bool (*probe)(char *why, unsigned long size); /* why: the errno in words, and the remedy */
};
/* Ends with a NULL name. */
extern const struct feature features[];

/* Effective capability of the calling process (CAP_* number). */
bool feature_capability(int capability);
