/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* cairn_restore, and what the command line needs beyond it. */
#include "api/operations.h"
#include "job/job.h"

/* How a private namespace's init is to be started, beyond the options. */
struct restore_way {
	const char *program;   /* the cairn to execute, NULL: the installed one */
	const json_t *spec;    /* more words of the init's spec (name, image, every ...), NULL: none */
	bool detached;         /* it lives on when the caller ends */
	bool terminal_ours;    /* the caller is in the foreground of options->terminal */
};

/* The spec of an init that restores (init.h). */
json_t *restore_spec(const struct cairn_restore_options *options, const struct restore_way *way, const struct operation_peek *peek);

/* Brings an image back here or as a job, by options->pids and by what is permitted. @ret_job: init 0 when it is no job. */
enum cairn_status restore_image(const struct cairn_restore_options *options, const struct restore_way *way,
				struct cairn_restore_result *result, struct job *ret_job, struct cairn_error *error);
