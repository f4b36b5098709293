/* SPDX-License-Identifier: Apache-2.0 */
/* cairn_checkpoint, with the write tracking that holders keep between two saves. */
#include <errno.h>

#include "api/operations.h"
#include "base/log.h"
#include "job/holder.h"

enum cairn_status cairn_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options,
				   struct cairn_checkpoint_result *result, struct cairn_error *error)
{
	struct tracking tracking = { 0 };
	struct fault fault;
	*result = (struct cairn_checkpoint_result){ 0 };
	if (options->track && (options->after != CAIRN_RUN_ON || options->no_live)) {
		fault_set(&fault, FAULT_USAGE, EINVAL, "--track is for a live save of a program that runs on; try it without --kill, --stop and "
			  "--no-live");
		return operation_failed(NULL, &fault, NULL, error);
	}
	holder_ask(pid, true, &tracking);
	enum cairn_status status = operation_checkpoint(pid, options, NULL, &tracking, result, error);
	/* Also what it did not come to touch. */
	if (tracking.spaces.count && holder_start(pid, status == CAIRN_DONE ? options->output : "-", &tracking, &fault) < 0)
		log_warn("writes are not tracked: %s; continuing without it", fault.text);
	tracking_finish(&tracking);
	return status;
}

enum cairn_status cairn_check_process(pid_t pid, struct cairn_error *error)
{
	struct tracking tracking = { 0 };
	holder_ask(pid, false, &tracking);
	enum cairn_status status = operation_check(pid, NULL, &tracking, error);
	tracking_finish(&tracking);
	return status;
}
