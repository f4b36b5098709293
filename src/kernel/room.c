/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

/* Is @word one of the words of a list with commas, which ends at @end? */
static bool has_word(const char *list, const char *end, const char *word)
{
	const size_t size = strlen(word);
	for (const char *at = list; at < end; at++) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		const char *stop = comma ? comma : end;
		if ((size_t)(stop - at) == size && !memcmp(at, word, size))
			return true;
		at = stop;
	}
	return false;
}

static bool copy_until(const char *at, const char *stops, char ret_text[PATH_MAX])
{
	size_t size = strcspn(at, stops);
	if (size >= PATH_MAX)
		return false;
	memcpy(ret_text, at, size);
	ret_text[size] = 0;
	return true;
}

/* "4:memory,cpu:/path" or "0::/path" */
bool room_group_parse(const char *text, struct room_group *ret_group)
{
	bool found = false;
	for (const char *line = text; *line; line = token_next_line(line)) {
		const char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
		if (!second)
			return false;
		bool unified = second == first + 1, own = has_word(first + 1, second, "memory");
		if (!own && !(unified && !found))
			continue;
		if (!copy_until(second + 1, "\n", ret_group->path))
			return false;
		ret_group->unified = unified;
		found = true;
		if (own)
			break;
	}
	return found;
}

/* One line of mountinfo, proc(5): the fifth field is the mount point, behind " - " come the type, the source, and the options of the file system. */
struct mount_line {
	char root[PATH_MAX], point[PATH_MAX];
	bool version1, version2;
};

static bool mount_line_parse(const char *line, struct mount_line *ret_mount)
{
	const char *end = line + strcspn(line, "\n"), *at = line, *fields[5];
	for (int i = 0; i < 5; i++) {
		fields[i] = at;
		at = memchr(at, ' ', (size_t)(end - at));
		if (!at)
			return false;
		at++;
	}
	const char *kind = strstr(at - 1, " - ");
	if (!kind || kind >= end)
		return false;
	kind += 3;
	ret_mount->version2 = token_word(&kind, "cgroup2 ");
	ret_mount->version1 = !ret_mount->version2 && token_word(&kind, "cgroup ");
	const char *options = ret_mount->version1 ? memchr(kind, ' ', (size_t)(end - kind)) : NULL;
	ret_mount->version1 = options && has_word(options + 1, end, "memory");
	return (ret_mount->version1 || ret_mount->version2) && copy_until(fields[3], " \n", ret_mount->root) &&
	       copy_until(fields[4], " \n", ret_mount->point);
}

bool room_directory_parse(const char *text, const struct room_group *group, char ret_path[PATH_MAX], size_t *ret_top)
{
	static const size_t most = PATH_MAX;
	struct mount_line mount;
	for (const char *line = text; *line; line = token_next_line(line)) {
		if (!mount_line_parse(line, &mount) || (group->unified ? !mount.version2 : !mount.version1))
			continue;
		/* What is mounted may be a part of the hierarchy, as in containers. */
		size_t root = strcmp(mount.root, "/") ? strlen(mount.root) : 0;
		const char *below = group->path + root;
		if (strncmp(group->path, mount.root, root) || (*below && *below != '/'))
			continue;
		int size = snprintf(ret_path, most, "%s%s", mount.point, strcmp(below, "/") ? below : "");
		*ret_top = strlen(mount.point);
		return size > 0 && (size_t)size < most;
	}
	return false;
}

/* The number that @key stands before in a file of @directory, or (@key "") that it begins with. false: none, or "max". */
static bool read_number(const char *directory, const char *name, const char *key, uint64_t *ret_number)
{
	char path[PATH_MAX + 64];
	struct text text = { 0 };
	snprintf(path, sizeof path, "%s/%s", directory, name);
	bool found = false;
	if (proc_read_path(path, &text, NULL) == 0)
		for (const char *line = text.at; *line && !found; line = token_next_line(line)) {
			const char *at = line;
			found = token_word(&at, key) && token_number(&at, 10, ret_number);
		}
	text_finish(&text);
	return found;
}

/* Above memory.high programs are slowed down, to a standstill in the end: as bad as a limit, for somebody who only wanted to be saved. */
static uint64_t limit_of(const char *directory, bool unified)
{
	uint64_t limit = UINT64_MAX, high = UINT64_MAX;
	read_number(directory, unified ? "memory.max" : "memory.limit_in_bytes", "", &limit);
	if (unified)
		read_number(directory, "memory.high", "", &high);
	return high < limit ? high : limit;
}

/* Of one group; pages of files that nobody used lately cost nobody anything. */
static uint64_t left_in(const char *directory, bool unified)
{
	uint64_t limit = limit_of(directory, unified), used, idle = 0;
	if (limit == UINT64_MAX || !read_number(directory, unified ? "memory.current" : "memory.usage_in_bytes", "", &used))
		return UINT64_MAX;
	read_number(directory, "memory.stat", unified ? "inactive_file " : "total_inactive_file ", &idle);
	used -= idle < used ? idle : used;
	return limit > used ? limit - used : 0;
}

static void look_at_groups(pid_t pid, struct room *room)
{
	struct text groups = { 0 }, mounts = { 0 };
	struct room_group group;
	char path[PATH_MAX];
	size_t top;
	if (proc_read(pid, "cgroup", &groups, NULL) == 0 && room_group_parse(groups.at, &group) &&
	    proc_read(getpid(), "mountinfo", &mounts, NULL) == 0 && room_directory_parse(mounts.at, &group, path, &top)) {
		for (;;) {
			uint64_t left = left_in(path, group.unified), together;
			room->left = left < room->left ? left : room->left;
			room->one_for_all |= group.unified && read_number(path, "memory.oom.group", "", &together) && together;
			char *slash = strrchr(path, '/');
			if (!slash || strlen(path) <= top)
				break;
			*slash = 0;
		}
	}
	text_finish(&groups);
	text_finish(&mounts);
}

void room_look(pid_t pid, struct room *ret_room)
{
	uint64_t kilobytes;
	*ret_room = (struct room){ .left = UINT64_MAX };
	look_at_groups(pid, ret_room);
	if (read_number("/proc", "meminfo", "MemAvailable:", &kilobytes) && kilobytes * 1024 < ret_room->left)
		ret_room->left = kilobytes * 1024;
}
