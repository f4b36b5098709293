/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The half of `cairn check` that needs more than this host. */
#include "cmd/cmd.h"

#define MAP_PATH_HELP "what the image knows as OLD, and all below it, is NEW here; can be repeated"
#define MAP_ADDRESS_HELP "sockets at address OLD are at NEW here; can be repeated"
#define FILE_CHANGED_HELP "what to do if a file has changed since the checkpoint; rollback: cut off what was appended, put back what is in the image"
#define FORCE_CPU_HELP "the processor here may lack features that the image's had"

struct check_options {
	/* Of an image: as for its restore. */
	struct cmd_list maps, addresses;
	bool force_cpu;
	int file_changed;
	const char *key; /* path */
	bool repair;
};

/* A dry run of saving or restoring @target, a PID or an image; prints what it found and gives the exit status. Where
 * the whole program has no such function, `cairn check TARGET` says so. */
int check_target(const char *target, const struct check_options *given, const struct cmd_common *common) __attribute__((weak));
