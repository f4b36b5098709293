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

static bool number_take(const char *at, unsigned int base, uint64_t most, uint64_t *ret_value)
{
	uint64_t value;
	if (!token_number(&at, base, &value) || value > most || !token_at_end(at))
		return false;
	*ret_value = value;
	return true;
}

/* Printed signed: -1 is possible on odd files. */
static bool position_take(const char *at, uint64_t *ret_position)
{
	int64_t position;
	if (!token_signed(&at, &position) || !token_at_end(at))
		return false;
	*ret_position = (uint64_t)position;
	return true;
}

/* mnt_id and ino came later (3.15, 5.14), eventfd-id in 5.2: 0 where they are missing. */
static bool line_take(const char *line, struct fdinfo *info, int *seen)
{
	const char *at = line;
	if (token_word(&at, "pos:")) {
		*seen |= SEEN_POSITION;
		return position_take(at, &info->position);
	}
	if (token_word(&at, "flags:")) {
		uint64_t flags = 0;
		*seen |= SEEN_FLAGS;
		bool good = number_take(at, 8, UINT32_MAX, &flags);
		info->flags = (uint32_t)flags;
		return good;
	}
	if (token_word(&at, "mnt_id:"))
		return number_take(at, 10, UINT64_MAX, &info->mount_id);
	if (token_word(&at, "ino:"))
		return number_take(at, 10, UINT64_MAX, &info->inode);
	if (token_word(&at, "eventfd-id:"))
		return number_take(at, 10, UINT64_MAX, &info->object);
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
