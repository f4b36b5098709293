/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Where the files of an image are now (--map-path OLD=NEW): a path of the image that is OLD, or lies below it, is looked for under
 * NEW. Only whole components count, the longest OLD wins, of equal ones the last. */
#include <stddef.h>

#include "base/fault.h"

struct path_map {
	const char *old_path, *new_path; /* both absolute; slashes at the end mean nothing */
	size_t uses; /* paths of the image that it has changed */
};

struct path_maps {
	struct path_map *at;
	size_t count;
};

/* FAULT_USAGE when one of the paths is not absolute. */
int path_maps_check(const struct path_maps *maps, struct fault *fault);
/* *ret_path: what @path is called now (malloc), NULL: as it was. A result that is too long is a fault. */
int path_maps_apply(const struct path_maps *maps, const char *path, char **ret_path, struct fault *fault);
