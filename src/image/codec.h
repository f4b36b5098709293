/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Compression of single chunks. A codec that keeps state (zstd) takes it from a pool, so that threads reuse and never share it; so do buffers. */
#include <pthread.h>

#include "image/image.h"

/* What one thread needs to compress a block: buffer is large enough for all its chunks, whatever they hold; and to encrypt it. */
struct codec_bench {
	struct codec_bench *next;
	void *zstd;      /* ZSTD_CCtx, ZSTD_DCtx */
	uint8_t *buffer;
	uint8_t *sealed; /* CODEC_BLOCK bytes, NULL: not needed yet */
};
struct codec_pool {
	pthread_mutex_t lock;
	struct codec_bench *idle;
};
void codec_pool_init(struct codec_pool *pool);
void codec_pool_finish(struct codec_pool *pool);
struct codec_bench *codec_take(struct codec_pool *pool);
void codec_put(struct codec_pool *pool, struct codec_bench *bench);

enum {
	CODEC_MARGIN = IMAGE_BLOCK_PAGES * 32 + 1024, /* what a codec may need beyond the bytes it is given, over all chunks of a block */
	CODEC_BUFFER = IMAGE_BLOCK_PAGES * IMAGE_PAGE + CODEC_MARGIN,
	CODEC_BLOCK = (IMAGE_BLOCK_PAGES + 1) * IMAGE_PAGE, /* a page block, at most */
};

/* Compresses @size bytes into @to, which has @space. Returns the compressed size, or 0: it did not get smaller by an eighth, store it raw. */
size_t codec_compress(struct codec_bench *bench, const struct image_compression *compression, const void *from,
		      size_t size, void *to, size_t space);
/* Decompresses exactly @size bytes into @to. Returns false when @from is no such thing. Any bytes may be given. */
bool codec_decompress(enum image_codec codec, const void *from, size_t stored, void *to, size_t size);
