/* SPDX-License-Identifier: Apache-2.0 */
/* Images: what is written is read, and what is damaged is a fault and nothing worse. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/memory.h"
#include "image.pb-c.h"
#include "image/image.h"
#include "image/layout.h"

#define assert_done(call)                       \
	do {                                    \
		struct fault fault = { 0 };     \
		if ((call) < 0)                 \
			fail_msg("%s", fault.text); \
	} while (0)

/* An image in memory, its name for the reader, and one buffer as large as any block. */
struct bench {
	int fd;
	char path[64];
	uint8_t *block;
};

static int bench_new(void **state)
{
	struct bench *bench = memory_new(sizeof *bench);
	bench->fd = memfd_create("test-image", MFD_CLOEXEC);
	bench->block = aligned_alloc(IMAGE_PAGE, IMAGE_BUFFER);
	snprintf(bench->path, sizeof bench->path, "/proc/self/fd/%d", bench->fd);
	*state = bench;
	return bench->fd < 0 || !bench->block;
}

static int bench_free(void **state)
{
	struct bench *bench = *state;
	close(bench->fd);
	free(bench->block);
	free(bench);
	return 0;
}

static const struct image_compression raw = { CODEC_RAW, 0 };

/* Contents that tell which page of which space they are. */
static void page_fill(uint8_t *page, uint32_t space, uint64_t address)
{
	for (size_t i = 0; i < IMAGE_PAGE; i += 8) {
		uint64_t word = (address + i) * 0x9e3779b97f4a7c15u ^ space;
		memcpy(page + i, &word, sizeof word);
	}
}

static void pages_write(struct image_writer *writer, uint32_t space, uint64_t address, uint32_t chunks,
			uint32_t pages, uint64_t gap)
{
	struct page_batch batch = { .space = space, .count = chunks };
	uint8_t *data = memory_new((size_t)chunks * pages * IMAGE_PAGE);
	for (uint32_t i = 0; i < chunks; i++) {
		uint8_t *chunk = data + (size_t)i * pages * IMAGE_PAGE;
		batch.chunks[i] = (struct page_chunk){ address + i * (pages * IMAGE_PAGE + gap), pages, chunk };
		for (uint32_t page = 0; page < pages; page++)
			page_fill(chunk + (size_t)page * IMAGE_PAGE, space,
				  batch.chunks[i].address + (uint64_t)page * IMAGE_PAGE);
	}
	page_places places = { 0 };
	assert_done(image_writer_pages(writer, &batch, &places, &fault));
	image_writer_places(writer, space, places.at, places.count);
	vec_finish(&places);
	free(data);
}

static void record_write(struct image_writer *writer, uint32_t tag, char *command, uint32_t pid)
{
	Cairn__ImageInfo info = CAIRN__IMAGE_INFO__INIT;
	info.command = command;
	info.root_pid = pid;
	assert_done(image_writer_record(writer, tag, &info.base, &fault));
}

static void small_write_keyed(int fd, const struct image_key *key)
{
	struct image_writer *writer = NULL;
	struct image_stats stats;
	assert_done(image_writer_new(fd, &raw, key, NULL, &writer, &fault));
	record_write(writer, 1, (char *)"first", 4121);
	pages_write(writer, 7, 0x7000, 2, 1, IMAGE_PAGE);
	record_write(writer, 99, (char *)"second", 4122);
	assert_done(image_writer_finish(writer, &stats, &fault));
	assert_int_equal(stats.records, 2);
	assert_int_equal(stats.pages, 2);
	image_writer_free(writer);
}

static void small_write(int fd)
{
	small_write_keyed(fd, NULL);
}

static void record_expect(const struct image_record *record, uint32_t tag, const char *command, uint32_t pid)
{
	assert_int_equal(record->tag, tag);
	Cairn__ImageInfo *info = cairn__image_info__unpack(NULL, record->size, record->data);
	assert_non_null(info);
	assert_string_equal(info->command, command);
	assert_int_equal(info->root_pid, pid);
	cairn__image_info__free_unpacked(info, NULL);
}

static int batch_expect(void *context, const struct page_batch *batch, struct fault *fault)
{
	uint64_t *pages = context;
	uint8_t expected[IMAGE_PAGE];
	(void)fault;
	for (uint32_t c = 0; c < batch->count; c++)
		for (uint32_t page = 0; page < batch->chunks[c].pages; page++, ++*pages) {
			size_t offset = (size_t)page * IMAGE_PAGE;
			page_fill(expected, batch->space, batch->chunks[c].address + offset);
			assert_memory_equal((const uint8_t *)batch->chunks[c].data + offset, expected, IMAGE_PAGE);
		}
	return 0;
}

/* Reads every block and compares its contents; returns the number of pages. */
static uint64_t pages_expect(const struct image_reader *reader, uint8_t *buffer)
{
	const struct image_block *blocks;
	uint64_t pages = 0;
	const struct page_taker taker = { batch_expect, &pages };
	for (size_t i = 0; i < image_reader_blocks(reader, &blocks); i++)
		assert_done(image_reader_pages(reader, i, buffer, &taker, &fault));
	return pages;
}

static void small_expect_keyed(const char *path, const struct image_key *key, uint8_t *buffer)
{
	struct image_reader *reader = NULL;
	const struct image_record *records;
	assert_done(image_reader_open(path, key, &reader, &fault));
	assert_int_equal(image_reader_is_encrypted(reader), key != NULL);
	assert_int_equal(image_reader_records(reader, &records), 2);
	record_expect(&records[0], 1, "first", 4121);
	record_expect(&records[1], 99, "second", 4122);
	assert_int_equal(pages_expect(reader, buffer), 2);
	image_reader_free(reader);
}

static void small_expect(const char *path, uint8_t *buffer)
{
	small_expect_keyed(path, NULL, buffer);
}

/* The class of the first fault of opening and reading everything, 0: none. */
static int read_all_keyed(const struct bench *bench, const char *path, const struct image_key *key, struct fault *fault)
{
	struct image_reader *reader = NULL;
	const struct image_block *blocks;
	int rc = image_reader_open(path, key, &reader, fault);
	for (size_t i = 0; !rc && i < image_reader_blocks(reader, &blocks); i++)
		rc = image_reader_pages(reader, i, bench->block, NULL, fault);
	image_reader_free(reader);
	return rc ? (int)fault->class : 0;
}

static int read_all(const struct bench *bench, const char *path, struct fault *fault)
{
	return read_all_keyed(bench, path, NULL, fault);
}

static void refusal_expect(const struct bench *bench, const char *words)
{
	struct fault fault = { 0 };
	assert_int_equal(read_all(bench, bench->path, &fault), FAULT_IMAGE);
	if (!strstr(fault.text, words) || !strstr(fault.text, "; try "))
		fail_msg("expected '%s' and a remedy in: %s", words, fault.text);
}

static void file_round_trip(void **state)
{
	struct bench *bench = *state;
	small_write(bench->fd);
	small_expect(bench->path, bench->block);
}

static void *pipe_feed(void *argument)
{
	small_write(*(int *)argument);
	close(*(int *)argument);
	return NULL;
}

static void pipe_round_trip(void **state)
{
	struct bench *bench = *state;
	int ends[2];
	pthread_t thread;
	char path[64];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
	assert_int_equal(pthread_create(&thread, NULL, pipe_feed, &ends[1]), 0);
	small_expect(path, bench->block);
	pthread_join(thread, NULL);
	close(ends[0]);
}

static void appended_file_is_written_in_order(void **state)
{
	struct bench *bench = *state;
	assert_int_equal(fcntl(bench->fd, F_SETFL, O_APPEND), 0);
	small_write(bench->fd);
	small_expect(bench->path, bench->block);
}

struct writer_thread {
	pthread_t thread;
	struct image_writer *writer;
	uint32_t space;
};

enum { THREADS = 6, THREAD_BLOCKS = 40 };

static void *writer_thread_run(void *argument)
{
	struct writer_thread *self = argument;
	for (uint32_t i = 0; i < THREAD_BLOCKS; i++)
		pages_write(self->writer, self->space, (uint64_t)i << 24, 1 + i % 126, 1 + i % 2, IMAGE_PAGE);
	return NULL;
}

/* @fd: a file or a stream. */
static void threads_write(int fd, const struct image_key *secret)
{
	struct image_writer *writer = NULL;
	struct writer_thread threads[THREADS];
	assert_done(image_writer_new(fd, &raw, secret, NULL, &writer, &fault));
	for (uint32_t i = 0; i < THREADS; i++) {
		threads[i] = (struct writer_thread){ .writer = writer, .space = i + 1 };
		pthread_create(&threads[i].thread, NULL, writer_thread_run, &threads[i]);
	}
	for (uint32_t i = 0; i < 50000; i++)
		record_write(writer, 1, (char *)"one of very many records", i + 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i].thread, NULL);
	assert_done(image_writer_finish(writer, NULL, &fault));
	image_writer_free(writer);
}

static void threads_expect(const struct bench *bench, const struct image_key *secret)
{
	struct image_reader *reader = NULL;
	const struct image_record *records;
	const struct image_block *blocks;
	assert_done(image_reader_open(bench->path, secret, &reader, &fault));
	assert_int_equal(image_reader_records(reader, &records), 50000);
	for (uint32_t i = 0; i < 50000; i++)
		record_expect(&records[i], 1, "one of very many records", i + 1);
	assert_int_equal(image_reader_blocks(reader, &blocks), THREADS * THREAD_BLOCKS);
	uint64_t pages = 0;
	for (uint32_t i = 0; i < THREAD_BLOCKS; i++)
		pages += (1 + i % 126) * (1 + i % 2);
	assert_int_equal(pages_expect(reader, bench->block), pages * THREADS);
	image_reader_free(reader);
}

static void threads_into_a_file(void **state)
{
	struct bench *bench = *state;
	threads_write(bench->fd, NULL);
	threads_expect(bench, NULL);
}

static void threads_into_a_stream(void **state)
{
	struct bench *bench = *state;
	assert_int_equal(fcntl(bench->fd, F_SETFL, O_APPEND), 0);
	threads_write(bench->fd, NULL);
	threads_expect(bench, NULL);
}

static void encrypted_threads(void **state)
{
	struct bench *bench = *state;
	static const struct image_key secret = { "many" };
	for (int round = 0; round < 2; round++) { /* as a file, then as a stream */
		assert_int_equal(ftruncate(bench->fd, 0), 0);
		assert_int_equal(fcntl(bench->fd, F_SETFL, round ? O_APPEND : 0), 0);
		threads_write(bench->fd, &secret);
		threads_expect(bench, &secret);
	}
}

static void large_record(void **state)
{
	struct bench *bench = *state;
	struct image_writer *writer = NULL;
	struct image_reader *reader = NULL;
	const struct image_record *records;
	size_t size = 20 << 20;
	char *text = memory_new(size + 1);
	memset(text, 'x', size);
	assert_done(image_writer_new(bench->fd, &raw, NULL, NULL, &writer, &fault));
	record_write(writer, 1, (char *)"before", 1);
	record_write(writer, 1, text, 2);
	record_write(writer, 1, (char *)"after", 3);
	assert_done(image_writer_finish(writer, NULL, &fault));
	image_writer_free(writer);
	assert_done(image_reader_open(bench->path, NULL, &reader, &fault));
	assert_int_equal(image_reader_records(reader, &records), 3);
	record_expect(&records[1], 1, text, 2);
	record_expect(&records[2], 1, "after", 3);
	image_reader_free(reader);
	free(text);
}

/* Three pages of one chunk: two spaces have one each, and one is named by nobody. */
static int one_page(void *context, const struct page_batch *batch, struct fault *fault)
{
	uint32_t *spaces = context;
	(void)fault;
	for (uint32_t c = 0; c < batch->count; c++) {
		assert_int_equal(batch->chunks[c].pages, 1);
		assert_int_equal(*(const uint8_t *)batch->chunks[c].data, batch->space);
		*spaces |= 1u << batch->space;
	}
	return 0;
}

static void the_map_decides(void **state)
{
	struct bench *bench = *state;
	struct image_writer *writer = NULL;
	struct image_reader *reader = NULL;
	struct image_stats stats;
	uint8_t data[3 * IMAGE_PAGE];
	page_places places = { 0 };
	uint32_t spaces = 0;
	size_t index;
	for (int i = 0; i < 3; i++)
		memset(data + i * IMAGE_PAGE, i + 1, IMAGE_PAGE);
	const struct page_batch batch = { .count = 1, .chunks = { { 0x5000, 3, data } } };
	assert_done(image_writer_new(bench->fd, &raw, NULL, NULL, &writer, &fault));
	record_write(writer, 1, (char *)"one", 1);
	assert_done(image_writer_pages(writer, &batch, &places, &fault));
	assert_int_equal(places.count, 1);
	const uint64_t block = places.at[0].block;
	vec_finish(&places);
	image_writer_places(writer, 3, &(struct page_place){ .address = 0x9000, .pages = 1, .block = block, .first = 2 }, 1);
	image_writer_places(writer, 1, &(struct page_place){ .address = 0x5000, .pages = 1, .block = block }, 1);
	assert_done(image_writer_finish(writer, &stats, &fault));
	image_writer_free(writer);
	assert_int_equal(stats.pages, 2);
	assert_int_equal(stats.stored, 3);
	assert_done(image_reader_open(bench->path, NULL, &reader, &fault));
	const struct page_taker taker = { one_page, &spaces };
	assert_done(image_reader_pages(reader, 0, bench->block, &taker, &fault));
	assert_int_equal(spaces, 1u << 1 | 1u << 3);
	assert_true(image_reader_find(reader, 3, 0x9000, &index));
	assert_false(image_reader_find(reader, 3, 0xa000, &index));
	assert_false(image_reader_find(reader, 1, 0x6000, &index));
	assert_false(image_reader_find(reader, 2, 0x9000, &index));
	image_reader_free(reader);
}

/* Contents that shrink in the first half of each chunk's pages and not in the other. */
static void half_write(struct image_writer *writer, uint64_t address, uint32_t chunks, uint32_t pages)
{
	struct page_batch batch = { .count = chunks };
	uint8_t *data = memory_new((size_t)chunks * pages * IMAGE_PAGE);
	page_places places = { 0 };
	uint64_t state = 1;
	for (uint32_t i = 0; i < chunks; i++) {
		uint64_t *words = (uint64_t *)(data + (size_t)i * pages * IMAGE_PAGE);
		batch.chunks[i] = (struct page_chunk){ address + (uint64_t)i * pages * IMAGE_PAGE, pages, words };
		for (size_t w = 0; w < (size_t)pages * IMAGE_PAGE / 8; w++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			words[w] = i % 2 ? state ^ state >> 31 : w / 16;
		}
	}
	assert_done(image_writer_pages(writer, &batch, &places, &fault));
	image_writer_places(writer, 1, places.at, places.count);
	vec_finish(&places);
	free(data);
}

static int sum_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	(void)fault;
	for (uint32_t c = 0; c < batch->count; c++)
		*(uint64_t *)context += XXH3_64bits_withSeed(batch->chunks[c].data, batch->chunks[c].pages * (size_t)IMAGE_PAGE,
							     batch->chunks[c].address);
	return 0;
}

static const struct image_key round_trip_key = { "any" };

static void round_trips(struct bench *bench, const struct image_key *secret)
{
	static const struct image_compression ways[] = { { CODEC_RAW, 0 }, { CODEC_LZ4, 0 }, { CODEC_ZSTD, 0 }, { CODEC_ZSTD, 9 } };
	uint64_t sums[4] = { 0 }, bytes[4];
	for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
		struct image_writer *writer = NULL;
		struct image_reader *reader = NULL;
		struct image_stats stats;
		const struct image_block *blocks;
		assert_int_equal(ftruncate(bench->fd, 0), 0);
		assert_int_equal(lseek(bench->fd, 0, SEEK_SET), 0);
		assert_done(image_writer_new(bench->fd, &ways[w], secret, NULL, &writer, &fault));
		record_write(writer, 1, (char *)"one", 1);
		half_write(writer, 0x100000, 126, 2);
		half_write(writer, 0x900000, 2, 128);
		half_write(writer, 0x1900000, 1, 1);
		half_write(writer, 0x2900000, 1, 256);
		assert_done(image_writer_finish(writer, &stats, &fault));
		image_writer_free(writer);
		bytes[w] = stats.bytes;
		assert_done(image_reader_open(bench->path, secret, &reader, &fault));
		const struct page_taker taker = { sum_batch, &sums[w] };
		for (size_t i = 0; i < image_reader_blocks(reader, &blocks); i++)
			assert_done(image_reader_pages(reader, i, bench->block, &taker, &fault));
		image_reader_free(reader);
		assert_int_equal(sums[w], sums[0]);
		assert_true(w == 0 || bytes[w] < bytes[0] * 3 / 5);
	}
}

static void compressed_round_trip(void **state)
{
	round_trips(*state, NULL);
}

static void encrypted_round_trip(void **state)
{
	round_trips(*state, &round_trip_key);
}

/* @pages pages whose contents are those of @seed on, at @address. */
static page_places repeat_write(struct image_writer *writer, uint64_t address, uint32_t seed, uint32_t pages, int changed, uint32_t space)
{
	page_places places = { 0 };
	_free_ uint8_t *data = memory_new((size_t)pages * IMAGE_PAGE);
	for (uint32_t p = 0; p < pages; p++)
		page_fill(data + (size_t)p * IMAGE_PAGE, 1, (uint64_t)(seed + p) * IMAGE_PAGE);
	if (changed >= 0)
		data[(size_t)changed * IMAGE_PAGE + 8]++; /* in no word that anchors are known by */
	const struct page_batch batch = { .count = 1, .chunks = { { address, pages, data } } };
	assert_done(image_writer_pages(writer, &batch, &places, &fault));
	image_writer_places(writer, space, places.at, places.count);
	uint32_t sum = 0;
	for (size_t i = 0; i < places.count; i++) {
		assert_int_equal(places.at[i].address, address + (uint64_t)sum * IMAGE_PAGE);
		sum += places.at[i].pages;
	}
	assert_int_equal(sum, pages);
	return places;
}

struct repeat_case {
	const char *what;
	uint64_t address;
	uint32_t seed, pages;
	int changed;
	uint32_t different; /* pages that are nowhere before */
};

static void word_sum(const uint8_t *page, uint64_t address, uint64_t *sum)
{
	for (size_t i = 0; i < IMAGE_PAGE; i += 8) {
		uint64_t word;
		memcpy(&word, page + i, sizeof word);
		*sum += (word | 1) * (address + i + 1);
	}
}

static int word_sum_batch(void *context, const struct page_batch *batch, struct fault *fault)
{
	(void)fault;
	for (uint32_t c = 0; c < batch->count; c++)
		for (uint32_t p = 0; p < batch->chunks[c].pages; p++)
			word_sum((const uint8_t *)batch->chunks[c].data + (size_t)p * IMAGE_PAGE, batch->chunks[c].address + (uint64_t)p * IMAGE_PAGE, context);
	return 0;
}

static void repeats_are_stored_once(struct bench *bench, const struct image_compression *way, const struct image_key *secret)
{
	static const struct repeat_case cases[] = {
		{ "the first", 0x1000000, 0, 256, -1, 256 },
		{ "a copy", 0x2000000, 0, 256, -1, 0 },
		{ "a part of it", 0x3000000, 100, 100, -1, 0 },
		{ "a copy and more", 0x4000000, 192, 256, -1, 192 },
		{ "what began elsewhere", 0x5000000, 300, 128, -1, 0 },
		{ "a copy with a changed page", 0x6000000, 0, 256, 128, 1 },
		{ "a short copy", 0x7000000, 0, 15, -1, 15 },
	};
	struct image_writer *writer = NULL;
	struct image_reader *reader = NULL;
	struct image_stats stats;
	uint64_t stored = 0, pages = 0, sum = 0, expected = 0;
	const struct image_block *blocks;
	const struct page_taker taker = { word_sum_batch, &sum };
	assert_int_equal(ftruncate(bench->fd, 0), 0);
	assert_done(image_writer_new(bench->fd, way, secret, NULL, &writer, &fault));
	record_write(writer, 1, (char *)"one", 1);
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		page_places places = repeat_write(writer, cases[c].address, cases[c].seed, cases[c].pages, cases[c].changed, 1);
		vec_finish(&places);
		stored += cases[c].different;
		pages += cases[c].pages;
		for (uint32_t p = 0; p < cases[c].pages; p++) {
			uint8_t page[IMAGE_PAGE];
			page_fill(page, 1, (uint64_t)(cases[c].seed + p) * IMAGE_PAGE);
			page[8] += cases[c].changed == (int)p;
			word_sum(page, cases[c].address + (uint64_t)p * IMAGE_PAGE, &expected);
		}
	}
	assert_done(image_writer_finish(writer, &stats, &fault));
	image_writer_free(writer);
	assert_int_equal(stats.pages, pages);
	/* Runs are found by anchors: some pages at their ends, before the first or behind the last, may be stored again. */
	if (stats.stored < stored || stats.stored > stored + 32)
		fail_msg("%llu pages are stored, %llu are different", (unsigned long long)stats.stored, (unsigned long long)stored);
	assert_done(image_reader_open(bench->path, secret, &reader, &fault));
	for (size_t i = 0; i < image_reader_blocks(reader, &blocks); i++)
		assert_done(image_reader_pages(reader, i, bench->block, &taker, &fault));
	image_reader_free(reader);
	assert_int_equal(sum, expected);
}

static void repeated_runs_are_stored_once(void **state)
{
	static const struct image_compression ways[] = { { CODEC_RAW, 0 }, { CODEC_LZ4, 0 }, { CODEC_ZSTD, 0 } };
	for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
		repeats_are_stored_once(*state, &ways[w], NULL);
		repeats_are_stored_once(*state, &ways[w], &round_trip_key);
	}
}

/* Who shares pages at the same address is the walker's to say; and what cannot be read back cannot be compared. */
static void others_are_stored_again(void **state)
{
	struct bench *bench = *state;
	for (int stream = 0; stream < 2; stream++) {
		struct image_writer *writer = NULL;
		struct image_stats stats;
		assert_int_equal(ftruncate(bench->fd, 0), 0);
		assert_int_equal(fcntl(bench->fd, F_SETFL, stream ? O_APPEND : 0), 0);
		assert_done(image_writer_new(bench->fd, &raw, NULL, NULL, &writer, &fault));
		record_write(writer, 1, (char *)"one", 1);
		for (int i = 0; i < 2; i++) {
			page_places places = repeat_write(writer, stream ? 0x100000u << i : 0x100000, 0, 64, -1, 1 + (uint32_t)i);
			vec_finish(&places);
		}
		assert_done(image_writer_finish(writer, &stats, &fault));
		image_writer_free(writer);
		assert_int_equal(stats.stored, 128);
	}
}

/* Many threads, each with copies of what all have. */
static void *repeating_thread_run(void *argument)
{
	struct writer_thread *self = argument;
	for (uint32_t i = 0; i < THREAD_BLOCKS; i++) {
		page_places places = repeat_write(self->writer, ((uint64_t)self->space << 32) + ((uint64_t)i << 24), i % 8 * 1000, 200, -1, self->space);
		vec_finish(&places);
	}
	return NULL;
}

static void repeats_of_many_threads(void **state)
{
	struct bench *bench = *state;
	struct image_writer *writer = NULL;
	struct image_reader *reader = NULL;
	struct image_stats stats;
	struct writer_thread threads[THREADS];
	const struct image_block *blocks;
	uint64_t sum = 0, expected = 0;
	const struct page_taker taker = { word_sum_batch, &sum };
	assert_done(image_writer_new(bench->fd, &(struct image_compression){ CODEC_LZ4, 0 }, NULL, NULL, &writer, &fault));
	record_write(writer, 1, (char *)"one", 1);
	for (uint32_t i = 0; i < THREADS; i++) {
		threads[i] = (struct writer_thread){ .writer = writer, .space = i + 1 };
		pthread_create(&threads[i].thread, NULL, repeating_thread_run, &threads[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i].thread, NULL);
	assert_done(image_writer_finish(writer, &stats, &fault));
	image_writer_free(writer);
	assert_int_equal(stats.pages, THREADS * THREAD_BLOCKS * 200);
	assert_in_range(stats.stored, 8 * 200, THREADS * 8 * 200 + 2000);
	assert_done(image_reader_open(bench->path, NULL, &reader, &fault));
	for (size_t i = 0; i < image_reader_blocks(reader, &blocks); i++)
		assert_done(image_reader_pages(reader, i, bench->block, &taker, &fault));
	image_reader_free(reader);
	for (uint32_t t = 1; t <= THREADS; t++)
		for (uint32_t i = 0; i < THREAD_BLOCKS; i++)
			for (uint32_t p = 0; p < 200; p++) {
				uint8_t page[IMAGE_PAGE];
				page_fill(page, 1, (uint64_t)(i % 8 * 1000 + p) * IMAGE_PAGE);
				word_sum(page, ((uint64_t)t << 32) + ((uint64_t)i << 24) + (uint64_t)p * IMAGE_PAGE, &expected);
			}
	assert_int_equal(sum, expected);
}

static void truncation_is_detected(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	small_write(bench->fd);
	fstat(bench->fd, &status);
	for (off_t size = status.st_size - 512; size > 0; size -= 512) {
		char words[80];
		assert_int_equal(ftruncate(bench->fd, size), 0);
		snprintf(words, sizeof words, "truncated at %lld", (long long)size);
		refusal_expect(bench, words);
	}
	assert_int_equal(ftruncate(bench->fd, 0), 0);
	refusal_expect(bench, "not a Cairn image");
}

/* The image was a stream, so that its header does not tell how long it should be. */
static void truncation_of_a_stream_is_detected(void **state)
{
	struct bench *bench = *state;
	assert_int_equal(fcntl(bench->fd, F_SETFL, O_APPEND), 0);
	truncation_is_detected(state);
}

static void growth_is_detected(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	small_write(bench->fd);
	fstat(bench->fd, &status);
	assert_int_equal(ftruncate(bench->fd, status.st_size + IMAGE_PAGE), 0);
	refusal_expect(bench, "4096 bytes follow its end");
}

static void every_bit_counts(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	small_write(bench->fd);
	fstat(bench->fd, &status);
	for (off_t at = 0; at < status.st_size; at++)
		for (int bit = 0; bit < 8; bit++) {
			uint8_t byte, flipped;
			struct fault fault = { 0 };
			assert_int_equal(pread(bench->fd, &byte, 1, at), 1);
			flipped = byte ^ (uint8_t)(1 << bit);
			assert_int_equal(pwrite(bench->fd, &flipped, 1, at), 1);
			if (read_all(bench, bench->path, &fault) != FAULT_IMAGE)
				fail_msg("bit %d of byte %lld does not matter: %s", bit, (long long)at, fault.text);
			assert_int_equal(pwrite(bench->fd, &byte, 1, at), 1);
		}
	small_expect(bench->path, bench->block);
}

/* Encrypted images: no byte may be changed by who does not have the key, whatever checksums he makes. */

static const struct image_key key = { "0123456789abcdef" }, other_key = { "0123456789abcdeg" };

/* Everything at @path is refused, for the key's sake or as damaged. */
static void forgery_expect(const struct bench *bench, const char *what, long long where)
{
	struct fault fault = { 0 };
	int class = read_all_keyed(bench, bench->path, &key, &fault);
	if (class != FAULT_IMAGE && class != FAULT_PERMISSION)
		fail_msg("%s 0x%llx does not matter: %s", what, where, fault.text);
}

/* As somebody would who knows the format and not the key. */
static void checksums_make(const struct bench *bench)
{
	struct layout_header header;
	struct layout_trailer trailer;
	struct stat status;
	fstat(bench->fd, &status);
	assert_int_equal(pread(bench->fd, &header, sizeof header, 0), sizeof header);
	assert_int_equal(pread(bench->fd, &trailer, sizeof trailer, status.st_size - IMAGE_PAGE), sizeof trailer);
	header.hash = layout_page_hash(&header);
	trailer.hash = layout_page_hash(&trailer);
	assert_int_equal(pwrite(bench->fd, &header, sizeof header, 0), sizeof header);
	assert_int_equal(pwrite(bench->fd, &trailer, sizeof trailer, status.st_size - IMAGE_PAGE), sizeof trailer);
}

static void encrypted_every_byte_counts(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	small_write_keyed(bench->fd, &key);
	fstat(bench->fd, &status);
	_free_ uint8_t *good = memory_new((size_t)status.st_size);
	assert_int_equal(pread(bench->fd, good, (size_t)status.st_size, 0), status.st_size);
	for (off_t at = 0; at < status.st_size; at++) {
		uint8_t flipped = good[at] ^ (uint8_t)(1 << at % 8);
		assert_int_equal(pwrite(bench->fd, &flipped, 1, at), 1);
		forgery_expect(bench, "a flipped bit at", at);
		/* The pages that have checksums, and all of those but the checksums themselves. */
		bool summed = at < IMAGE_PAGE || at >= status.st_size - IMAGE_PAGE;
		if (summed && at % IMAGE_PAGE < 4088) {
			checksums_make(bench);
			forgery_expect(bench, "a flipped bit, with right checksums, at", at);
			assert_int_equal(pwrite(bench->fd, good, IMAGE_PAGE, 0), IMAGE_PAGE);
			assert_int_equal(pwrite(bench->fd, good + status.st_size - IMAGE_PAGE, IMAGE_PAGE, status.st_size - IMAGE_PAGE), IMAGE_PAGE);
		}
		assert_int_equal(pwrite(bench->fd, &good[at], 1, at), 1);
	}
	small_expect_keyed(bench->path, &key, bench->block);
}

static void encrypted_truncation_is_detected(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	assert_int_equal(fcntl(bench->fd, F_SETFL, O_APPEND), 0); /* a stream: the header knows no length */
	small_write_keyed(bench->fd, &key);
	small_expect_keyed(bench->path, &key, bench->block);
	fstat(bench->fd, &status);
	_free_ uint8_t *good = memory_new((size_t)status.st_size);
	assert_int_equal(pread(bench->fd, good, (size_t)status.st_size, 0), status.st_size);
	for (off_t size = status.st_size - IMAGE_PAGE; size > 0; size -= IMAGE_PAGE) {
		struct layout_trailer trailer;
		assert_int_equal(ftruncate(bench->fd, size), 0);
		forgery_expect(bench, "cut at", size);
		if (size == status.st_size - IMAGE_PAGE)
			continue;
		/* With the trailer again, and one that says the new length. */
		memcpy(&trailer, good + status.st_size - IMAGE_PAGE, sizeof trailer);
		assert_int_equal(write(bench->fd, &trailer, sizeof trailer), sizeof trailer);
		forgery_expect(bench, "the trailer moved to", size);
		assert_int_equal(ftruncate(bench->fd, size), 0);
		trailer.file_length = (uint64_t)size + IMAGE_PAGE;
		trailer.hash = layout_page_hash(&trailer);
		assert_int_equal(write(bench->fd, &trailer, sizeof trailer), sizeof trailer);
		forgery_expect(bench, "the trailer changed, at", size);
	}
}

/* Page blocks of equal size of one image and another. */
static void encrypted_blocks_stay_where_they_are(void **state)
{
	struct bench *bench = *state, *other = NULL;
	enum { LENGTH = 3 * IMAGE_PAGE, FIRST = IMAGE_PAGE, SECOND = FIRST + LENGTH };
	uint8_t blocks[2][LENGTH], foreign[LENGTH];
	struct image_writer *writer = NULL;
	assert_int_equal(bench_new((void **)&other), 0);
	for (int i = 0; i < 2; i++) {
		assert_done(image_writer_new(i ? bench->fd : other->fd, &raw, &key, NULL, &writer, &fault));
		pages_write(writer, 7, 0x7000, 2, 1, IMAGE_PAGE);
		pages_write(writer, 7, 0x17000, 2, 1, IMAGE_PAGE);
		record_write(writer, 1, (char *)"first", 4121);
		assert_done(image_writer_finish(writer, NULL, &fault));
		image_writer_free(writer);
	}
	assert_int_equal(read_all_keyed(bench, bench->path, &key, &(struct fault){ 0 }), 0);
	assert_int_equal(pread(bench->fd, blocks, sizeof blocks, FIRST), sizeof blocks);
	assert_int_equal(pread(other->fd, foreign, sizeof foreign, FIRST), sizeof foreign);
	assert_int_equal(((struct layout_sealed *)foreign)->length, LENGTH);
	/* The same pages at the same place of two images are not the same bytes. */
	size_t same = 0;
	for (size_t i = 64; i < LENGTH; i++)
		same += foreign[i] == blocks[0][i];
	assert_true(same < LENGTH / 64);
	assert_int_equal(pwrite(bench->fd, foreign, LENGTH, FIRST), LENGTH);
	forgery_expect(bench, "a block of another image at", FIRST);
	for (int patched = 0; patched < 2; patched++) {
		((struct layout_sealed *)blocks[0])->offset = patched ? SECOND : FIRST;
		((struct layout_sealed *)blocks[1])->offset = patched ? FIRST : SECOND;
		assert_int_equal(pwrite(bench->fd, blocks[1], LENGTH, FIRST), LENGTH);
		assert_int_equal(pwrite(bench->fd, blocks[0], LENGTH, SECOND), LENGTH);
		forgery_expect(bench, "exchanged blocks at", FIRST);
	}
	bench_free((void **)&other);
}

static void keys_are_told_apart(void **state)
{
	struct bench *bench = *state;
	struct fault fault = { 0 };
	small_write_keyed(bench->fd, &key);
	assert_int_equal(read_all_keyed(bench, bench->path, &other_key, &fault), FAULT_PERMISSION);
	assert_int_equal(fault.error, EKEYREJECTED);
	assert_non_null(strstr(fault.text, "another key; try"));
	assert_int_equal(read_all_keyed(bench, bench->path, NULL, &fault), FAULT_PERMISSION);
	assert_int_equal(fault.error, ENOKEY);
	assert_non_null(strstr(fault.text, "--decrypt-key"));
	assert_int_equal(ftruncate(bench->fd, 0), 0);
	small_write(bench->fd);
	assert_int_equal(read_all_keyed(bench, bench->path, &key, &fault), FAULT_IMAGE);
	assert_non_null(strstr(fault.text, "is not encrypted"));
}

static void plain_images_say_nothing_of_encryption(void **state)
{
	struct bench *bench = *state;
	struct layout_header header;
	static const uint8_t zero[sizeof header.salt + sizeof header.key_check + sizeof header.mark];
	small_write(bench->fd);
	assert_int_equal(pread(bench->fd, &header, sizeof header, 0), sizeof header);
	assert_int_equal(header.incompatible, 0);
	assert_memory_equal(header.salt, zero, sizeof zero);
}

/* Hostile images: a field is changed and the checksum over it made again. */

static void header_change(const struct bench *bench, size_t offset, const void *value, size_t size)
{
	struct layout_header header;
	assert_int_equal(pread(bench->fd, &header, sizeof header, 0), sizeof header);
	memcpy((uint8_t *)&header + offset, value, size);
	header.hash = layout_page_hash(&header);
	assert_int_equal(pwrite(bench->fd, &header, sizeof header, 0), sizeof header);
}

static void newer_version_is_refused(void **state)
{
	struct bench *bench = *state;
	small_write(bench->fd);
	header_change(bench, offsetof(struct layout_header, version), &(uint32_t){ 7 }, 4);
	refusal_expect(bench, "format version 7 is newer than this Cairn (2); try a newer Cairn");
}

static void unknown_feature_is_refused(void **state)
{
	struct bench *bench = *state;
	small_write(bench->fd);
	header_change(bench, offsetof(struct layout_header, compatible), &(uint64_t){ 0xff }, 8);
	small_expect(bench->path, bench->block);
	header_change(bench, offsetof(struct layout_header, incompatible), &(uint64_t){ 0x40 }, 8);
	refusal_expect(bench, "uses features (0x40) that this Cairn does not know");
}

static void foreign_file_is_refused(void **state)
{
	struct bench *bench = *state;
	assert_int_equal(pwrite(bench->fd, "#!/bin/sh\n", 10, 0), 10);
	refusal_expect(bench, "not a Cairn image");
	assert_int_equal(ftruncate(bench->fd, 100000), 0);
	refusal_expect(bench, "not a Cairn image");
}

static void blocks_of_another_image_are_refused(void **state)
{
	struct bench *bench = *state;
	uint8_t block[IMAGE_PAGE];
	small_write(bench->fd);
	assert_int_equal(pread(bench->fd, block, sizeof block, IMAGE_PAGE), sizeof block);
	assert_int_equal(lseek(bench->fd, 0, SEEK_SET), 0);
	small_write(bench->fd);
	assert_int_equal(pwrite(bench->fd, block, sizeof block, IMAGE_PAGE), sizeof block);
	refusal_expect(bench, "checksum of block at 0x1000");
}

/* The whole small image in memory, changed in one place at a time. */
struct forgery {
	const struct bench *bench;
	uint8_t *bytes;
	size_t size;
	uint64_t seed;
};

/* Makes every checksum of the image anew and reads it; whatever comes out, it must not crash. */
static void block_seal(struct forgery *forgery, struct layout_block *block, size_t length)
{
	if (block->type != LAYOUT_PAGES)
		block->payload_hash = layout_payload_hash(block + 1, length - sizeof *block, forgery->seed);
	block->hash = layout_block_hash(block, forgery->seed);
}

static int forgery_read(struct forgery *forgery, const size_t *offsets, const size_t *lengths, int blocks,
			struct fault *fault)
{
	struct layout_header *header = (void *)forgery->bytes;
	struct layout_trailer *trailer = (void *)(forgery->bytes + forgery->size - IMAGE_PAGE);
	for (int i = 0; i < blocks; i++)
		block_seal(forgery, (void *)(forgery->bytes + offsets[i]), lengths[i]);
	header->hash = layout_page_hash(header);
	trailer->hash = layout_page_hash(trailer);
	assert_int_equal(pwrite(forgery->bench->fd, forgery->bytes, forgery->size, 0), (ssize_t)forgery->size);
	return read_all(forgery->bench, forgery->bench->path, fault);
}

/* In the small image: two page chunks at 0x1000, records at 0x4000, the map at 0x5000, index at 0x6000, trailer at 0x7000. */
static void hostile_numbers_are_refused(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	small_write(bench->fd);
	fstat(bench->fd, &status);
	assert_int_equal(status.st_size, 8 * IMAGE_PAGE);
	static const size_t offsets[] = { 0x1000, 0x4000, 0x5000, 0x6000 },
			    lengths[] = { 0x3000, 0x1000, 0x1000, 0x1000 };
	/* Where numbers are, that the reader uses. */
	static const struct {
		size_t from, to;
	} ranges[] = { { 0x1000, 0x1038 }, { 0x1040, 0x1080 }, { 0x4000, 0x4038 }, { 0x4040, 0x4048 },
		       { 0x5000, 0x5038 }, { 0x5040, 0x5080 }, { 0x6000, 0x6038 }, { 0x6040, 0x60a0 },
		       { 0x7018, 0x7050 } };
	static const uint64_t values[] = { 0, 1, 0xfff, 0x1000, 0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff,
					   0x7fffffffffffffff, 0xfffffffffffff000, UINT64_MAX };
	uint8_t *original = memory_new((size_t)status.st_size), *bytes = memory_new((size_t)status.st_size);
	assert_int_equal(pread(bench->fd, original, (size_t)status.st_size, 0), status.st_size);
	struct forgery forgery = { bench, bytes, (size_t)status.st_size,
				   layout_seed(((struct layout_header *)original)->id) };
	for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
		for (size_t at = ranges[r].from; at < ranges[r].to; at += 4)
			for (size_t v = 0; v < sizeof values / sizeof *values; v++)
				for (size_t width = 4; width <= 8; width += 4) {
					struct fault fault = { 0 };
					memcpy(bytes, original, forgery.size);
					memcpy(bytes + at, &values[v], width);
					int class = forgery_read(&forgery, offsets, lengths, 4, &fault);
					if (class && class != FAULT_IMAGE)
						fail_msg("0x%zx = 0x%llx: %s", at, (unsigned long long)values[v],
							 fault.text);
				}
	free(original);
	free(bytes);
}

static void writer_refuses_bad_batches(void **state)
{
	struct bench *bench = *state;
	struct image_writer *writer = NULL;
	struct page_batch batch = { .space = 1 };
	page_places places = { 0 };
	assert_done(image_writer_new(bench->fd, &raw, NULL, NULL, &writer, &fault));
	struct fault fault;
	assert_true(image_writer_pages(writer, &batch, &places, &fault) < 0);
	batch.count = 1;
	batch.chunks[0] = (struct page_chunk){ 0x1000, 0, bench->block };
	assert_true(image_writer_pages(writer, &batch, &places, &fault) < 0);
	batch.chunks[0] = (struct page_chunk){ 0x1000, IMAGE_BLOCK_PAGES + 1, bench->block };
	assert_true(image_writer_pages(writer, &batch, &places, &fault) < 0);
	image_writer_free(writer);
}

static void full_disk_is_a_fault(void **state)
{
	(void)state;
	struct image_writer *writer = NULL;
	struct fault fault = { 0 };
	_close_ int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(image_writer_new(fd, &raw, NULL, NULL, &writer, &fault), -ENOSPC);
	assert_int_equal(fault.class, FAULT_FAILED);
	assert_non_null(strstr(fault.text, "No space left on device; free some space"));
}

static void closed_pipe_is_a_fault(void **state)
{
	(void)state;
	struct image_writer *writer = NULL;
	struct fault fault = { 0 };
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	assert_int_equal(image_writer_new(ends[1], &raw, NULL, NULL, &writer, &fault), -EPIPE);
	assert_int_equal(fault.class, FAULT_FAILED);
	close(ends[1]);
}

/* The kernel sends SIGXFSZ, which would kill; the writer must make a fault of it. */
static void file_size_limit_is_a_fault(void **state)
{
	struct bench *bench = *state;
	struct image_writer *writer = NULL;
	struct rlimit old, low;
	assert_done(image_writer_new(bench->fd, &raw, NULL, NULL, &writer, &fault));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = (struct rlimit){ 3 * IMAGE_PAGE, old.rlim_max };
	struct page_batch batch = { .space = 1, .count = 1, .chunks = { { 0x1000, 16, bench->block } } };
	struct fault fault = { 0 };
	struct image_stats stats = { 0 };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	page_places block = { 0 };
	int rc = image_writer_pages(writer, &batch, &block, &fault);
	assert_int_equal(block.count, 0);
	vec_finish(&block);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(rc, -EFBIG);
	assert_non_null(strstr(fault.text, "ulimit -f"));
	/* A block is missing: there is no way back to a whole image. */
	assert_true(image_writer_finish(writer, &stats, &fault) < 0);
	assert_int_equal(stats.bytes, 0);
	image_writer_free(writer);
}

/* The file and its name, under a fresh directory. */

static char *directory_new(void)
{
	char *directory = memory_string("/tmp/cairn-test-XXXXXX");
	assert_non_null(mkdtemp(directory));
	return directory;
}

static void directory_free(char *directory)
{
	/* rmdir fails when something was left behind. */
	assert_int_equal(rmdir(directory), 0);
	free(directory);
}

static void name_appears_at_commit(void **state)
{
	struct bench *bench = *state;
	char *directory = directory_new();
	_free_ char *path = memory_format("%s/x.cairn", directory);
	for (int round = 0; round < 2; round++) { /* the second replaces the first */
		struct image_file *file = NULL;
		struct stat status;
		assert_done(image_file_create(path, &file, &fault));
		small_write(image_file_fd(file));
		assert_int_equal(access(path, F_OK), round ? 0 : -1);
		assert_done(image_file_commit(file, &fault));
		image_file_free(file);
		assert_int_equal(stat(path, &status), 0);
		assert_int_equal(status.st_mode & 07777, 0600);
		small_expect(path, bench->block);
	}
	assert_int_equal(unlink(path), 0);
	directory_free(directory);
}

static void nothing_remains_without_commit(void **state)
{
	(void)state;
	char *directory = directory_new();
	_free_ char *path = memory_format("%s/x.cairn", directory);
	struct image_file *file = NULL;
	assert_done(image_file_create(path, &file, &fault));
	small_write(image_file_fd(file));
	image_file_free(file);
	directory_free(directory);
}

static void create_expect(const char *path, const char *words)
{
	struct image_file *file = NULL;
	struct fault fault = { 0 };
	assert_true(image_file_create(path, &file, &fault) < 0);
	if (!strstr(fault.text, words) || !strstr(fault.text, "; "))
		fail_msg("expected '%s' and a remedy in: %s", words, fault.text);
}

static void unusable_targets_are_refused(void **state)
{
	(void)state;
	char *directory = directory_new();
	_free_ char *missing = memory_format("%s/no/x.cairn", directory);
	_free_ char *link = memory_format("%s/link", directory);
	_free_ char *fifo = memory_format("%s/fifo", directory);
	assert_int_equal(symlink("/dev/null", link), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	create_expect(missing, "No such file or directory; make the directory first");
	create_expect(directory, "is a directory");
	create_expect(link, "is a symbolic link");
	create_expect(fifo, "is a FIFO");
	create_expect("/dev/zero", "is not a regular file");
	create_expect("", "names no file");
	create_expect("/proc/x.cairn", "/proc/x.cairn: ");
	unlink(link);
	unlink(fifo);
	directory_free(directory);
}

static void null_device_takes_an_image(void **state)
{
	(void)state;
	struct image_file *file = NULL;
	assert_done(image_file_create("/dev/null", &file, &fault));
	small_write(image_file_fd(file));
	assert_done(image_file_commit(file, &fault));
	image_file_free(file);
}

static void missing_image_is_a_fault(void **state)
{
	struct bench *bench = *state;
	struct fault fault = { 0 };
	assert_int_equal(read_all(bench, "/tmp/there is no such image", &fault), FAULT_FAILED);
	assert_non_null(strstr(fault.text, "No such file or directory; try "));
	assert_int_equal(read_all(bench, "/tmp", &fault), FAULT_IMAGE);
	assert_int_equal(read_all(bench, "/dev/null", &fault), FAULT_IMAGE);
}

#define test(function) { #function, function, bench_new, bench_free, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(file_round_trip), test(pipe_round_trip), test(appended_file_is_written_in_order),
		test(threads_into_a_file), test(threads_into_a_stream), test(large_record), test(the_map_decides), test(compressed_round_trip),
		test(encrypted_round_trip), test(encrypted_threads), test(encrypted_every_byte_counts), test(encrypted_truncation_is_detected),
		test(encrypted_blocks_stay_where_they_are), test(keys_are_told_apart), test(plain_images_say_nothing_of_encryption),
		test(repeated_runs_are_stored_once), test(others_are_stored_again), test(repeats_of_many_threads),
		test(truncation_is_detected), test(truncation_of_a_stream_is_detected), test(growth_is_detected),
		test(every_bit_counts), test(newer_version_is_refused), test(unknown_feature_is_refused),
		test(foreign_file_is_refused), test(blocks_of_another_image_are_refused),
		test(hostile_numbers_are_refused), test(writer_refuses_bad_batches), test(full_disk_is_a_fault),
		test(closed_pipe_is_a_fault), test(file_size_limit_is_a_fault), test(name_appears_at_commit), test(nothing_remains_without_commit),
		test(unusable_targets_are_refused), test(null_device_takes_an_image), test(missing_image_is_a_fault),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
