/* SPDX-License-Identifier: Apache-2.0 */
/* Writes an image, front to back on a pipe, block by block from several threads into a file.
 *
 * Page data goes from the caller's memory to the kernel without a copy: one pwritev has the block's first
 * page and the chunks. In a file a block's place is taken by an atomic addition, so that threads never
 * wait for each other's disk; on a pipe the lock keeps blocks whole and in order. The file's header page
 * is written last, with the length of it all: until then it is a hole, and the file no image. */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "image/layout.h"

struct image_writer {
	int fd;
	bool stream;           /* a pipe, or a file that we were not given from its start */
	_Atomic uint64_t end;  /* offset of the next block */
	atomic_bool failed;    /* a block is missing: what follows would be for nothing */
	struct layout_header header;
	uint64_t seed;
	struct image_stats stats; /* records: by the one thread of image_writer_record; pages: under the lock */

	pthread_mutex_t lock;  /* of the index, and on a pipe of the pipe */
	VEC(struct layout_entry) index;

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

static void writer_index(struct image_writer *writer, const struct layout_block *block, uint64_t address)
{
	*vec_add(&writer->index) = (struct layout_entry){
		.offset = block->offset,
		.length = (uint32_t)block->length,
		.type = block->type,
		.space = block->space,
		.pages = block->pages,
		.address = address,
	};
	writer->stats.pages += block->pages;
}

/* Gives @block its place and its checksum and writes it; iov[0] begins with it. */
static int writer_block(struct image_writer *writer, struct layout_block *block, struct iovec *iov, int count,
			uint64_t address, struct fault *fault)
{
	if (atomic_load(&writer->failed))
		return fault_set(fault, FAULT_FAILED, EIO, "writing the image: an earlier write failed");
	if (writer->stream)
		pthread_mutex_lock(&writer->lock);
	block->offset = atomic_fetch_add(&writer->end, block->length);
	block->hash = layout_block_hash(block, writer->seed);
	int rc = writer_put(writer, iov, count, block->offset, fault);
	if (!writer->stream)
		pthread_mutex_lock(&writer->lock);
	if (!rc && block->type != LAYOUT_INDEX)
		writer_index(writer, block, address);
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
		bad = !chunk->pages || pages > IMAGE_BLOCK_PAGES || chunk->address % IMAGE_PAGE ||
		      chunk->address > UINT64_MAX - (uint64_t)chunk->pages * IMAGE_PAGE;
	}
	if (bad)
		return fault_set(fault, FAULT_FAILED, EINVAL,
				 "a batch of pages that no image holds was to be written; please report this");
	return 0;
}

int image_writer_pages(struct image_writer *writer, const struct page_batch *batch, struct fault *fault)
{
	int rc = batch_check(batch, fault);
	if (rc)
		return rc;
	struct layout_pages first = { .block = {
		.magic = LAYOUT_BLOCK_MAGIC, .type = LAYOUT_PAGES, .space = batch->space, .count = batch->count } };
	struct iovec iov[1 + IMAGE_CHUNKS] = { { &first, sizeof first } };
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct page_chunk *chunk = &batch->chunks[i];
		size_t size = (size_t)chunk->pages * IMAGE_PAGE;
		first.chunks[i] = (struct layout_chunk){
			.address = chunk->address, .pages = chunk->pages, .codec = CODEC_RAW,
			.stored = (uint32_t)size, .hash = layout_chunk_hash(chunk->data, size) };
		iov[1 + i] = (struct iovec){ (void *)chunk->data, size };
		first.block.pages += chunk->pages;
	}
	first.block.length = ((uint64_t)first.block.pages + 1) * IMAGE_PAGE;
	return writer_block(writer, &first.block, iov, 1 + (int)batch->count, batch->chunks[0].address, fault);
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
	uint64_t length = layout_align(writer->used);
	records_reserve(writer, length);
	memset(writer->records + writer->used, 0, length - writer->used);
	struct layout_block block = {
		.magic = LAYOUT_BLOCK_MAGIC, .type = LAYOUT_RECORDS, .length = length, .count = writer->count,
		.used = writer->used - sizeof block,
		.payload_hash = layout_payload_hash(writer->records + sizeof block, length - sizeof block,
						    writer->seed) };
	struct iovec iov[] = { { &block, sizeof block },
			       { writer->records + sizeof block, length - sizeof block } };
	int rc = writer_block(writer, &block, iov, 2, 0, fault);
	records_reset(writer);
	return rc;
}

int image_writer_record(struct image_writer *writer, uint32_t tag, const ProtobufCMessage *record,
			struct fault *fault)
{
	size_t size = protobuf_c_message_get_packed_size(record);
	if (size > LAYOUT_RECORD_MAX)
		return fault_set(fault, FAULT_UNSUPPORTED, EFBIG,
				 "a %s of %zu bytes: an image holds records of at most %d; try to reduce what it "
				 "describes", record->descriptor->short_name, size, LAYOUT_RECORD_MAX);
	struct layout_record head = { tag, (uint32_t)size };
	if (writer->count && writer->used + sizeof head + size > LAYOUT_RECORDS_GOAL) {
		int rc = records_flush(writer, fault);
		if (rc)
			return rc;
	}
	records_reserve(writer, writer->used + sizeof head + size);
	memcpy(writer->records + writer->used, &head, sizeof head);
	protobuf_c_message_pack(record, writer->records + writer->used + sizeof head);
	writer->used += sizeof head + size;
	writer->count++;
	writer->stats.records++;
	return 0;
}

/* Beginning and end */

static int id_new(uint8_t id[16], struct fault *fault)
{
	size_t done = 0;
	while (done < 16) {
		ssize_t n = getrandom(id + done, 16 - done, 0);
		if (n < 0 && errno != EINTR)
			return fault_set(fault, FAULT_FAILED, errno, "random bytes for the image id: %s; try a newer "
					 "kernel", strerror(errno));
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
	writer->header.hash = layout_page_hash(&writer->header);
	struct iovec iov = { &writer->header, sizeof writer->header };
	return writer_put(writer, &iov, 1, 0, fault);
}

int image_writer_new(int fd, struct image_writer **ret_writer, struct fault *fault)
{
	struct image_writer *writer = memory_new(sizeof *writer);
	writer->fd = fd;
	writer->stream = !fd_is_seekable(fd);
	pthread_mutex_init(&writer->lock, NULL);
	atomic_init(&writer->end, IMAGE_PAGE);
	records_reset(writer);
	memcpy(writer->header.magic, LAYOUT_MAGIC, sizeof writer->header.magic);
	writer->header.version = IMAGE_VERSION;
	writer->header.page_size = IMAGE_PAGE;
	int rc = id_new(writer->header.id, fault);
	writer->seed = layout_seed(writer->header.id);
	if (!rc && writer->stream)
		rc = header_write(writer, 0, fault);
	if (rc) {
		image_writer_free(writer);
		return rc;
	}
	*ret_writer = writer;
	return 0;
}

static int entry_compare(const void *a, const void *b)
{
	const struct layout_entry *left = a, *right = b;
	return left->offset < right->offset ? -1 : left->offset > right->offset;
}

static int index_write(struct image_writer *writer, struct layout_trailer *trailer, struct fault *fault)
{
	size_t used = writer->index.count * sizeof *writer->index.at;
	struct layout_block block = { .magic = LAYOUT_BLOCK_MAGIC, .type = LAYOUT_INDEX, .used = used,
				      .length = layout_align(sizeof block + used),
				      .count = (uint32_t)writer->index.count };
	/* Blocks are entered as their writes end, several threads at once. */
	if (writer->index.count)
		qsort(writer->index.at, writer->index.count, sizeof *writer->index.at, entry_compare);
	size_t payload = block.length - sizeof block;
	_free_ uint8_t *bytes = memory_new(payload);
	if (used)
		memcpy(bytes, writer->index.at, used);
	block.payload_hash = layout_payload_hash(bytes, payload, writer->seed);
	struct iovec iov[] = { { &block, sizeof block }, { bytes, payload } };
	int rc = writer_block(writer, &block, iov, 2, 0, fault);
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
	trailer->pages = writer->stats.pages;
	trailer->hash = layout_page_hash(trailer);
	struct iovec iov = { trailer, sizeof *trailer };
	return writer_put(writer, &iov, 1, writer->stats.bytes - sizeof *trailer, fault);
}

int image_writer_finish(struct image_writer *writer, struct image_stats *ret_stats, struct fault *fault)
{
	struct layout_trailer trailer = { 0 };
	int rc = records_flush(writer, fault);
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
	pthread_mutex_destroy(&writer->lock);
	vec_finish(&writer->index);
	free(writer->records);
	free(writer);
}
