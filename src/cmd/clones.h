/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* cairn restore --clones N. */
#include "cmd/cmd.h"
#include "job/restore.h"

struct clones_wish {
	unsigned count;
	bool detached;
	const char *pidfile; /* NULL: none */
	int status_fd;       /* 0: none */
	uint8_t *key;        /* the options' own; freed when they run. NULL: none */
};

/* The exit status. */
int clones_run(const struct cairn_restore_options *options, const struct clones_wish *wish, const struct cmd_common *common);
