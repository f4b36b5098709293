/* SPDX-License-Identifier: Apache-2.0 */
/* Writes an image, front to back on a pipe, block by block from several threads into a file.
 *
 * Page data goes from the caller's memory to the kernel without a copy: one pwritev has the block's first
 * page and the chunks. In a file a block's place is taken by an atomic addition, so that threads never
 * wait for each other's disk; on a pipe the lock keeps blocks whole and in order. The file's header page
 * is written last, with the length of it all: until then it is a hole, and the file no image. */
#include "image/image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "image/codec.h"
#include "image/crypt.h"
#include "image/flusher.h"
#include "image/layout.h"
#include "image/repeats.h"

struct image_writer {
	int fd;
	bool stream;           /* a pipe, or a file that we were not given from its start */
	_Atomic uint64_t end;  /* offset of the next block */
	atomic_bool failed;    /* a block is missing: what follows would be for nothing */
	struct layout_header header;
	uint64_t seed;
	struct crypt *crypt;   /* NULL: not encrypted */
	struct repeats *repeats; /* NULL: what was written cannot be read */
	struct image_compression compression;
	struct codec_pool codecs;
	struct flusher flusher;
	struct image_stats stats; /* records: by the one thread of image_writer_record; the others: under the lock */

	pthread_mutex_t lock;  /* of the index, and on a pipe of the pipe */
	VEC(struct layout_entry) index;
	VEC(struct layout_place) map;
	VEC(struct layout_ancestor) ancestors;

	uint8_t *records;      /* the record block that is being filled: header, then the stream */
	size_t used, space;    /* bytes of it */
	uint32_t count;        /* records in it */
};

/* Bytes to the kernel */

static int write_fault(int error, struct fault *fault)
{
	const char *remedy = "try another place for it with --output";
	if (error == ENOSPC || error == EDQUOT)
		remedy = "free some space, or try another place for it with --output";
	if (error == EFBIG)
		remedy = "try a higher limit (ulimit -f), or another file system with --output";
	if (error == EPIPE)
		remedy = "see why the program that reads the pipe ended";
	return fault_set(fault, FAULT_FAILED, error, "writing the image: %s; %s", strerror(error), remedy);
}

/* Drops the first @done bytes of @iov. */
static void iov_advance(struct iovec **iov, int *count, size_t done)
{
	while (*count && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		++*iov;
		--*count;
	}
	if (*count) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

/* All of @iov (which is used up) at @offset, or at the position of a stream. */
static int write_parts(struct image_writer *writer, struct iovec *iov, int count, uint64_t offset)
{
	while (count) {
		int part = count < IOV_MAX ? count : IOV_MAX;
		ssize_t n = writer->stream ? writev(writer->fd, iov, part) :
					     pwritev(writer->fd, iov, part, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		offset += (uint64_t)n;
		iov_advance(&iov, &count, (size_t)n);
	}
	return 0;
}

/* As write_parts. A closed pipe and a file-size limit must come back as errors also in a program that
 * links the library, whose signal dispositions are not ours to set: block the two, and eat what came. */
static int write_quietly(struct image_writer *writer, struct iovec *iov, int count, uint64_t offset)
{
	sigset_t wanted, old, pending;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGPIPE);
	sigaddset(&wanted, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &wanted, &old);
	sigpending(&pending);
	int rc = write_parts(writer, iov, count, offset);
	int raised = rc == -EPIPE ? SIGPIPE : rc == -EFBIG ? SIGXFSZ : 0;
	if (raised && !sigismember(&pending, raised)) {
		sigset_t one;
		sigemptyset(&one);
		sigaddset(&one, raised);
		while (sigtimedwait(&one, NULL, &(struct timespec){ 0 }) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

static int writer_put(struct image_writer *writer, struct iovec *iov, int count, uint64_t offset,
		      struct fault *fault)
{
	int rc = write_quietly(writer, iov, count, offset);
	if (!rc)
		return 0;
	atomic_store(&writer->failed, true);
	return write_fault(-rc, fault);
}

/* Blocks */

enum { BLOCK_PARTS = 1 + 2 * IMAGE_CHUNKS + 1 }; /* the first page; of each chunk its padding and itself; the block's end */

static void writer_index(struct image_writer *writer, const struct layout_block *block)
{
	*vec_add(&writer->index) = (struct layout_entry){
		.offset = block->offset,
		.length = (uint32_t)block->length,
		.type = block->type,
		.pages = block->pages,
	};
	writer->stats.stored += block->pages;
}

/* Encrypts the block that @iov holds (iov[0] begins with its header) into @room. */
static int block_seal(const struct image_writer *writer, const struct layout_block *block, const struct iovec *iov, int count, uint8_t *room,
		      struct fault *fault)
{
	struct crypt_part parts[BLOCK_PARTS + 1];
	struct layout_sealed *sealed = (struct layout_sealed *)room;
	*sealed = (struct layout_sealed){
		.magic = LAYOUT_SEALED_MAGIC, .type = block->type, .length = block->length, .offset = block->offset,
		.pages = block->pages, .count = block->count, .used = block->used };
	parts[0] = (struct crypt_part){ &sealed->pages, &sealed->pages, LAYOUT_SEALED_INNER };
	uint8_t *to = room + sizeof *sealed;
	for (int i = 0; i < count; i++) {
		size_t skip = i ? 0 : sizeof *block, size = iov[i].iov_len - skip;
		parts[i + 1] = (struct crypt_part){ (const uint8_t *)iov[i].iov_base + skip, to, size };
		to += size;
	}
	return crypt_seal(writer->crypt, block->offset, sealed, LAYOUT_SEALED_OPEN, parts, (size_t)count + 1, sealed->tag, fault);
}

/* @block has its place. */
static int block_put(struct image_writer *writer, struct layout_block *block, struct iovec *iov, int count, struct fault *fault)
{
	if (!writer->crypt) {
		block->hash = layout_block_hash(block, writer->seed);
		return writer_put(writer, iov, count, block->offset, fault);
	}
	struct codec_bench *bench = codec_take(&writer->codecs);
	_free_ uint8_t *large = block->length > CODEC_BLOCK ? memory_resize(NULL, block->length) : NULL;
	if (!large && !bench->sealed)
		bench->sealed = memory_resize(NULL, CODEC_BLOCK);
	struct iovec whole = { large ? large : bench->sealed, block->length };
	int rc = block_seal(writer, block, iov, count, whole.iov_base, fault);
	if (rc)
		atomic_store(&writer->failed, true);
	else
		rc = writer_put(writer, &whole, 1, block->offset, fault);
	codec_put(&writer->codecs, bench);
	return rc;
}

/* Gives @block its place and its checksum and writes it; iov[0] begins with it. A stream is encrypted by one thread at a time, as it is written. */
static int writer_block(struct image_writer *writer, struct layout_block *block, struct iovec *iov, int count,
			struct fault *fault)
{
	if (atomic_load(&writer->failed))
		return fault_set(fault, FAULT_FAILED, EIO, "writing the image: an earlier write failed");
	if (writer->stream)
		pthread_mutex_lock(&writer->lock);
	block->offset = atomic_fetch_add(&writer->end, block->length);
	int rc = block_put(writer, block, iov, count, fault);
	if (!rc)
		flusher_note(&writer->flusher, block->offset + block->length);
	if (!writer->stream)
		pthread_mutex_lock(&writer->lock);
	if (!rc && block->type != LAYOUT_INDEX)
		writer_index(writer, block);
	pthread_mutex_unlock(&writer->lock);
	return rc;
}

static int batch_check(const struct page_batch *batch, struct fault *fault)
{
	uint64_t pages = 0;
	bool bad = !batch->count || batch->count > IMAGE_CHUNKS;
	for (uint32_t i = 0; !bad && i < batch->count; i++) {
		const struct page_chunk *chunk = &batch->chunks[i];
		pages += chunk->pages;
		bad = !chunk->pages || pages > IMAGE_BLOCK_PAGES;
	}
	if (bad)
		return fault_set(fault, FAULT_FAILED, EINVAL,
				 "a batch of pages that no image holds was to be written; please report this");
	return 0;
}

/* A page block while it is put together: raw chunks stay where the caller has them. */
struct block_draft {
	struct layout_pages first;
	struct iovec iov[BLOCK_PARTS];
	int parts;
	uint64_t at; /* bytes of the block so far */
	size_t compressed; /* bytes of the codec's buffer in use */
};
static const uint8_t padding[IMAGE_PAGE];

static void draft_add(struct block_draft *draft, const void *data, size_t size)
{
	if (size)
		draft->iov[draft->parts++] = (struct iovec){ (void *)data, size };
	draft->at += size;
}

static void draft_chunk(struct image_writer *writer, struct block_draft *draft, struct codec_bench *bench,
			struct layout_chunk *entry, const struct page_chunk *chunk)
{
	size_t size = (size_t)chunk->pages * IMAGE_PAGE, stored = 0;
	const void *data = chunk->data;
	if (bench) {
		uint8_t *to = bench->buffer + draft->compressed;
		stored = codec_compress(bench, &writer->compression, data, size, to, CODEC_BUFFER - draft->compressed);
		data = stored ? to : data;
		draft->compressed += stored;
	}
	size_t align = stored ? LAYOUT_CHUNK_ALIGN : IMAGE_PAGE;
	draft_add(draft, padding, (align - draft->at % align) % align);
	*entry = (struct layout_chunk){
		.pages = chunk->pages, .codec = (uint16_t)(stored ? writer->compression.codec : CODEC_RAW),
		.offset = (uint32_t)draft->at, .stored = (uint32_t)(stored ? stored : size) };
	if (!writer->crypt)
		entry->hash = layout_chunk_hash(data, entry->stored);
	draft_add(draft, data, entry->stored);
}

/* Writes all of @batch, as one block. */
static int pages_write(struct image_writer *writer, const struct page_batch *batch, uint64_t *ret_block, struct fault *fault)
{
	struct codec_bench *bench = writer->compression.codec ? codec_take(&writer->codecs) : NULL;
	struct block_draft draft = { .first.block = {
		.magic = LAYOUT_BLOCK_MAGIC, .type = LAYOUT_PAGES, .count = batch->count } };
	draft_add(&draft, &draft.first, sizeof draft.first);
	for (uint32_t i = 0; i < batch->count; i++) {
		draft_chunk(writer, &draft, bench, &draft.first.chunks[i], &batch->chunks[i]);
		draft.first.block.pages += batch->chunks[i].pages;
	}
	draft_add(&draft, padding, (IMAGE_PAGE - draft.at % IMAGE_PAGE) % IMAGE_PAGE);
	draft.first.block.length = draft.at;
	int rc = writer_block(writer, &draft.first.block, draft.iov, draft.parts, fault);
	if (bench)
		codec_put(&writer->codecs, bench);
	*ret_block = draft.first.block.offset;
	return rc;
}

/* @batch without what @repeats are of it, as far as that makes no more chunks than a block holds; the places of all of it, but for the block that is yet to be
 * written: 0. */
static void batch_part(const struct page_batch *batch, const struct repeat *repeats, uint32_t count, struct page_batch *ret_rest, page_places *places)
{
	uint32_t r = 0;
	ret_rest->space = batch->space;
	ret_rest->count = 0;
	for (uint32_t c = 0; c < batch->count; c++) {
		struct page_chunk left = batch->chunks[c];
		for (uint32_t page = 0; left.pages;) {
			bool repeated = r < count && repeats[r].chunk == c;
			/* What is before it, it, and what is behind it: one chunk becomes two. */
			if (repeated && ret_rest->count + 2 + (batch->count - c) > IMAGE_CHUNKS) {
				r++;
				continue;
			}
			struct page_place *place = NULL;
			if (repeated && repeats[r].page == page) {
				place = vec_add(places);
				*place = repeats[r++].place;
			} else {
				struct page_chunk *own = &ret_rest->chunks[ret_rest->count];
				*own = left;
				own->pages = repeated ? repeats[r].page - page : left.pages;
				place = vec_add(places);
				*place = (struct page_place){ .address = own->address, .pages = own->pages, .chunk = (uint16_t)ret_rest->count++ };
			}
			page += place->pages;
			left.pages -= place->pages;
			left.address += (uint64_t)place->pages * IMAGE_PAGE;
			left.data = (const uint8_t *)left.data + (size_t)place->pages * IMAGE_PAGE;
		}
	}
}

/* @places (from @first on) are those of @batch. Of @anchors, notes what was written just now. */
static void anchors_note(struct image_writer *writer, const struct page_batch *batch, const struct anchors *anchors, const page_places *places,
			 size_t first, uint64_t block)
{
	uint32_t a = 0, chunk = 0, page = 0;
	for (size_t i = first; i < places->count; i++) {
		const struct page_place *place = &places->at[i];
		for (; a < anchors->count && anchors->at[a].chunk == chunk && anchors->at[a].page < page + place->pages; a++) {
			uint32_t inside = anchors->at[a].page - page;
			if (place->block == block)
				repeats_note(writer->repeats, &anchors->at[a], &(struct page_place){
					.address = place->address + (uint64_t)inside * IMAGE_PAGE, .block = block, .pages = 1, .chunk = place->chunk,
					.first = (uint16_t)(place->first + inside) });
		}
		page += place->pages;
		if (page == batch->chunks[chunk].pages)
			chunk++, page = 0;
	}
}

int image_writer_pages(struct image_writer *writer, const struct page_batch *batch, page_places *places, struct fault *fault)
{
	struct anchors anchors = { 0 };
	struct repeat repeats[REPEATS_ANCHORS];
	struct page_batch rest;
	const size_t first = places->count;
	uint64_t block = 0;
	int rc = batch_check(batch, fault);
	if (rc)
		return rc;
	if (writer->repeats)
		anchors_find(batch, &anchors);
	batch_part(batch, repeats, anchors.count ? repeats_find(writer->repeats, batch, &anchors, repeats) : 0, &rest, places);
	if (rest.count)
		rc = pages_write(writer, &rest, &block, fault);
	for (size_t i = first; i < places->count; i++)
		places->at[i].block = places->at[i].block ? places->at[i].block : block;
	if (rc)
		places->count = first;
	else if (rest.count)
		anchors_note(writer, batch, &anchors, places, first, block);
	return rc;
}

void image_writer_places(struct image_writer *writer, uint32_t space, const struct page_place *places, size_t count)
{
	pthread_mutex_lock(&writer->lock);
	for (size_t i = 0; i < count; i++) {
		*vec_add(&writer->map) = (struct layout_place){
			.address = places[i].address, .block = places[i].block, .space = space, .pages = places[i].pages,
			.image = places[i].image, .chunk = places[i].chunk, .first = places[i].first };
		writer->stats.pages += places[i].pages;
	}
	pthread_mutex_unlock(&writer->lock);
}

/* Of @used bytes and @rest zeros. */
static int payload_hash(const void *payload, size_t used, size_t rest, uint64_t seed, uint64_t *ret_hash)
{
	XXH3_state_t *state = XXH3_createState();
	if (!state)
		return -ENOMEM;
	XXH3_64bits_reset_withSeed(state, seed);
	XXH3_64bits_update(state, payload, used);
	XXH3_64bits_update(state, padding, rest);
	*ret_hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return 0;
}

/* Writes a block of anything but pages: @count things, @used bytes. *ret_block (may be NULL) is its head. */
static int payload_write(struct image_writer *writer, enum layout_type type, uint32_t count, const void *payload,
			 size_t used, struct layout_block *ret_block, struct fault *fault)
{
	struct layout_block block = {
		.magic = LAYOUT_BLOCK_MAGIC, .type = type, .length = layout_align(sizeof block + used), .count = count, .used = used };
	size_t rest = block.length - sizeof block - used;
	if (!writer->crypt && payload_hash(payload, used, rest, writer->seed, &block.payload_hash))
		return fault_set(fault, FAULT_FAILED, ENOMEM, "writing the image: no memory; try to free some");
	struct iovec iov[] = { { &block, sizeof block }, { (void *)payload, used }, { (void *)padding, rest } };
	int rc = writer_block(writer, &block, iov, 3, fault);
	if (ret_block)
		*ret_block = block;
	return rc;
}

/* Records */

static void records_reserve(struct image_writer *writer, size_t size)
{
	if (size <= writer->space)
		return;
	size_t space = size > LAYOUT_RECORDS_GOAL ? size : LAYOUT_RECORDS_GOAL;
	writer->records = memory_resize(writer->records, space);
	writer->space = space;
}

/* The buffer goes back to its usual size after a large record. */
static void records_reset(struct image_writer *writer)
{
	if (writer->space > LAYOUT_RECORDS_GOAL) {
		free(writer->records);
		writer->records = NULL;
		writer->space = 0;
	}
	writer->used = sizeof(struct layout_block);
	writer->count = 0;
}

static int records_flush(struct image_writer *writer, struct fault *fault)
{
	if (!writer->count)
		return 0;
	int rc = payload_write(writer, LAYOUT_RECORDS, writer->count, writer->records + sizeof(struct layout_block),
			       writer->used - sizeof(struct layout_block), NULL, fault);
	records_reset(writer);
	return rc;
}

/* Where @size bytes of a record are to go; its head is there already. */
static int record_begin(struct image_writer *writer, uint32_t tag, size_t size, uint8_t **ret_place, struct fault *fault)
{
	struct layout_record head = { tag, (uint32_t)size };
	if (writer->count && writer->used + sizeof head + size > LAYOUT_RECORDS_GOAL) {
		int rc = records_flush(writer, fault);
		if (rc)
			return rc;
	}
	records_reserve(writer, writer->used + sizeof head + size);
	assert(writer->records);
	memcpy(writer->records + writer->used, &head, sizeof head);
	*ret_place = writer->records + writer->used + sizeof head;
	writer->used += sizeof head + size;
	writer->count++;
	writer->stats.records++;
	return 0;
}

int image_writer_record(struct image_writer *writer, uint32_t tag, const ProtobufCMessage *record,
			struct fault *fault)
{
	size_t size = protobuf_c_message_get_packed_size(record);
	uint8_t *place;
	if (size > LAYOUT_RECORD_MAX)
		return fault_set(fault, FAULT_UNSUPPORTED, EFBIG,
				 "a %s of %zu bytes: an image holds records of at most %d; try to reduce what it "
				 "describes", record->descriptor->short_name, size, LAYOUT_RECORD_MAX);
	int rc = record_begin(writer, tag, size, &place, fault);
	if (!rc)
		protobuf_c_message_pack(record, place);
	return rc;
}

int image_writer_raw_record(struct image_writer *writer, uint32_t tag, const void *data, size_t size, struct fault *fault)
{
	uint8_t *place;
	int rc = record_begin(writer, tag, size, &place, fault);
	if (!rc)
		memcpy(place, data, size);
	return rc;
}

/* Beginning and end */

static int random_fill(uint8_t *bytes, size_t size, struct fault *fault)
{
	size_t done = 0;
	while (done < size) {
		ssize_t n = getrandom(bytes + done, size - done, 0);
		if (n < 0 && errno != EINTR)
			return fault_set(fault, FAULT_FAILED, errno, "random bytes for the image: %s; try a newer kernel", strerror(errno));
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Whether blocks may be written at any offset of @fd. */
static bool fd_is_seekable(int fd)
{
	struct stat status;
	int flags = fcntl(fd, F_GETFL);
	return !fstat(fd, &status) && S_ISREG(status.st_mode) && flags >= 0 && !(flags & O_APPEND) &&
	       !lseek(fd, 0, SEEK_CUR);
}

static int header_write(struct image_writer *writer, uint64_t file_length, struct fault *fault)
{
	writer->header.file_length = file_length;
	int rc = writer->crypt ? crypt_mark(writer->crypt, &writer->header, offsetof(struct layout_header, hash), writer->header.mark, fault) : 0;
	if (rc)
		return rc;
	writer->header.hash = layout_page_hash(&writer->header);
	struct iovec iov = { &writer->header, sizeof writer->header };
	return writer_put(writer, &iov, 1, 0, fault);
}

static void ancestor_add(struct image_writer *writer, const uint8_t id[16], const char *path)
{
	struct layout_ancestor *ancestor = vec_add(&writer->ancestors);
	memcpy(ancestor->id, id, sizeof ancestor->id);
	snprintf(ancestor->path, sizeof ancestor->path, "%s", path);
}

/* The parent, and its ancestors behind it. */
static int ancestors_take(struct image_writer *writer, const struct image_reader *parent, struct fault *fault)
{
	const char *path;
	size_t count = 0;
	while (image_reader_lineage(parent, count, writer->header.parent, &path))
		ancestor_add(writer, writer->header.parent, path), count++;
	if (count > LAYOUT_ANCESTORS_MOST)
		return fault_set(fault, FAULT_UNSUPPORTED, E2BIG, "the parent has %zu ancestors, more than %d; try cairn merge on it",
				 count - 1, LAYOUT_ANCESTORS_MOST - 1);
	memcpy(writer->header.parent, writer->ancestors.at[0].id, sizeof writer->header.parent);
	writer->header.incompatible |= LAYOUT_HAS_PARENT;
	return 0;
}

static int encrypt(struct image_writer *writer, const struct image_key *key, struct fault *fault)
{
	struct layout_header *header = &writer->header;
	int rc = random_fill(header->salt, sizeof header->salt, fault);
	if (!rc)
		rc = crypt_new(key, header->salt, header->id, &writer->crypt, fault);
	if (rc)
		return rc;
	memcpy(header->key_check, crypt_check(writer->crypt), sizeof header->key_check);
	header->incompatible |= LAYOUT_ENCRYPTED;
	return 0;
}

int image_writer_new(int fd, const struct image_compression *compression, const struct image_key *key, const struct image_reader *parent,
		     struct image_writer **ret_writer, struct fault *fault)
{
	struct image_writer *writer = memory_new(sizeof *writer);
	writer->fd = fd;
	writer->compression = *compression;
	codec_pool_init(&writer->codecs);
	flusher_init(&writer->flusher, fd);
	writer->stream = !fd_is_seekable(fd);
	pthread_mutex_init(&writer->lock, NULL);
	atomic_init(&writer->end, IMAGE_PAGE);
	records_reset(writer);
	memcpy(writer->header.magic, LAYOUT_MAGIC, sizeof writer->header.magic);
	writer->header.version = IMAGE_VERSION;
	writer->header.page_size = IMAGE_PAGE;
	int rc = random_fill(writer->header.id, sizeof writer->header.id, fault);
	if (!rc && key)
		rc = encrypt(writer, key, fault);
	if (!rc && parent)
		rc = ancestors_take(writer, parent, fault);
	writer->seed = layout_seed(writer->header.id);
	if (!rc && !writer->stream && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
		writer->repeats = repeats_new(fd, writer->seed, writer->crypt);
	if (!rc && writer->stream)
		rc = header_write(writer, 0, fault);
	if (rc) {
		image_writer_free(writer);
		return rc;
	}
	*ret_writer = writer;
	return 0;
}

void image_writer_flush_early(struct image_writer *writer)
{
	if (!writer->stream)
		flusher_begin(&writer->flusher);
}

static int entry_compare(const void *a, const void *b)
{
	const struct layout_entry *left = a, *right = b;
	return left->offset < right->offset ? -1 : left->offset > right->offset;
}

static int place_compare(const void *a, const void *b)
{
	const struct layout_place *left = a, *right = b;
	if (left->space != right->space)
		return left->space < right->space ? -1 : 1;
	return left->address < right->address ? -1 : left->address > right->address;
}

static int map_write(struct image_writer *writer, struct layout_trailer *trailer, struct fault *fault)
{
	int rc = 0;
	if (writer->map.count)
		qsort(writer->map.at, writer->map.count, sizeof *writer->map.at, place_compare);
	for (size_t at = 0, count; rc == 0 && at < writer->map.count; at += count) {
		count = writer->map.count - at < LAYOUT_MAP_PLACES ? writer->map.count - at : LAYOUT_MAP_PLACES;
		rc = payload_write(writer, LAYOUT_MAP, (uint32_t)count, writer->map.at + at, count * sizeof *writer->map.at, NULL,
				   fault);
	}
	trailer->places = writer->map.count;
	return rc;
}

static int index_write(struct image_writer *writer, struct layout_trailer *trailer, struct fault *fault)
{
	struct layout_block block;
	/* Blocks are entered as their writes end, several threads at once. */
	if (writer->index.count)
		qsort(writer->index.at, writer->index.count, sizeof *writer->index.at, entry_compare);
	int rc = payload_write(writer, LAYOUT_INDEX, (uint32_t)writer->index.count, writer->index.at,
			       writer->index.count * sizeof *writer->index.at, &block, fault);
	trailer->index_offset = block.offset;
	trailer->index_length = block.length;
	trailer->blocks = writer->index.count;
	return rc;
}

static int trailer_write(struct image_writer *writer, struct layout_trailer *trailer, struct fault *fault)
{
	memcpy(trailer->magic, LAYOUT_END_MAGIC, sizeof trailer->magic);
	memcpy(trailer->id, writer->header.id, sizeof trailer->id);
	trailer->file_length = writer->stats.bytes;
	trailer->records = writer->stats.records;
	trailer->pages = writer->stats.stored;
	const uint64_t offset = writer->stats.bytes - sizeof *trailer;
	const struct crypt_part inner = { &trailer->index_offset, &trailer->index_offset, LAYOUT_TRAILER_INNER };
	int rc = writer->crypt ? crypt_seal(writer->crypt, offset, trailer, LAYOUT_TRAILER_OPEN, &inner, 1, trailer->tag, fault) : 0;
	if (rc)
		return rc;
	trailer->hash = layout_page_hash(trailer);
	struct iovec iov = { trailer, sizeof *trailer };
	return writer_put(writer, &iov, 1, offset, fault);
}

void image_writer_id(const struct image_writer *writer, uint8_t ret_id[16])
{
	memcpy(ret_id, writer->header.id, sizeof writer->header.id);
}

int image_writer_finish(struct image_writer *writer, struct image_stats *ret_stats, struct fault *fault)
{
	struct layout_trailer trailer = { 0 };
	int rc = records_flush(writer, fault);
	if (!rc && writer->ancestors.count)
		rc = payload_write(writer, LAYOUT_ANCESTORS, (uint32_t)writer->ancestors.count, writer->ancestors.at,
				   writer->ancestors.count * sizeof *writer->ancestors.at, NULL, fault);
	if (!rc)
		rc = map_write(writer, &trailer, fault);
	if (!rc)
		rc = index_write(writer, &trailer, fault);
	if (rc)
		return rc;
	writer->stats.bytes = atomic_load(&writer->end) + sizeof trailer;
	rc = trailer_write(writer, &trailer, fault);
	if (!rc && !writer->stream)
		rc = header_write(writer, writer->stats.bytes, fault);
	if (!rc && !writer->stream && ftruncate(writer->fd, (off_t)writer->stats.bytes))
		rc = write_fault(errno, fault);
	if (!rc && ret_stats)
		*ret_stats = writer->stats;
	return rc;
}

void image_writer_free(struct image_writer *writer)
{
	if (!writer)
		return;
	flusher_finish(&writer->flusher);
	pthread_mutex_destroy(&writer->lock);
	codec_pool_finish(&writer->codecs);
	vec_finish(&writer->index);
	vec_finish(&writer->map);
	vec_finish(&writer->ancestors);
	repeats_free(writer->repeats);
	crypt_free(writer->crypt);
	free(writer->records);
	free(writer);
}
