/* SPDX-License-Identifier: Apache-2.0 */
/* The images that an incremental image needs, its parent first: found by name, believed by id. An ancestor brings its page blocks; its own map
 * and its own ancestors do not matter, as the child's map names what it needs of each. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "image/reader.h"

int lineage_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	struct layout_block block;
	_free_ uint8_t *payload = NULL;
	if (entry->length > (LAYOUT_ANCESTORS_MOST + 1) * IMAGE_PAGE || reader->ancestors.count || reader->places.count)
		return reader_damaged(fault, "the index says %u bytes of ancestors at 0x%llx", entry->length,
			       (unsigned long long)entry->offset);
	int rc = reader_payload(reader, LAYOUT_ANCESTORS, entry->offset, entry->length, &block, &payload, fault);
	if (!rc && block.used != block.count * sizeof(struct layout_ancestor))
		rc = reader_damaged(fault, "the ancestors at 0x%llx are not as many as it says", (unsigned long long)entry->offset);
	for (uint32_t i = 0; !rc && i < block.count; i++) {
		const struct layout_ancestor *from = (const struct layout_ancestor *)payload + i;
		if (strnlen(from->path, sizeof from->path) == sizeof from->path)
			return reader_damaged(fault, "the name of an ancestor has no end");
		struct ancestor *ancestor = vec_add(&reader->ancestors);
		memcpy(ancestor->id, from->id, sizeof ancestor->id);
		ancestor->path = memory_string(from->path);
	}
	return rc;
}

/* Opens @path if it is the image that is looked for. All of a chain are encrypted with one key, or none is: who could slip in one that is not could put
 * pages into the program. */
static bool ancestor_try(const struct image_reader *reader, struct ancestor *ancestor, const char *path)
{
	struct fault fault;
	struct layout_header header;
	struct image_reader *found = NULL;
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	/* Most are others: one look is enough. */
	if (fd < 0 || fd_pread_full(fd, &header, sizeof header, 0) < 0 || memcmp(header.id, ancestor->id, sizeof header.id) != 0)
		return false;
	if (reader_open_ancestor(fd_steal(&fd), path, reader->key, &found, &fault) < 0 || !found)
		return false;
	/* It has been read again, and checked. */
	if (memcmp(found->header.id, ancestor->id, sizeof ancestor->id)) {
		image_reader_free(found);
		return false;
	}
	ancestor->reader = found;
	return true;
}

/* A job's images move on to NAME.1, NAME.2 ... with each save (job/save.c). */
static bool generations_try(const struct image_reader *reader, struct ancestor *ancestor, const char *path)
{
	enum { MOST = 10000, MOST_GAPS = 2 };
	size_t length = strlen(path), digits = length;
	while (digits && path[digits - 1] >= '0' && path[digits - 1] <= '9')
		digits--;
	if (digits < length && digits > 1 && path[digits - 1] == '.')
		length = digits - 1;
	unsigned gaps = 0;
	for (unsigned n = 0; n < MOST && gaps < MOST_GAPS; n++) {
		_free_ char *candidate = n ? memory_format("%.*s.%u", (int)length, path, n) : memory_format("%.*s", (int)length, path);
		if (ancestor_try(reader, ancestor, candidate))
			return true;
		gaps += access(candidate, F_OK) < 0;
	}
	return false;
}

static bool ancestor_find(const struct image_reader *reader, struct ancestor *ancestor)
{
	const char *slash = strrchr(ancestor->path, '/'), *own = reader->path ? strrchr(reader->path, '/') : NULL;
	_free_ char *beside = memory_format("%.*s/%s", own ? (int)(own - reader->path) : 1, own ? reader->path : ".",
					    slash ? slash + 1 : ancestor->path);
	return ancestor_try(reader, ancestor, beside) || ancestor_try(reader, ancestor, ancestor->path) ||
	       generations_try(reader, ancestor, beside) || generations_try(reader, ancestor, ancestor->path);
}

int lineage_open(struct image_reader *reader, struct fault *fault)
{
	for (size_t i = 0; i < reader->ancestors.count; i++) {
		struct ancestor *ancestor = &reader->ancestors.at[i];
		if (!ancestor_find(reader, ancestor))
			return fault_set(fault, FAULT_IMAGE, ENOENT,
					 "holds only changes since %s (id %02x%02x%02x%02x...), which is neither beside it nor there; try to "
					 "put it back, or another image", ancestor->path, ancestor->id[0], ancestor->id[1],
					 ancestor->id[2], ancestor->id[3]);
		for (size_t b = 0; b < ancestor->reader->blocks.count; b++) {
			struct image_block *block = vec_add(&reader->blocks);
			*block = ancestor->reader->blocks.at[b];
			block->image = (uint32_t)i + 1;
		}
	}
	return 0;
}

void lineage_close(struct image_reader *reader)
{
	for (size_t i = 0; i < reader->ancestors.count; i++) {
		image_reader_free(reader->ancestors.at[i].reader);
		free(reader->ancestors.at[i].path);
	}
	vec_finish(&reader->ancestors);
}

int *image_reader_fds(const struct image_reader *reader, size_t *ret_count)
{
	int *fds = memory_new((reader->ancestors.count + 1) * sizeof *fds);
	fds[0] = reader->fd;
	for (size_t i = 0; i < reader->ancestors.count; i++)
		fds[i + 1] = reader->ancestors.at[i].reader->fd;
	*ret_count = reader->ancestors.count + 1;
	return fds;
}

bool image_reader_ancestor(const struct image_reader *reader, size_t index, const char **ret_path, int *ret_fd)
{
	if (index >= reader->ancestors.count)
		return false;
	const struct image_reader *ancestor = reader->ancestors.at[index].reader;
	*ret_path = ancestor->name;
	*ret_fd = ancestor->fd;
	return true;
}

bool image_reader_lineage(const struct image_reader *reader, size_t index, uint8_t ret_id[16], const char **ret_path)
{
	if (index > reader->ancestors.count)
		return false;
	const struct image_reader *one = index ? reader->ancestors.at[index - 1].reader : reader;
	memcpy(ret_id, one->header.id, sizeof one->header.id);
	*ret_path = one->path ? one->path : one->name;
	return true;
}
