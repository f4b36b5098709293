/* SPDX-License-Identifier: Apache-2.0 */
#include "image/codec.h"

#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/memory.h"

/* A seventh more speed (0.85 GB a second and processor for 0.73) for 0.54 of the size of memory such as interpreters have instead of 0.48; of a heap of Python's own
 * objects 0.215 instead of 0.212. 16 would be 0.98 GB/s and 0.59. */
enum { LZ4_HASTE = 8 };

void codec_pool_init(struct codec_pool *pool)
{
	pthread_mutex_init(&pool->lock, NULL);
	pool->idle = NULL;
}

void codec_pool_finish(struct codec_pool *pool)
{
	while (pool->idle) {
		struct codec_bench *bench = pool->idle;
		pool->idle = bench->next;
		ZSTD_freeCCtx(bench->zstd);
		free(bench->buffer);
		free(bench->sealed);
		free(bench);
	}
	pthread_mutex_destroy(&pool->lock);
}

struct codec_bench *codec_take(struct codec_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	struct codec_bench *bench = pool->idle;
	if (bench)
		pool->idle = bench->next;
	pthread_mutex_unlock(&pool->lock);
	if (bench)
		return bench;
	bench = memory_new(sizeof *bench);
	bench->buffer = memory_resize(NULL, CODEC_BUFFER);
	return bench;
}

void codec_put(struct codec_pool *pool, struct codec_bench *bench)
{
	pthread_mutex_lock(&pool->lock);
	bench->next = pool->idle;
	pool->idle = bench;
	pthread_mutex_unlock(&pool->lock);
}

static size_t compress_zstd(struct codec_bench *bench, int level, const void *from, size_t size, void *to, size_t space)
{
	if (!bench->zstd)
		bench->zstd = ZSTD_createCCtx();
	if (!bench->zstd)
		return 0;
	size_t n = ZSTD_compressCCtx(bench->zstd, to, space, from, size, level ? level : 1);
	return ZSTD_isError(n) ? 0 : n;
}

/* Worth it? A sample tells soon that random contents will not shrink. */
static bool is_compressible(const char *from, size_t size)
{
	enum { SAMPLE = 4096 };
	char out[LZ4_COMPRESSBOUND(SAMPLE)];
	if (size < 8 * SAMPLE)
		return true;
	for (size_t i = 0; i < 4; i++) {
		size_t at = size / 4 * i & ~(size_t)(SAMPLE - 1);
		int n = LZ4_compress_fast(from + at, out, SAMPLE, sizeof out, 4);
		if (n > 0 && n < SAMPLE - SAMPLE / 16)
			return true;
	}
	return false;
}

size_t codec_compress(struct codec_bench *bench, const struct image_compression *compression, const void *from,
		      size_t size, void *to, size_t space)
{
	size_t n = 0;
	if (compression->codec == CODEC_RAW || !is_compressible(from, size))
		return 0;
	if (compression->codec == CODEC_LZ4) {
		int written = LZ4_compress_fast(from, to, (int)size, (int)space, LZ4_HASTE);
		n = written > 0 ? (size_t)written : 0;
	} else {
		n = compress_zstd(bench, compression->level, from, size, to, space);
	}
	return n < size - size / 8 ? n : 0;
}

bool codec_decompress(enum image_codec codec, const void *from, size_t stored, void *to, size_t size)
{
	switch (codec) {
	case CODEC_LZ4:
		return LZ4_decompress_safe(from, to, (int)stored, (int)size) == (int)size;
	case CODEC_ZSTD: /* without a dictionary the context is small and its making is not what costs */
		return ZSTD_decompress(to, size, from, stored) == size;
	default:
		return false;
	}
}
