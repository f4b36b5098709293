/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/fdinfo/N: the common lines are fs/proc/fd.c seq_show; what follows is its kind's own. */
#include "kernel/fdinfo.h"

#include <stdio.h>
#include <string.h>

#include "kernel/token.h"

bool fdinfo_next(char **cursor, const char **ret_key, const char **ret_value)
{
	char *line = *cursor;
	if (!line || !*line)
		return false;
	char *end = strchrnul(line, '\n');
	*cursor = *end ? end + 1 : end;
	*end = 0;
	char *colon = strchr(line, ':');
	if (!colon) {
		*ret_key = "";
		*ret_value = line;
		return true;
	}
	*colon = 0;
	*ret_key = line;
	*ret_value = token_skip_blanks(colon + 1);
	return true;
}

enum { SEEN_POSITION = 1, SEEN_FLAGS = 2 };

/* mnt_id and ino came later (3.15, 5.14): 0 where they are missing. */
static bool line_take(const char *line, struct fdinfo *info, int *seen)
{
	const char *at = line;
	int64_t position;
	uint64_t flags;
	if (token_word(&at, "pos:")) { /* printed signed; -1 is possible on odd files */
		*seen |= SEEN_POSITION;
		bool good = token_signed(&at, &position);
		info->position = good ? (uint64_t)position : 0;
		return good;
	}
	if (token_word(&at, "flags:")) {
		*seen |= SEEN_FLAGS;
		bool good = token_number(&at, 8, &flags) && flags <= UINT32_MAX;
		info->flags = good ? (uint32_t)flags : 0;
		return good;
	}
	if (token_word(&at, "mnt_id:"))
		return token_number(&at, 10, &info->mount_id);
	if (token_word(&at, "ino:"))
		return token_number(&at, 10, &info->inode);
	return true;
}

int fdinfo_parse(const char *text, struct fdinfo *ret_info, struct fault *fault)
{
	struct fdinfo info = { 0 };
	int seen = 0;
	for (const char *line = text; *line; line = token_next_line(line))
		if (!line_take(line, &info, &seen))
			return token_malformed(fault, "fdinfo", "a line", line);
	if (seen != (SEEN_POSITION | SEEN_FLAGS))
		return token_malformed(fault, "fdinfo", "the start", text);
	*ret_info = info;
	return 0;
}

int fdinfo_read(pid_t pid, int fd, struct text *text, struct fdinfo *ret_info, struct fault *fault)
{
	char name[32];
	snprintf(name, sizeof name, "fdinfo/%d", fd);
	int rc = proc_read(pid, name, text, fault);
	if (rc == 0)
		rc = fdinfo_parse(text->at, ret_info, fault);
	return rc < 0 ? fault_at(fault, rc, "fd %d", fd) : 0;
}
