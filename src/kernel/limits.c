/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/limits: fs/proc/base.c proc_pid_limits. */
#include <errno.h>
#include <sys/resource.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

static const char *const limit_names[16] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};
enum { LIMITS = sizeof limit_names / sizeof *limit_names };

static bool limit_take(const char **at, uint64_t *ret_value)
{
	*at = token_skip_blanks(*at);
	if (!token_word(at, "unlimited"))
		return token_number(at, 10, ret_value);
	*ret_value = RLIM_INFINITY;
	return true;
}

/* The number of the limit of this line, or -1; then *@at is behind its name. */
static int limit_of(const char **at)
{
	for (int i = 0; i < LIMITS; i++)
		if (token_word(at, limit_names[i]))
			return i;
	return -1;
}

int proc_limits_parse(const char *text, struct proc_limits *ret_limits, struct fault *fault)
{
	struct proc_limits limits = { 0 };
	uint32_t seen = 0;
	for (const char *line = text; *line; line = token_next_line(line)) {
		const char *at = line;
		int limit = limit_of(&at);
		if (limit < 0)
			continue;
		if (!limit_take(&at, &limits.soft[limit]) || !limit_take(&at, &limits.hard[limit]))
			return token_malformed(fault, "limits", limit_names[limit], line);
		seen |= 1u << limit;
	}
	for (int i = 0; i < LIMITS; i++)
		if (!(seen & 1u << i))
			return fault_set(fault, FAULT_FAILED, EBADMSG,
					 "limits: no line '%s'; try `cairn check`, and report the kernel's version",
					 limit_names[i]);
	*ret_limits = limits;
	return 0;
}
