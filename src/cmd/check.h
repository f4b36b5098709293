/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The half of `cairn check` that needs more than this host. */
#include "cmd/cmd.h"

/* A dry run of saving or restoring @target, a PID or an image; prints what it found and gives the exit status. Where
 * the whole program has no such function, `cairn check TARGET` says so. */
int check_target(const char *target, const struct cmd_common *common) __attribute__((weak));
