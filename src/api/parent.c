/* SPDX-License-Identifier: Apache-2.0 */
#include "api/parent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "api/operations.h"
#include "base/memory.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

int parent_open(const char *path, const struct image_key *key, struct image_reader **ret_parent, struct fault *fault)
{
	int rc = image_reader_open(path, key, ret_parent, fault);
	switch (rc) {
	case -ENOKEY:
		return fault_set(fault, FAULT_PERMISSION, ENOKEY, "%s: is encrypted, and so has to be what builds on it; try --encrypt-key with its key", path);
	case -EKEYREJECTED:
		return fault_set(fault, FAULT_PERMISSION, EKEYREJECTED, "%s: is encrypted with another key; try its own, or a whole image, without "
				 "--incremental", path);
	case -EPROTO:
		return fault_set(fault, FAULT_USAGE, EPROTO, "%s: is not encrypted, and so cannot be what builds on it; try a whole image, without "
				 "--incremental", path);
	default:
		return rc;
	}
}

/* The new image takes the place of whatever has its name: that may not be an image that it needs. */
int parent_check(const struct image_reader *parent, const char *path, struct fault *fault)
{
	struct stat output, needed;
	size_t count;
	bool is_needed = false;
	_free_ int *fds = image_reader_fds(parent, &count);
	if (stat(path, &output) < 0)
		return 0;
	for (size_t i = 0; i < count; i++)
		is_needed |= fstat(fds[i], &needed) == 0 && needed.st_dev == output.st_dev && needed.st_ino == output.st_ino;
	return is_needed ? fault_set(fault, FAULT_USAGE, EEXIST,
				     "is an image that the new one would need, and would be replaced by it; try another --output") : 0;
}

/* Which address space was whose in the parent. A number that is another process's by now costs time and nothing else: contents are compared. */
int parent_note(const struct image_reader *parent, struct snapshot *snapshot, struct fault *fault)
{
	const struct image_record *records;
	size_t count = image_reader_records(parent, &records);
	for (size_t i = 0; i < count; i++) {
		if (records[i].tag != kind_process.tag)
			continue;
		Cairn__Process *process = cairn__process__unpack(NULL, records[i].size, records[i].data);
		if (!process)
			return fault_set(fault, FAULT_IMAGE, EBADMSG, "the parent image is damaged: a process; try another --incremental");
		*vec_add(&snapshot->parents) = (struct snapshot_parent){ (pid_t)process->pid, process->space };
		cairn__process__free_unpacked(process, NULL);
	}
	return 0;
}

void parent_seed(const struct image_reader *parent, struct track *track, struct snapshot *snapshot)
{
	const struct image_place *places;
	size_t count = image_reader_places(parent, &places);
	for (size_t i = 0; i < track->spaces.count; i++) {
		struct tracked_space *space = &track->spaces.at[i];
		struct snapshot_store *store = &snapshot->stores.at[space->store];
		if (!space->known)
			continue;
		if (!store->parent_space)
			track_forget(space);
		for (size_t p = 0; store->parent_space && p < count; p++) {
			if (places[p].space != store->parent_space)
				continue;
			struct page_place *place = vec_add(&store->places);
			*place = places[p].at;
			place->image++;
		}
		/* What was written since is hardly the same: it is not compared, for which whole blocks of the parent would have to be read. */
		store->parent_space = 0;
	}
}

bool parent_has(const struct image_reader *parent, void **cursor, uint32_t space, uint64_t address, const void *page,
		struct page_place *ret_place)
{
	if (!*cursor)
		*cursor = image_cursor_new(parent);
	return image_cursor_same(*cursor, space, address, page, ret_place);
}

void parent_forget(void *cursor)
{
	image_cursor_free(cursor);
}

bool operation_is_image(const char *path)
{
	return image_begins(path);
}

int operation_lineage(const char *path, const uint8_t *key, uint8_t ret_id[16], unsigned *ret_ancestors)
{
	struct fault fault;
	struct image_reader *reader = NULL;
	const char *ancestor;
	int fd, rc = image_reader_open(path, (const struct image_key *)key, &reader, &fault);
	if (rc < 0)
		return rc;
	unsigned count = 0;
	while (image_reader_ancestor(reader, count, &ancestor, &fd))
		count++;
	image_reader_id(reader, ret_id);
	image_reader_free(reader);
	*ret_ancestors = count;
	return 0;
}
