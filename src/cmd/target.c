/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/check.h"

int target_pid(const char *text, pid_t *ret_pid, struct fault *fault)
{
	char *end;
	errno = 0;
	long pid = strtol(text, &end, 10);
	if (end == text || *end || errno || pid <= 0 || pid > 1 << 22)
		return fault_set(fault, FAULT_USAGE, EINVAL, "\"%s\" is not a PID; try `ps` for the PIDs that exist", text);
	*ret_pid = (pid_t)pid;
	return 0;
}

/* Digits alone are a PID; everything else names a file. */
int check_target(const char *target, const struct cmd_common *common)
{
	struct cairn_error error = { 0 };
	struct fault fault;
	pid_t pid = 0;
	bool is_pid = target[strspn(target, "0123456789")] == 0;
	if (is_pid && target_pid(target, &pid, &fault) < 0)
		return cmd_report(common, &fault);
	enum cairn_status status = is_pid ? cairn_check_process(pid, &error) : cairn_check_image(target, &error);
	if (status != CAIRN_DONE)
		cmd_report_error(common, status, &error);
	else if (common->json)
		cmd_json(json_pack("{s:s, s:o, s:b}", "event", "check", "target", cmd_text(target), "ok", 1));
	else if (!common->quiet)
		printf("%s: nothing stands against a %s here\n", target, is_pid ? "checkpoint" : "restore");
	cairn_error_free(&error);
	return (int)status;
}
