/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/target.h"

#include <errno.h>
#include <stdlib.h>

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
