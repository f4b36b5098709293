/* SPDX-License-Identifier: Apache-2.0 */
/* Reads an image and believes nothing: every length, count and offset is compared with what is left of the
 * file before it is used, and every byte is under a checksum that is checked before the byte means anything.
 * The checksums are against accidents; somebody may as well have computed them over nonsense, so nothing
 * below may depend on them for memory safety. All reading is pread: a file that shrinks meanwhile is a
 * fault (and would be SIGBUS under mmap). */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"
#include "image/codec.h"
#include "image/layout.h"

struct ancestor {
	uint8_t id[16];
	char *path;
	struct image_reader *reader;
};

struct image_reader {
	int fd;
	char *name; /* for faults */
	char *path; /* absolute, as far as it has one */
	VEC(struct ancestor) ancestors; /* the parent first; those of an ancestor itself are not opened */
	bool is_ancestor;
	uint64_t size;
	struct layout_header header;
	struct layout_trailer trailer;
	uint64_t seed;
	VEC(struct image_block) blocks; /* of pages, ascending */
	VEC(struct image_place) places;
	uint32_t *by_block;   /* indices of places, by block, then in their own order */
	size_t *block_starts; /* by block: where its places begin in by_block; one more at the end */
	VEC(struct image_record) records;
	VEC(uint8_t *) buffers; /* payloads of the record blocks; the records point into them */
};

/* Faults; all get the image's name in front where they leave this file. */

__attribute__((format(printf, 2, 3))) static int damaged(struct fault *fault, const char *format, ...)
{
	char what[160];
	va_list args;
	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return fault_set(fault, FAULT_IMAGE, EBADMSG, "damaged: %s; try another copy", what);
}

static int foreign(struct fault *fault)
{
	return fault_set(fault, FAULT_IMAGE, EINVAL, "not a Cairn image; try a file that cairn checkpoint made");
}

static int truncated(const struct image_reader *reader, struct fault *fault)
{
	unsigned long long size = reader->size, whole = reader->header.file_length;
	if (whole > size)
		return fault_set(fault, FAULT_IMAGE, ENODATA, "truncated at %llu of %llu bytes; try another copy",
				 size, whole);
	return fault_set(fault, FAULT_IMAGE, ENODATA, "truncated at %llu bytes; try another copy", size);
}

static int no_memory(uint64_t size, struct fault *fault)
{
	return fault_set(fault, FAULT_FAILED, ENOMEM, "no memory for %llu bytes of it; try a machine with more",
			 (unsigned long long)size);
}

static int read_at(const struct image_reader *reader, void *data, size_t size, uint64_t offset,
		   struct fault *fault)
{
	int rc = fd_pread_full(reader->fd, data, size, offset);
	if (!rc)
		return 0;
	if (rc == -ENODATA)
		return fault_set(fault, FAULT_IMAGE, ENODATA,
				 "became shorter while it was read; try again when nobody writes to it");
	return fault_set(fault, FAULT_FAILED, -rc, "reading at 0x%llx: %s; try another copy",
			 (unsigned long long)offset, strerror(-rc));
}

/* Header and trailer */

static int header_check(struct image_reader *reader, struct fault *fault)
{
	struct layout_header *header = &reader->header;
	size_t size = reader->size < sizeof *header ? (size_t)reader->size : sizeof *header;
	int rc = read_at(reader, header, size, 0, fault);
	if (rc)
		return rc;
	if (size < sizeof header->magic || memcmp(header->magic, LAYOUT_MAGIC, sizeof header->magic))
		return foreign(fault);
	if (size < sizeof *header) {
		header->file_length = 0; /* not yet known to be what was written */
		return truncated(reader, fault);
	}
	if (header->hash != layout_page_hash(header))
		return damaged(fault, "checksum of the header");
	if (header->version > IMAGE_VERSION)
		return fault_set(fault, FAULT_IMAGE, EPROTONOSUPPORT,
				 "format version %u is newer than this Cairn (%d); try a newer Cairn",
				 header->version, IMAGE_VERSION);
	if (header->incompatible & ~LAYOUT_INCOMPATIBLE)
		return fault_set(fault, FAULT_IMAGE, EPROTONOSUPPORT,
				 "uses features (0x%llx) that this Cairn does not know; try a newer Cairn",
				 (unsigned long long)(header->incompatible & ~LAYOUT_INCOMPATIBLE));
	if (header->version == 1)
		return fault_set(fault, FAULT_IMAGE, EPROTONOSUPPORT,
				 "format version 1 was never released; try the Cairn that made it");
	if (!header->version || header->page_size != IMAGE_PAGE)
		return damaged(fault, "version %u with pages of %u bytes", header->version, header->page_size);
	reader->seed = layout_seed(header->id);
	return 0;
}

static int trailer_check(struct image_reader *reader, struct fault *fault)
{
	struct layout_trailer *trailer = &reader->trailer;
	uint64_t whole = reader->header.file_length;
	if (whole && reader->size > whole)
		return damaged(fault, "%llu bytes follow its end", (unsigned long long)(reader->size - whole));
	if ((whole && reader->size < whole) || reader->size < 2 * IMAGE_PAGE || reader->size % IMAGE_PAGE)
		return truncated(reader, fault);
	int rc = read_at(reader, trailer, sizeof *trailer, reader->size - sizeof *trailer, fault);
	if (rc)
		return rc;
	if (memcmp(trailer->magic, LAYOUT_END_MAGIC, sizeof trailer->magic))
		return whole ? damaged(fault, "no trailer at its end") : truncated(reader, fault);
	if (trailer->hash != layout_page_hash(trailer))
		return damaged(fault, "checksum of the trailer");
	if (memcmp(trailer->id, reader->header.id, sizeof trailer->id) || trailer->file_length != reader->size)
		return damaged(fault, "header and trailer are of different images");
	return 0;
}

/* Blocks */

/* @block was read from @offset, where @length bytes are to be one block of @type; for a page block the whole
 * first page is there. */
static int block_check(const struct image_reader *reader, struct layout_block *block, enum layout_type type,
		       uint64_t offset, uint64_t length, struct fault *fault)
{
	unsigned long long at = offset;
	if (block->magic != LAYOUT_BLOCK_MAGIC || block->type != type)
		return damaged(fault, "no block of type %d at 0x%llx", type, at);
	uint64_t hash = block->hash;
	if (hash != layout_block_hash(block, reader->seed))
		return damaged(fault, "checksum of block at 0x%llx", at);
	if (block->offset != offset || block->length != length)
		return damaged(fault, "block at 0x%llx belongs elsewhere", at);
	return 0;
}

/* Reads a record or index block whole: *ret_payload (malloc) is what follows its header. @length is within the
 * file. */
static int payload_read(const struct image_reader *reader, enum layout_type type, uint64_t offset, uint64_t length,
			struct layout_block *ret_block, uint8_t **ret_payload, struct fault *fault)
{
	uint64_t size = length - sizeof *ret_block;
	int rc = read_at(reader, ret_block, sizeof *ret_block, offset, fault);
	if (!rc)
		rc = block_check(reader, ret_block, type, offset, length, fault);
	if (rc)
		return rc;
	_free_ uint8_t *payload = malloc(size);
	if (!payload)
		return no_memory(size, fault);
	rc = read_at(reader, payload, size, offset + sizeof *ret_block, fault);
	if (rc)
		return rc;
	if (ret_block->payload_hash != layout_payload_hash(payload, size, reader->seed))
		return damaged(fault, "checksum of block at 0x%llx", (unsigned long long)offset);
	if (ret_block->used > size)
		return damaged(fault, "block at 0x%llx says it is larger than it is", (unsigned long long)offset);
	*ret_payload = payload;
	payload = NULL;
	return 0;
}

/* Cuts the payload of a record block, which the reader owns already, into records. */
static int records_cut(struct image_reader *reader, const struct layout_block *block, const uint8_t *payload,
		       struct fault *fault)
{
	uint64_t at = 0;
	uint32_t count = 0;
	while (at < block->used) {
		struct layout_record head;
		if (block->used - at < sizeof head)
			break;
		memcpy(&head, payload + at, sizeof head);
		at += sizeof head;
		if (head.length > block->used - at || head.length > LAYOUT_RECORD_MAX)
			return damaged(fault, "a record in the block at 0x%llx is larger than the block",
				       (unsigned long long)block->offset);
		*vec_add(&reader->records) = (struct image_record){ head.tag, head.length, payload + at };
		at += head.length;
		count++;
	}
	if (at != block->used || count != block->count)
		return damaged(fault, "the block at 0x%llx does not hold the records it says",
			       (unsigned long long)block->offset);
	return 0;
}

static int records_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	if (entry->length > LAYOUT_RECORDS_MAX)
		return damaged(fault, "the index says %u bytes of records at 0x%llx", entry->length,
			       (unsigned long long)entry->offset);
	struct layout_block block;
	uint8_t *payload;
	int rc = payload_read(reader, LAYOUT_RECORDS, entry->offset, entry->length, &block, &payload, fault);
	if (rc)
		return rc;
	*vec_add(&reader->buffers) = payload;
	return records_cut(reader, &block, payload, fault);
}

static int pages_enter(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	uint64_t bytes = (uint64_t)entry->pages * IMAGE_PAGE;
	if (!entry->pages || entry->pages > IMAGE_BLOCK_PAGES || entry->length > bytes + IMAGE_PAGE ||
	    entry->length < 2 * IMAGE_PAGE)
		return damaged(fault, "the index says %u pages in %u bytes at 0x%llx", entry->pages, entry->length,
			       (unsigned long long)entry->offset);
	*vec_add(&reader->blocks) = (struct image_block){ entry->offset, entry->length, entry->pages, 0 };
	return 0;
}

static bool place_follows(const struct image_place *before, const struct image_place *place)
{
	if (place->space != before->space)
		return place->space > before->space;
	return place->at.address >= before->at.address + (uint64_t)before->at.pages * IMAGE_PAGE;
}

static int place_enter(struct image_reader *reader, const struct layout_place *entry, struct fault *fault)
{
	uint64_t bytes = (uint64_t)entry->pages * IMAGE_PAGE;
	const struct image_place *before = reader->places.count ? &reader->places.at[reader->places.count - 1] : NULL;
	struct image_place place = { entry->space, { entry->address, entry->block, entry->pages, entry->image,
						     entry->chunk, entry->first } };
	if (!entry->pages || entry->pages > IMAGE_BLOCK_PAGES || entry->address % IMAGE_PAGE ||
	    entry->address > UINT64_MAX - bytes || entry->image > reader->ancestors.count || (before && !place_follows(before, &place)))
		return damaged(fault, "the map names %u pages at address 0x%llx of space %u", entry->pages,
			       (unsigned long long)entry->address, entry->space);
	*vec_add(&reader->places) = place;
	return 0;
}

static int map_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	struct layout_block block;
	_free_ uint8_t *payload = NULL;
	if (entry->length > layout_align(sizeof block + LAYOUT_MAP_PLACES * sizeof(struct layout_place)))
		return damaged(fault, "the index says %u bytes of the map at 0x%llx", entry->length,
			       (unsigned long long)entry->offset);
	int rc = payload_read(reader, LAYOUT_MAP, entry->offset, entry->length, &block, &payload, fault);
	if (!rc && block.used != block.count * sizeof(struct layout_place))
		rc = damaged(fault, "the map at 0x%llx has not as many places as it says", (unsigned long long)entry->offset);
	for (uint32_t i = 0; !rc && i < block.count; i++) {
		struct layout_place place;
		memcpy(&place, payload + i * sizeof place, sizeof place);
		rc = place_enter(reader, &place, fault);
	}
	return rc;
}

/* Before the map, which refers to them. */
static int ancestors_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	struct layout_block block;
	_free_ uint8_t *payload = NULL;
	if (entry->length > (LAYOUT_ANCESTORS_MOST + 1) * IMAGE_PAGE || reader->ancestors.count || reader->places.count)
		return damaged(fault, "the index says %u bytes of ancestors at 0x%llx", entry->length,
			       (unsigned long long)entry->offset);
	int rc = payload_read(reader, LAYOUT_ANCESTORS, entry->offset, entry->length, &block, &payload, fault);
	if (!rc && block.used != block.count * sizeof(struct layout_ancestor))
		rc = damaged(fault, "the ancestors at 0x%llx are not as many as it says", (unsigned long long)entry->offset);
	for (uint32_t i = 0; !rc && i < block.count; i++) {
		const struct layout_ancestor *from = (const struct layout_ancestor *)payload + i;
		if (strnlen(from->path, sizeof from->path) == sizeof from->path)
			return damaged(fault, "the name of an ancestor has no end");
		struct ancestor *ancestor = vec_add(&reader->ancestors);
		memcpy(ancestor->id, from->id, sizeof ancestor->id);
		ancestor->path = memory_string(from->path);
	}
	return rc;
}

static int entry_take(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	switch (entry->type) {
	case LAYOUT_RECORDS:
		return records_load(reader, entry, fault);
	case LAYOUT_PAGES:
		return pages_enter(reader, entry, fault);
	case LAYOUT_MAP:
		return map_load(reader, entry, fault);
	case LAYOUT_ANCESTORS:
		return ancestors_load(reader, entry, fault);
	default:
		return damaged(fault, "the index names a block of type %u", entry->type);
	}
}

/* Own blocks come first, then the ancestors' in their order. */
static int block_compare(const void *key, const void *member)
{
	const struct page_place *place = key;
	const struct image_block *block = member;
	if (place->image != block->image)
		return place->image < block->image ? -1 : 1;
	return (place->block > block->offset) - (place->block < block->offset);
}

static int ancestors_open(struct image_reader *reader, struct fault *fault);

/* Which block each place is in, and the places of each block. */
static int places_sort(struct image_reader *reader, struct fault *fault)
{
	size_t blocks = reader->blocks.count, count = reader->places.count;
	_free_ uint32_t *block_of = memory_new((count + 1) * sizeof *block_of);
	reader->by_block = memory_new((count + 1) * sizeof *reader->by_block);
	reader->block_starts = memory_new((blocks + 2) * sizeof *reader->block_starts);
	for (size_t i = 0; i < count; i++) {
		const struct image_block *block = blocks ? bsearch(&reader->places.at[i].at, reader->blocks.at, blocks,
								   sizeof *block, block_compare) : NULL;
		if (!block)
			return damaged(fault, "the map names a block at 0x%llx, where none is",
				       (unsigned long long)reader->places.at[i].at.block);
		block_of[i] = (uint32_t)(block - reader->blocks.at);
		reader->block_starts[block_of[i] + 2]++;
	}
	/* Counted two further on: they become beginnings while the places are dealt out. */
	for (size_t b = 2; b < blocks + 2; b++)
		reader->block_starts[b] += reader->block_starts[b - 1];
	for (size_t i = 0; i < count; i++)
		reader->by_block[reader->block_starts[block_of[i] + 1]++] = (uint32_t)i;
	return 0;
}

/* Blocks tile the file from the header to the index: no byte is outside a checksum, none is in two blocks. */
static int index_walk(struct image_reader *reader, const uint8_t *entries, uint64_t count, struct fault *fault)
{
	uint64_t at = IMAGE_PAGE, end = reader->trailer.index_offset, pages = 0;
	for (uint64_t i = 0; entries && i < count; i++) {
		struct layout_entry entry;
		memcpy(&entry, entries + i * sizeof entry, sizeof entry);
		if (entry.offset != at || !entry.length || entry.length % IMAGE_PAGE || entry.length > end - at)
			return damaged(fault, "the index names a block at 0x%llx, not at 0x%llx",
				       (unsigned long long)entry.offset, (unsigned long long)at);
		int rc = entry_take(reader, &entry, fault);
		if (rc)
			return rc;
		at += entry.length;
		pages += entry.pages;
	}
	if (at != end || pages != reader->trailer.pages || reader->records.count != reader->trailer.records ||
	    reader->places.count != reader->trailer.places)
		return damaged(fault, "the index does not name what the trailer counts");
	if (reader->is_ancestor)
		return 0;
	int rc = ancestors_open(reader, fault);
	return rc ? rc : places_sort(reader, fault);
}

static int index_load(struct image_reader *reader, struct fault *fault)
{
	const struct layout_trailer *trailer = &reader->trailer;
	uint64_t offset = trailer->index_offset, length = trailer->index_length;
	uint64_t end = reader->size - IMAGE_PAGE; /* of the index */
	if (offset % IMAGE_PAGE || offset < IMAGE_PAGE || offset >= end || length != end - offset)
		return damaged(fault, "the trailer says that the index is at 0x%llx", (unsigned long long)offset);
	struct layout_block block;
	_free_ uint8_t *entries = NULL;
	int rc = payload_read(reader, LAYOUT_INDEX, offset, length, &block, &entries, fault);
	if (rc)
		return rc;
	uint64_t count = block.used / sizeof(struct layout_entry);
	if (block.used % sizeof(struct layout_entry) || count != trailer->blocks || count != block.count)
		return damaged(fault, "the index has not as many entries as it says");
	return index_walk(reader, entries, count, fault);
}

/* Opening */

/* Where a pipe goes to be read at random: on disk before in memory. Negative errno. */
static int spool_create(void)
{
	const char *directory = getenv("TMPDIR");
	int fd = open(directory && *directory ? directory : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("cairn-image", MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Takes what is left in @from; *ret_fd becomes the file with it. */
static int spool_fill(int from, int to, struct fault *fault)
{
	enum { STEP = 1 << 20 };
	_free_ uint8_t *buffer = memory_new(STEP);
	for (uint64_t total = 0;;) {
		ssize_t n = read(from, buffer, STEP);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fault_set(fault, FAULT_FAILED, errno, "reading: %s; try a file", strerror(errno));
		if (!n)
			return 0;
		/* A foreign stream may be endless. A first read that is short says nothing yet. */
		if (!total && (size_t)n >= sizeof LAYOUT_MAGIC && memcmp(buffer, LAYOUT_MAGIC, sizeof LAYOUT_MAGIC - 1))
			return foreign(fault);
		int rc = fd_write_full(to, buffer, (size_t)n);
		if (rc)
			return fault_set(fault, FAULT_FAILED, -rc, "keeping it in a temporary file: %s; try TMPDIR with "
					 "more space", strerror(-rc));
		total += (uint64_t)n;
	}
}

static int reader_spool(struct image_reader *reader, struct fault *fault)
{
	_close_ int from = fd_steal(&reader->fd);
	_close_ int to = spool_create();
	if (to < 0)
		return fault_set(fault, FAULT_FAILED, -to, "a temporary file for it: %s; try another TMPDIR",
				 strerror(-to));
	int rc = spool_fill(from, to, fault);
	if (rc)
		return rc;
	reader->fd = fd_steal(&to);
	return 0;
}

static int open_fault(int error, struct fault *fault)
{
	bool permission = error == EACCES || error == EPERM;
	const char *remedy = permission ? "try as the user who made it" :
			     error == ENOENT ? "try the name of an image" : "try another copy";
	return fault_set(fault, permission ? FAULT_PERMISSION : FAULT_FAILED, error, "%s; %s", strerror(error),
			 remedy);
}

static bool is_standard(const char *path)
{
	return !strcmp(path, "-");
}

static const char *name_of(const char *path)
{
	return is_standard(path) ? "stdin" : path;
}

int image_reader_descriptor(const char *path, struct fault *fault)
{
	int fd = is_standard(path) ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? fault_at(fault, open_fault(errno, fault), "%s", name_of(path)) : fd;
}

/* reader->fd can be read at any offset from here on. */
static int reader_prepare(struct image_reader *reader, bool standard, struct fault *fault)
{
	struct stat status;
	if (fstat(reader->fd, &status))
		return open_fault(errno, fault);
	if (S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode) || isatty(reader->fd))
		return fault_set(fault, FAULT_IMAGE, EINVAL,
				 "not a Cairn image but a %s; try a file that cairn checkpoint made",
				 S_ISDIR(status.st_mode) ? "directory" : "device");
	if (!S_ISREG(status.st_mode) || (standard && lseek(reader->fd, 0, SEEK_CUR))) {
		int rc = reader_spool(reader, fault);
		if (rc)
			return rc;
	}
	if (fstat(reader->fd, &status))
		return open_fault(errno, fault);
	reader->size = (uint64_t)status.st_size;
	return 0;
}

static int reader_load(struct image_reader *reader, const char *path, struct fault *fault)
{
	int rc = reader_prepare(reader, is_standard(path), fault);
	if (!rc)
		rc = header_check(reader, fault);
	if (!rc)
		rc = trailer_check(reader, fault);
	if (!rc)
		rc = index_load(reader, fault);
	return rc;
}

static int reader_open(int fd, const char *path, bool is_ancestor, struct image_reader **ret_reader, struct fault *fault)
{
	struct image_reader *reader = memory_new(sizeof *reader);
	reader->fd = fd;
	reader->name = memory_string(name_of(path));
	reader->path = realpath(path, NULL);
	reader->is_ancestor = is_ancestor;
	int rc = reader_load(reader, path, fault);
	if (rc) {
		fault_at(fault, rc, "%s", reader->name);
		image_reader_free(reader);
		return rc;
	}
	*ret_reader = reader;
	return 0;
}

int image_reader_open_fd(int fd, const char *path, struct image_reader **ret_reader, struct fault *fault)
{
	return reader_open(fd, path, false, ret_reader, fault);
}

/* Opens @path if it is the image that is looked for. */
static bool ancestor_try(struct ancestor *ancestor, const char *path)
{
	struct fault fault;
	struct image_reader *found = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || reader_open(fd, path, true, &found, &fault) < 0 || !found)
		return false;
	if (memcmp(found->header.id, ancestor->id, sizeof ancestor->id)) {
		image_reader_free(found);
		return false;
	}
	ancestor->reader = found;
	return true;
}

static int ancestors_open(struct image_reader *reader, struct fault *fault)
{
	for (size_t i = 0; i < reader->ancestors.count; i++) {
		struct ancestor *ancestor = &reader->ancestors.at[i];
		const char *slash = strrchr(ancestor->path, '/'), *own = reader->path ? strrchr(reader->path, '/') : NULL;
		_free_ char *beside = memory_format("%.*s/%s", own ? (int)(own - reader->path) : 1, own ? reader->path : ".",
						    slash ? slash + 1 : ancestor->path);
		if (!ancestor_try(ancestor, beside) && !ancestor_try(ancestor, ancestor->path))
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

int image_reader_open(const char *path, struct image_reader **ret_reader, struct fault *fault)
{
	int fd = image_reader_descriptor(path, fault);
	return fd < 0 ? fd : image_reader_open_fd(fd, path, ret_reader, fault);
}

size_t image_reader_records(const struct image_reader *reader, const struct image_record **ret_records)
{
	*ret_records = reader->records.at;
	return reader->records.count;
}

size_t image_reader_blocks(const struct image_reader *reader, const struct image_block **ret_blocks)
{
	*ret_blocks = reader->blocks.at;
	return reader->blocks.count;
}

size_t image_reader_places(const struct image_reader *reader, const struct image_place **ret_places)
{
	*ret_places = reader->places.at;
	return reader->places.count;
}

static const struct image_place *place_find(const struct image_reader *reader, uint32_t space, uint64_t address,
					    size_t *ret_index)
{
	size_t low = 0, high = reader->places.count;
	while (low < high) { /* the last place that does not begin behind it */
		size_t middle = (low + high) / 2;
		const struct image_place *place = &reader->places.at[middle];
		if (place->space < space || (place->space == space && place->at.address <= address))
			low = middle + 1;
		else
			high = middle;
	}
	const struct image_place *place = low ? &reader->places.at[low - 1] : NULL;
	if (!place || place->space != space || address - place->at.address >= (uint64_t)place->at.pages * IMAGE_PAGE)
		return NULL;
	const struct image_block *block = bsearch(&place->at, reader->blocks.at, reader->blocks.count, sizeof *block,
						  block_compare);
	if (!block)
		return NULL;
	*ret_index = (size_t)(block - reader->blocks.at);
	return place;
}

bool image_reader_find(const struct image_reader *reader, uint32_t space, uint64_t address, size_t *ret_index)
{
	return place_find(reader, space, address, ret_index);
}

uint64_t image_reader_size(const struct image_reader *reader)
{
	return reader->size;
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

void image_reader_id(const struct image_reader *reader, uint8_t ret_id[16])
{
	memcpy(ret_id, reader->header.id, sizeof reader->header.id);
}

/* Pages */

/* Where the contents of a block's chunks are in memory. */
struct chunk_list {
	uint32_t count, pages[IMAGE_CHUNKS];
	const uint8_t *data[IMAGE_CHUNKS];
};

static bool is_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

/* Chunk @chunk of the block of @length bytes in @buffer, of which *at are accounted for. Decompresses into *room. */
static int chunk_take(const struct layout_chunk *chunk, const uint8_t *buffer, uint64_t length, uint64_t *at,
		      uint8_t **room, const uint8_t **ret_data, struct fault *fault)
{
	uint64_t bytes = (uint64_t)chunk->pages * IMAGE_PAGE, align = chunk->codec ? LAYOUT_CHUNK_ALIGN : IMAGE_PAGE;
	if (chunk->codec > CODEC_ZSTD || chunk->flags)
		return fault_set(fault, FAULT_IMAGE, EPROTONOSUPPORT,
				 "pages are stored in a way (%u, %u) that this Cairn does not know; try a newer Cairn",
				 chunk->codec, chunk->flags);
	if (!chunk->pages || chunk->pages > IMAGE_BLOCK_PAGES || chunk->offset % align || chunk->offset < *at ||
	    chunk->offset - *at >= align || chunk->offset > length || chunk->stored > length - chunk->offset ||
	    !chunk->stored || chunk->stored > bytes || (!chunk->codec && chunk->stored != bytes))
		return damaged(fault, "a chunk of %u pages, which its block does not hold", chunk->pages);
	if (chunk->hash != layout_chunk_hash(buffer + chunk->offset, chunk->stored) ||
	    !is_zero(buffer + *at, chunk->offset - *at))
		return damaged(fault, "checksum of %u pages", chunk->pages);
	*at = chunk->offset + chunk->stored;
	*ret_data = buffer + chunk->offset;
	if (!chunk->codec)
		return 0;
	if (!codec_decompress(chunk->codec, buffer + chunk->offset, chunk->stored, *room, bytes))
		return damaged(fault, "%u compressed pages", chunk->pages);
	*ret_data = *room;
	*room += bytes;
	return 0;
}

static int chunks_take(const struct image_block *entry, uint8_t *buffer, struct chunk_list *ret_list, struct fault *fault)
{
	const struct layout_pages *first = (const struct layout_pages *)buffer;
	uint8_t *room = buffer + (IMAGE_BLOCK_PAGES + 1) * IMAGE_PAGE;
	uint64_t at = IMAGE_PAGE, pages = 0;
	ret_list->count = first->block.count;
	if (!ret_list->count || ret_list->count > IMAGE_CHUNKS)
		return damaged(fault, "the block holds %u chunks", ret_list->count);
	for (uint32_t i = 0; i < ret_list->count; i++) {
		ret_list->pages[i] = first->chunks[i].pages;
		pages += ret_list->pages[i];
		if (pages > IMAGE_BLOCK_PAGES)
			return damaged(fault, "the block holds more pages than it may");
		int rc = chunk_take(&first->chunks[i], buffer, entry->length, &at, &room, &ret_list->data[i], fault);
		if (rc)
			return rc;
	}
	if (layout_align(at) != entry->length || !is_zero(buffer + at, entry->length - at) || pages != entry->pages ||
	    pages != first->block.pages)
		return damaged(fault, "the block is not what the index says");
	return 0;
}

static int places_check(const struct image_reader *reader, size_t index, const struct chunk_list *list,
			struct fault *fault)
{
	for (size_t i = reader->block_starts[index]; i < reader->block_starts[index + 1]; i++) {
		const struct page_place *place = &reader->places.at[reader->by_block[i]].at;
		if (place->chunk >= list->count || place->first >= list->pages[place->chunk] ||
		    place->pages > list->pages[place->chunk] - place->first)
			return damaged(fault, "the map names pages that the block does not hold");
	}
	return 0;
}

static int places_give(const struct image_reader *reader, size_t index, const struct chunk_list *list,
		       const struct page_taker *taker, struct fault *fault)
{
	struct page_batch batch;
	batch.count = batch.space = 0;
	int rc = 0;
	for (size_t i = reader->block_starts[index]; !rc && i < reader->block_starts[index + 1]; i++) {
		const struct image_place *place = &reader->places.at[reader->by_block[i]];
		if (batch.count && (batch.space != place->space || batch.count == PAGES_MOST)) {
			rc = taker->take(taker->context, &batch, fault);
			batch.count = 0;
		}
		batch.space = place->space;
		batch.chunks[batch.count++] = (struct page_chunk){
			place->at.address, place->at.pages,
			list->data[place->at.chunk] + (size_t)place->at.first * IMAGE_PAGE };
	}
	return !rc && batch.count ? taker->take(taker->context, &batch, fault) : rc;
}

static int block_read(const struct image_reader *reader, size_t index, void *buffer, struct chunk_list *ret_list,
		      struct fault *fault)
{
	const struct image_block *entry = &reader->blocks.at[index];
	const struct image_reader *source = entry->image ? reader->ancestors.at[entry->image - 1].reader : reader;
	int rc = read_at(source, buffer, entry->length, entry->offset, fault);
	if (!rc)
		rc = block_check(source, buffer, LAYOUT_PAGES, entry->offset, entry->length, fault);
	if (rc)
		return rc;
	rc = chunks_take(entry, buffer, ret_list, fault);
	if (!rc)
		rc = places_check(reader, index, ret_list, fault);
	return rc ? fault_at(fault, rc, "the block at 0x%llx", (unsigned long long)entry->offset) : 0;
}

int image_reader_pages(const struct image_reader *reader, size_t index, void *buffer, const struct page_taker *taker,
		       struct fault *fault)
{
	struct chunk_list list;
	if (index >= reader->blocks.count)
		return fault_set(fault, FAULT_FAILED, EINVAL, "%s: it has no page block %zu; please report this",
				 reader->name, index);
	int rc = block_read(reader, index, buffer, &list, fault);
	if (rc)
		return fault_at(fault, rc, "%s", reader->name);
	return taker ? places_give(reader, index, &list, taker, fault) : 0;
}

/* Comparing */

struct image_cursor {
	const struct image_reader *reader;
	size_t index; /* of the block in the buffer */
	bool good;    /* there is one */
	struct chunk_list list;
	void *buffer;
};

struct image_cursor *image_cursor_new(const struct image_reader *reader)
{
	struct image_cursor *cursor = memory_new(sizeof *cursor);
	cursor->reader = reader;
	cursor->buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	return cursor;
}

bool image_cursor_same(struct image_cursor *cursor, uint32_t space, uint64_t address, const void *page,
		       struct page_place *ret_place)
{
	size_t index;
	struct fault fault;
	const struct image_place *place = cursor->buffer ? place_find(cursor->reader, space, address, &index) : NULL;
	if (!place)
		return false;
	if (!cursor->good || cursor->index != index) {
		cursor->good = block_read(cursor->reader, index, cursor->buffer, &cursor->list, &fault) == 0;
		cursor->index = index;
	}
	size_t first = place->at.first + (address - place->at.address) / IMAGE_PAGE;
	if (!cursor->good || memcmp(cursor->list.data[place->at.chunk] + first * IMAGE_PAGE, page, IMAGE_PAGE))
		return false;
	*ret_place = place->at;
	ret_place->address = address;
	ret_place->pages = 1;
	ret_place->first = (uint16_t)first;
	ret_place->image++;
	return true;
}

void image_cursor_free(struct image_cursor *cursor)
{
	if (!cursor)
		return;
	free(cursor->buffer);
	free(cursor);
}

void image_reader_free(struct image_reader *reader)
{
	if (!reader)
		return;
	for (size_t i = 0; i < reader->buffers.count; i++)
		free(reader->buffers.at[i]);
	vec_finish(&reader->buffers);
	vec_finish(&reader->records);
	vec_finish(&reader->blocks);
	vec_finish(&reader->places);
	free(reader->by_block);
	free(reader->block_starts);
	for (size_t i = 0; i < reader->ancestors.count; i++) {
		image_reader_free(reader->ancestors.at[i].reader);
		free(reader->ancestors.at[i].path);
	}
	vec_finish(&reader->ancestors);
	free(reader->path);
	fd_close_scoped(&reader->fd);
	free(reader->name);
	free(reader);
}
