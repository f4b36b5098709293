/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What checkpoint, restore and check share: the target as the user names it, and a library call's errors. */
#include <sys/types.h>

#include "cairn.h"
#include "cmd/cmd.h"

/* A PID in decimal, nothing else: FAULT_USAGE. */
int target_pid(const char *text, pid_t *ret_pid, struct fault *fault);
/* Blocks SIGINT, SIGTERM and SIGHUP, and gives them as a descriptor that an operation looks at. */
int cmd_signal_fd(void);
/* Prints the lines; returns the exit status. */
int cmd_report_error(const struct cmd_common *common, enum cairn_status status, const struct cairn_error *error);
