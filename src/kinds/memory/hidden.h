/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Shared memory and deleted files that are mapped but cannot be opened: an ordinary user may not follow /proc/PID/map_files
 * (fs/proc/base.c proc_map_files_get_link), and no descriptor of the tree refers to them. */
#include "kinds/kind.h"

/* A descriptor in the tree that refers to what @map maps, NULL: none. */
struct frozen_file *hidden_find_file(const struct harvest *harvest, const struct map *map);
/* The object behind @map is found out through its mappings, and its contents are saved under @id. *@size, in the arena, is filled in until
 * all processes were visited. */
int hidden_add(struct harvest *harvest, const struct frozen_process *process, const struct map *map, uint32_t id,
	       uint64_t *size, struct fault *fault);
/* kind->visit of the kind that mappings have. */
int hidden_visit(struct harvest *harvest, struct frozen_thread *thread, struct fault *fault);
