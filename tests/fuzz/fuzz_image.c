/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an image: faults are fine, crashes are not. Each input is read twice, as it is and with its
 * checksums made right, since behind the checksums is where the interesting code lies; and so encrypted.
 *
 *	clang -fsanitize=fuzzer,address,undefined -DFUZZ ...   or   fuzz_image FILE... (plain replay) */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"
#include "image/image.h"
#include "image/crypt.h"
#include "image/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sum; /* so that the bytes are read */

static int batch_read(void *context, const struct page_batch *batch, struct fault *fault)
{
	(void)context, (void)fault;
	for (uint32_t c = 0; c < batch->count; c++)
		sum += ((const uint8_t *)batch->chunks[c].data)[batch->chunks[c].pages * (size_t)IMAGE_PAGE - 1];
	return 0;
}

/* Mapped from there, it would be memory. */
static void raw_check(void *context, const struct image_place *place, uint64_t offset)
{
	uint64_t size = image_reader_size(context);
	if (offset % IMAGE_PAGE || offset > size || (uint64_t)place->at.pages * IMAGE_PAGE > size - offset)
		abort();
}

static void blocks_read(struct image_reader *reader)
{
	const struct image_record *records;
	const struct image_block *blocks;
	const struct page_taker taker = { batch_read, NULL };
	struct fault fault;
	for (size_t i = 0, count = image_reader_records(reader, &records); i < count; i++)
		for (uint32_t at = 0; at < records[i].size; at++)
			sum += records[i].data[at];
	for (size_t i = 0, count = image_reader_blocks(reader, &blocks); i < count; i++) {
		/* Of its own, for the sanitizer. */
		_free_ void *buffer = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
		image_reader_pages(reader, i, buffer, &taker, &fault);
	}
	image_reader_raw(reader, raw_check, reader, &fault);
}

static const struct image_key key = { "fuzz" };

static void image_read(const uint8_t *data, size_t size, const struct image_key *secret)
{
	_close_ int fd = memfd_create("fuzz-image", MFD_CLOEXEC);
	if (fd < 0 || fd_pwrite_full(fd, data, size, 0))
		abort();
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	struct image_reader *reader = NULL;
	struct fault fault;
	if (!image_reader_open(path, secret, &reader, &fault))
		blocks_read(reader);
	image_reader_free(reader);
}

static void block_seal(uint8_t *data, size_t size, uint64_t offset, uint64_t length, uint64_t seed)
{
	struct layout_block *block = (struct layout_block *)(data + offset);
	if (offset % IMAGE_PAGE || offset >= size || length < IMAGE_PAGE || length > size - offset)
		return;
	if (block->type == LAYOUT_PAGES) {
		struct layout_pages *first = (struct layout_pages *)block;
		uint64_t at = IMAGE_PAGE;
		for (size_t i = 0; i < IMAGE_CHUNKS && i < block->count; i++) {
			uint64_t bytes = (uint64_t)first->chunks[i].pages * IMAGE_PAGE;
			if (bytes > length - at)
				break;
			first->chunks[i].hash = layout_chunk_hash(data + offset + at, bytes);
			at += bytes;
		}
	} else {
		block->payload_hash = layout_payload_hash(block + 1, length - sizeof *block, seed);
	}
	block->hash = layout_block_hash(block, seed);
}

/* As far as the image is one. @data is aligned. */
static void image_seal(uint8_t *data, size_t size)
{
	if (size < 2 * IMAGE_PAGE || size % IMAGE_PAGE)
		return;
	struct layout_header *header = (struct layout_header *)data;
	struct layout_trailer *trailer = (struct layout_trailer *)(data + size - IMAGE_PAGE);
	uint64_t seed = layout_seed(header->id), offset = trailer->index_offset;
	header->hash = layout_page_hash(header);
	trailer->hash = layout_page_hash(trailer);
	if (offset % IMAGE_PAGE || offset >= size)
		return;
	const struct layout_entry *entries = (const struct layout_entry *)(data + offset + sizeof(struct layout_block));
	size_t most = (size - offset - sizeof(struct layout_block)) / sizeof *entries;
	for (size_t i = 0; i < most && i < trailer->blocks; i++)
		if (entries[i].offset < offset && entries[i].length <= offset - entries[i].offset)
			block_seal(data, size, entries[i].offset, entries[i].length, seed);
	block_seal(data, size, offset, trailer->index_length, seed);
}

static void block_encrypt(const struct crypt *crypt, uint8_t *data, size_t size, uint64_t offset, uint64_t length)
{
	struct layout_block block;
	struct fault fault;
	if (offset % IMAGE_PAGE || offset >= size || length < IMAGE_PAGE || length > size - offset)
		return;
	memcpy(&block, data + offset, sizeof block);
	struct layout_sealed *sealed = (struct layout_sealed *)(data + offset);
	*sealed = (struct layout_sealed){
		.magic = LAYOUT_SEALED_MAGIC, .type = block.type, .length = length, .offset = offset, .pages = block.pages, .count = block.count,
		.used = block.used };
	const struct crypt_part parts[] = {
		{ &sealed->pages, &sealed->pages, LAYOUT_SEALED_INNER }, { sealed + 1, sealed + 1, length - sizeof *sealed } };
	if (crypt_seal(crypt, offset, sealed, LAYOUT_SEALED_OPEN, parts, 2, sealed->tag, &fault))
		abort();
}

/* What somebody with the key could have made of it. */
static void image_encrypt(uint8_t *data, size_t size)
{
	struct fault fault;
	struct crypt *crypt = NULL;
	if (size < 2 * IMAGE_PAGE || size % IMAGE_PAGE)
		return;
	struct layout_header *header = (struct layout_header *)data;
	struct layout_trailer *trailer = (struct layout_trailer *)(data + size - IMAGE_PAGE);
	uint64_t offset = trailer->index_offset, length = trailer->index_length;
	if (crypt_new(&key, header->salt, header->id, &crypt, &fault))
		abort();
	header->incompatible |= LAYOUT_ENCRYPTED;
	memcpy(header->key_check, crypt_check(crypt), sizeof header->key_check);
	memset(header->mark, 0, sizeof header->mark);
	uint8_t mark[CRYPT_MARK];
	const struct crypt_part inner = { &trailer->index_offset, &trailer->index_offset, LAYOUT_TRAILER_INNER };
	if (crypt_mark(crypt, header, offsetof(struct layout_header, hash), mark, &fault))
		abort();
	memcpy(header->mark, mark, sizeof mark);
	header->hash = layout_page_hash(header);
	if (offset % IMAGE_PAGE == 0 && offset < size) {
		const struct layout_entry *entries = (const struct layout_entry *)(data + offset + sizeof(struct layout_block));
		size_t most = (size - offset - sizeof(struct layout_block)) / sizeof *entries;
		for (size_t i = 0; i < most && i < trailer->blocks; i++)
			if (entries[i].offset < offset && entries[i].length <= offset - entries[i].offset)
				block_encrypt(crypt, data, size, entries[i].offset, entries[i].length);
		block_encrypt(crypt, data, size, offset, length);
	}
	if (crypt_seal(crypt, size - IMAGE_PAGE, trailer, LAYOUT_TRAILER_OPEN, &inner, 1, trailer->tag, &fault))
		abort();
	trailer->hash = layout_page_hash(trailer);
	crypt_free(crypt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	image_read(data, size, NULL);
	image_read(data, size, &key);
	_free_ uint8_t *sealed = aligned_alloc(IMAGE_PAGE, layout_align(size + 1));
	memcpy(sealed, data, size);
	image_seal(sealed, size);
	image_read(sealed, size, NULL);
	image_encrypt(sealed, size);
	image_read(sealed, size, &key);
	return 0;
}

#ifndef FUZZ
int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		_close_ int fd = open(argv[i], O_RDONLY | O_CLOEXEC);
		off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
		if (size < 0) {
			perror(argv[i]);
			return 1;
		}
		_free_ uint8_t *data = memory_new((size_t)size);
		if (fd_pread_full(fd, data, (size_t)size, 0))
			return 1;
		LLVMFuzzerTestOneInput(data, (size_t)size);
	}
	return 0;
}
#endif
