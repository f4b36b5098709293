/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What run and restore do while the program runs: pass signals and the terminal on, and end as it does. */
#include "cmd/cmd.h"
#include "job/job.h"
#include "job/terminal.h"

enum { OWN_FAILURE = 125, RUN_AGAIN = 85 };

struct foreground {
	const struct terminal *terminal;
	struct job job;           /* without an init: `root` is this process's child, in its namespace */
	const struct cmd_common *common;
	int save_signal;          /* a checkpoint is made when it comes; 0: none */
	bool exit_after;          /* and ends the job */
};

/* Until the program has ended; the exit status. Finishes the job. */
int foreground_wait(struct foreground *foreground);
