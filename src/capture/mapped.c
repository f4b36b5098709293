/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/mapped.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/mapped.h"
#include "base/memory.h"

struct file_id {
	uint64_t device, inode;
};
typedef VEC(struct file_id) file_ids;

static bool is_mark(pid_t pid, const struct map *map)
{
	char begin[sizeof MAPPED_MARK - 1];
	if (map->shared || !map->inode || map->offset || map->sysv || map->end - map->start != MAPPED_MARK_SIZE || map->protection != PROT_READ)
		return false;
	struct iovec here = { begin, sizeof begin }, there = { (void *)(uintptr_t)map->start, sizeof begin };
	return process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof begin && !memcmp(begin, MAPPED_MARK, sizeof begin);
}

static bool is_of(const file_ids *images, const struct map *map)
{
	for (size_t i = 0; i < images->count; i++)
		if (images->at[i].device == map->device && images->at[i].inode == map->inode)
			return true;
	return false;
}

void mapped_adopt(pid_t pid, struct map_list *maps)
{
	file_ids images = { 0 };
	size_t kept = 0;
	for (size_t i = 0; i < maps->maps.count; i++)
		if (is_mark(pid, &maps->maps.at[i]))
			*vec_add(&images) = (struct file_id){ maps->maps.at[i].device, maps->maps.at[i].inode };
	for (size_t i = 0; images.count && i < maps->maps.count; i++) {
		struct map map = maps->maps.at[i];
		bool mapped = !map.shared && map.inode && !map.sysv && is_of(&images, &map);
		if (mapped && map.offset == 0 && map.end - map.start == MAPPED_MARK_SIZE && map.protection == PROT_READ)
			continue;
		if (mapped) {
			map.image_inode = map.inode;
			map.inode = 0;
			map.deleted = false;
			map.name = "";
		}
		maps->maps.at[kept++] = map;
	}
	if (images.count)
		maps->maps.count = kept;
	vec_finish(&images);
}
