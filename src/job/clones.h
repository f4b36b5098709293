/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* cairn_restore_clones: several restores of one image that share its memory. */
#include "job/restore.h"

/* @count results and jobs, which the caller has. All of them run, or none has ever run. "%n" in the path of a redirect is the clone's number. */
enum cairn_status restore_clones(const struct cairn_restore_options *options, const struct restore_way *way, unsigned count,
				 struct cairn_restore_result *ret_results, struct job *ret_jobs, struct cairn_error *error);
