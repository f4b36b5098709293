/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/path_map.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int path_maps_check(const struct path_maps *maps, struct fault *fault)
{
	for (size_t i = 0; i < maps->count; i++) {
		const struct path_map *map = &maps->at[i];
		const char *wrong = map->old_path[0] != '/' ? map->old_path : map->new_path;
		if (wrong[0] != '/')
			return fault_set(fault, FAULT_USAGE, EINVAL,
					 "--map-path %s=%s: '%s' is not an absolute path; try one that begins with /",
					 map->old_path, map->new_path, wrong);
	}
	return 0;
}

/* Without the slashes at its end: "/" has none left. */
static size_t length_of(const char *path)
{
	size_t length = strlen(path);
	while (length && path[length - 1] == '/')
		length--;
	return length;
}

static bool lies_in(const char *path, const char *directory, size_t length)
{
	return !strncmp(path, directory, length) && (path[length] == '/' || !path[length]);
}

static struct path_map *find(const struct path_maps *maps, const char *path)
{
	struct path_map *best = NULL;
	size_t longest = 0;
	for (size_t i = 0; i < maps->count; i++) {
		size_t length = length_of(maps->at[i].old_path);
		if (length < longest || !lies_in(path, maps->at[i].old_path, length))
			continue;
		best = &maps->at[i];
		longest = length;
	}
	return best;
}

int path_maps_apply(const struct path_maps *maps, const char *path, char **ret_path, struct fault *fault)
{
	struct path_map *map = path[0] == '/' ? find(maps, path) : NULL;
	*ret_path = NULL;
	if (!map)
		return 0;
	const char *rest = path + length_of(map->old_path);
	size_t length = length_of(map->new_path);
	if (!strcmp(rest, "/") && length)
		rest = "";
	if (length + strlen(rest) >= PATH_MAX)
		return fault_set(fault, FAULT_FAILED, ENAMETOOLONG,
				 "--map-path %.200s=%.200s: makes a path of %zu bytes of %.200s; try a shorter NEW",
				 map->old_path, map->new_path, length + strlen(rest), path);
	map->uses++;
	*ret_path = memory_format("%.*s%s", (int)length, map->new_path, length || *rest ? rest : "/");
	return 0;
}
