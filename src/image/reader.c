/* SPDX-License-Identifier: Apache-2.0 */
/* Reads an image and believes nothing: every length, count and offset is compared with what is left of the
 * file before it is used, and every byte is under a checksum that is checked before the byte means anything.
 * The checksums are against accidents; somebody may as well have computed them over nonsense, so nothing
 * below may depend on them for memory safety. All reading is pread: a file that shrinks meanwhile is a
 * fault (and would be SIGBUS under mmap). */
#include "image/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "image/crypt.h"

/* Faults; all get the image's name in front where they leave this file. */

int reader_damaged(struct fault *fault, const char *format, ...)
{
	char what[160];
	va_list args;
	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return fault_set(fault, FAULT_IMAGE, EBADMSG, "damaged: %s; try another copy", what);
}

int reader_foreign(struct fault *fault)
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

int reader_read_at(const struct image_reader *reader, void *data, size_t size, uint64_t offset,
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

/* Who gives a key wants to know who wrote the image: one that is not encrypted is not what he means. */
static int key_check(struct image_reader *reader, struct fault *fault)
{
	const struct layout_header *header = &reader->header;
	if (!(header->incompatible & LAYOUT_ENCRYPTED))
		return !reader->key ? 0 : fault_set(fault, FAULT_IMAGE, EPROTO, "is not encrypted, so that anybody may have written it; try it without the "
						    "key, if you know who did");
	if (!reader->key)
		return fault_set(fault, FAULT_PERMISSION, ENOKEY, "is encrypted; try --decrypt-key FILE, with the key that it was made with");
	int rc = crypt_new(reader->key, header->salt, header->id, &reader->crypt, fault);
	if (rc)
		return rc;
	if (!crypt_equal(reader->crypt, crypt_check(reader->crypt), header->key_check, sizeof header->key_check))
		return fault_set(fault, FAULT_PERMISSION, EKEYREJECTED, "is encrypted with another key; try the one that it was made with");
	struct layout_header unmarked = *header;
	uint8_t mark[CRYPT_MARK];
	memset(unmarked.mark, 0, sizeof unmarked.mark);
	rc = crypt_mark(reader->crypt, &unmarked, offsetof(struct layout_header, hash), mark, fault);
	if (!rc && !crypt_equal(reader->crypt, mark, header->mark, sizeof mark))
		rc = reader_damaged(fault, "the header was changed by somebody without the key");
	return rc;
}

static int header_check(struct image_reader *reader, struct fault *fault)
{
	struct layout_header *header = &reader->header;
	size_t size = reader->size < sizeof *header ? (size_t)reader->size : sizeof *header;
	int rc = reader_read_at(reader, header, size, 0, fault);
	if (rc)
		return rc;
	if (size < sizeof header->magic || memcmp(header->magic, LAYOUT_MAGIC, sizeof header->magic))
		return reader_foreign(fault);
	if (size < sizeof *header) {
		header->file_length = 0; /* not yet known to be what was written */
		return truncated(reader, fault);
	}
	if (header->hash != layout_page_hash(header))
		return reader_damaged(fault, "checksum of the header");
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
		return reader_damaged(fault, "version %u with pages of %u bytes", header->version, header->page_size);
	rc = key_check(reader, fault);
	if (rc)
		return rc;
	reader->seed = layout_seed(header->id);
	return 0;
}

static int trailer_check(struct image_reader *reader, struct fault *fault)
{
	struct layout_trailer *trailer = &reader->trailer;
	uint64_t whole = reader->header.file_length;
	if (whole && reader->size > whole)
		return reader_damaged(fault, "%llu bytes follow its end", (unsigned long long)(reader->size - whole));
	if ((whole && reader->size < whole) || reader->size < 2 * IMAGE_PAGE || reader->size % IMAGE_PAGE)
		return truncated(reader, fault);
	int rc = reader_read_at(reader, trailer, sizeof *trailer, reader->size - sizeof *trailer, fault);
	if (rc)
		return rc;
	if (memcmp(trailer->magic, LAYOUT_END_MAGIC, sizeof trailer->magic))
		return whole ? reader_damaged(fault, "no trailer at its end") : truncated(reader, fault);
	if (trailer->hash != layout_page_hash(trailer))
		return reader_damaged(fault, "checksum of the trailer");
	if (memcmp(trailer->id, reader->header.id, sizeof trailer->id) || trailer->file_length != reader->size)
		return reader_damaged(fault, "header and trailer are of different images");
	const struct crypt_part inner = { &trailer->index_offset, &trailer->index_offset, LAYOUT_TRAILER_INNER };
	if (reader->crypt && !crypt_open(reader->crypt, reader->size - sizeof *trailer, trailer, LAYOUT_TRAILER_OPEN, &inner, 1, trailer->tag))
		return reader_damaged(fault, "the trailer was not written with this key");
	return 0;
}

/* Blocks */

static int block_check(const struct image_reader *reader, struct layout_block *block, enum layout_type type,
		       uint64_t offset, uint64_t length, struct fault *fault)
{
	unsigned long long at = offset;
	if (block->magic != LAYOUT_BLOCK_MAGIC || block->type != type)
		return reader_damaged(fault, "no block of type %d at 0x%llx", type, at);
	uint64_t hash = block->hash;
	if (hash != layout_block_hash(block, reader->seed))
		return reader_damaged(fault, "checksum of block at 0x%llx", at);
	if (block->offset != offset || block->length != length)
		return reader_damaged(fault, "block at 0x%llx belongs elsewhere", at);
	return 0;
}

/* The same of an encrypted one, whose other bytes, @rest, are there too: all is as if it had not been encrypted, but for the checksums. */
static int block_open(const struct image_reader *reader, struct layout_block *block, uint8_t *rest, enum layout_type type, uint64_t offset,
		      uint64_t length, struct fault *fault)
{
	struct layout_sealed sealed;
	memcpy(&sealed, block, sizeof sealed);
	if (sealed.magic != LAYOUT_SEALED_MAGIC || sealed.type != type || sealed.offset != offset || sealed.length != length)
		return reader_damaged(fault, "no encrypted block of type %d at 0x%llx", type, (unsigned long long)offset);
	const struct crypt_part parts[] = {
		{ &sealed.pages, &sealed.pages, LAYOUT_SEALED_INNER }, { rest, rest, length - sizeof sealed } };
	if (!crypt_open(reader->crypt, offset, &sealed, LAYOUT_SEALED_OPEN, parts, 2, sealed.tag))
		return reader_damaged(fault, "the block at 0x%llx is not what was written there with this key", (unsigned long long)offset);
	*block = (struct layout_block){
		.magic = LAYOUT_BLOCK_MAGIC, .type = type, .length = length, .offset = offset, .count = sealed.count, .used = sealed.used,
		.pages = sealed.pages };
	return 0;
}

int reader_pages_check(const struct image_reader *reader, struct layout_pages *block, uint64_t offset, uint64_t length, struct fault *fault)
{
	if (reader->crypt)
		return block_open(reader, &block->block, (uint8_t *)block + sizeof block->block, LAYOUT_PAGES, offset, length, fault);
	return block_check(reader, &block->block, LAYOUT_PAGES, offset, length, fault);
}

int reader_payload(const struct image_reader *reader, enum layout_type type, uint64_t offset, uint64_t length,
			struct layout_block *ret_block, uint8_t **ret_payload, struct fault *fault)
{
	uint64_t size = length - sizeof *ret_block;
	int rc = reader_read_at(reader, ret_block, sizeof *ret_block, offset, fault);
	if (!rc && !reader->crypt)
		rc = block_check(reader, ret_block, type, offset, length, fault);
	if (rc)
		return rc;
	_free_ uint8_t *payload = malloc(size);
	if (!payload)
		return no_memory(size, fault);
	rc = reader_read_at(reader, payload, size, offset + sizeof *ret_block, fault);
	if (!rc && reader->crypt)
		rc = block_open(reader, ret_block, payload, type, offset, length, fault);
	if (rc)
		return rc;
	if (!reader->crypt && ret_block->payload_hash != layout_payload_hash(payload, size, reader->seed))
		return reader_damaged(fault, "checksum of block at 0x%llx", (unsigned long long)offset);
	if (ret_block->used > size)
		return reader_damaged(fault, "block at 0x%llx says it is larger than it is", (unsigned long long)offset);
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
			return reader_damaged(fault, "a record in the block at 0x%llx is larger than the block",
				       (unsigned long long)block->offset);
		*vec_add(&reader->records) = (struct image_record){ head.tag, head.length, payload + at };
		at += head.length;
		count++;
	}
	if (at != block->used || count != block->count)
		return reader_damaged(fault, "the block at 0x%llx does not hold the records it says",
			       (unsigned long long)block->offset);
	return 0;
}

static int records_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	if (entry->length > LAYOUT_RECORDS_MAX)
		return reader_damaged(fault, "the index says %u bytes of records at 0x%llx", entry->length,
			       (unsigned long long)entry->offset);
	struct layout_block block;
	uint8_t *payload;
	int rc = reader_payload(reader, LAYOUT_RECORDS, entry->offset, entry->length, &block, &payload, fault);
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
		return reader_damaged(fault, "the index says %u pages in %u bytes at 0x%llx", entry->pages, entry->length,
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
		return reader_damaged(fault, "the map names %u pages at address 0x%llx of space %u", entry->pages,
			       (unsigned long long)entry->address, entry->space);
	*vec_add(&reader->places) = place;
	return 0;
}

static int map_load(struct image_reader *reader, const struct layout_entry *entry, struct fault *fault)
{
	struct layout_block block;
	_free_ uint8_t *payload = NULL;
	if (entry->length > layout_align(sizeof block + LAYOUT_MAP_PLACES * sizeof(struct layout_place)))
		return reader_damaged(fault, "the index says %u bytes of the map at 0x%llx", entry->length,
			       (unsigned long long)entry->offset);
	int rc = reader_payload(reader, LAYOUT_MAP, entry->offset, entry->length, &block, &payload, fault);
	if (!rc && block.used != block.count * sizeof(struct layout_place))
		rc = reader_damaged(fault, "the map at 0x%llx has not as many places as it says", (unsigned long long)entry->offset);
	for (uint32_t i = 0; !rc && i < block.count; i++) {
		struct layout_place place;
		memcpy(&place, payload + i * sizeof place, sizeof place);
		rc = place_enter(reader, &place, fault);
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
		return lineage_load(reader, entry, fault);
	default:
		return reader_damaged(fault, "the index names a block of type %u", entry->type);
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

const struct image_block *reader_block_of(const struct image_reader *reader, const struct page_place *place)
{
	return reader->blocks.count ? bsearch(place, reader->blocks.at, reader->blocks.count, sizeof *reader->blocks.at, block_compare) : NULL;
}

/* Which block each place is in, and the places of each block. */
static int places_sort(struct image_reader *reader, struct fault *fault)
{
	size_t blocks = reader->blocks.count, count = reader->places.count;
	_free_ uint32_t *block_of = memory_new((count + 1) * sizeof *block_of);
	reader->by_block = memory_new((count + 1) * sizeof *reader->by_block);
	reader->block_starts = memory_new((blocks + 2) * sizeof *reader->block_starts);
	for (size_t i = 0; i < count; i++) {
		const struct image_block *block = reader_block_of(reader, &reader->places.at[i].at);
		if (!block)
			return reader_damaged(fault, "the map names a block at 0x%llx, where none is",
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
			return reader_damaged(fault, "the index names a block at 0x%llx, not at 0x%llx",
				       (unsigned long long)entry.offset, (unsigned long long)at);
		int rc = entry_take(reader, &entry, fault);
		if (rc)
			return rc;
		at += entry.length;
		pages += entry.pages;
	}
	if (at != end || pages != reader->trailer.pages || reader->records.count != reader->trailer.records ||
	    reader->places.count != reader->trailer.places)
		return reader_damaged(fault, "the index does not name what the trailer counts");
	if (reader->is_ancestor)
		return 0;
	int rc = lineage_open(reader, fault);
	return rc ? rc : places_sort(reader, fault);
}

static int index_load(struct image_reader *reader, struct fault *fault)
{
	const struct layout_trailer *trailer = &reader->trailer;
	uint64_t offset = trailer->index_offset, length = trailer->index_length;
	uint64_t end = reader->size - IMAGE_PAGE; /* of the index */
	if (offset % IMAGE_PAGE || offset < IMAGE_PAGE || offset >= end || length != end - offset)
		return reader_damaged(fault, "the trailer says that the index is at 0x%llx", (unsigned long long)offset);
	struct layout_block block;
	_free_ uint8_t *entries = NULL;
	int rc = reader_payload(reader, LAYOUT_INDEX, offset, length, &block, &entries, fault);
	if (rc)
		return rc;
	uint64_t count = block.used / sizeof(struct layout_entry);
	if (block.used % sizeof(struct layout_entry) || count != trailer->blocks || count != block.count)
		return reader_damaged(fault, "the index has not as many entries as it says");
	return index_walk(reader, entries, count, fault);
}

/* Opening */

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

bool image_begins(const char *path)
{
	char magic[sizeof LAYOUT_MAGIC - 1];
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return fd >= 0 && fd_pread_full(fd, magic, sizeof magic, 0) == 0 && !memcmp(magic, LAYOUT_MAGIC, sizeof magic);
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
		int rc = spool_take(&reader->fd, fault);
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

static int reader_open(int fd, const char *path, const struct image_key *key, bool is_ancestor, struct image_reader **ret_reader,
		       struct fault *fault)
{
	struct image_reader *reader = memory_new(sizeof *reader);
	reader->fd = fd;
	reader->name = memory_string(name_of(path));
	reader->path = realpath(path, NULL);
	reader->is_ancestor = is_ancestor;
	reader->key = key;
	int rc = reader_load(reader, path, fault);
	reader->key = NULL;
	if (rc) {
		fault_at(fault, rc, "%s", reader->name);
		image_reader_free(reader);
		return rc;
	}
	*ret_reader = reader;
	return 0;
}

int image_reader_open_fd(int fd, const char *path, const struct image_key *key, struct image_reader **ret_reader, struct fault *fault)
{
	return reader_open(fd, path, key, false, ret_reader, fault);
}

int reader_open_ancestor(int fd, const char *path, const struct image_key *key, struct image_reader **ret_reader, struct fault *fault)
{
	return reader_open(fd, path, key, true, ret_reader, fault);
}

int image_reader_open(const char *path, const struct image_key *key, struct image_reader **ret_reader, struct fault *fault)
{
	int fd = image_reader_descriptor(path, fault);
	return fd < 0 ? fd : image_reader_open_fd(fd, path, key, ret_reader, fault);
}

bool image_reader_is_encrypted(const struct image_reader *reader)
{
	return reader->crypt;
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

const struct image_place *reader_place_of(const struct image_reader *reader, uint32_t space, uint64_t address)
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
	bool inside = place && place->space == space && address - place->at.address < (uint64_t)place->at.pages * IMAGE_PAGE;
	return inside ? place : NULL;
}

bool image_reader_find(const struct image_reader *reader, uint32_t space, uint64_t address, size_t *ret_index)
{
	const struct image_place *place = reader_place_of(reader, space, address);
	const struct image_block *block = place ? reader_block_of(reader, &place->at) : NULL;
	if (!block)
		return false;
	*ret_index = (size_t)(block - reader->blocks.at);
	return true;
}

uint64_t image_reader_size(const struct image_reader *reader)
{
	return reader->size;
}

void image_reader_id(const struct image_reader *reader, uint8_t ret_id[16])
{
	memcpy(ret_id, reader->header.id, sizeof reader->header.id);
}

int image_reader_fd(const struct image_reader *reader)
{
	return reader->fd;
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
	lineage_close(reader);
	crypt_free(reader->crypt);
	free(reader->path);
	fd_close_scoped(&reader->fd);
	free(reader->name);
	free(reader);
}
