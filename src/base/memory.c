/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *memory_or_die(void *memory)
{
	if (!memory) {
		fputs("cairn: out of memory\n", stderr);
		_Exit(1);
	}
	return memory;
}

void *memory_new(size_t size)
{
	return memory_or_die(calloc(1, size ? size : 1));
}

void *memory_resize(void *memory, size_t size)
{
	return memory_or_die(realloc(memory, size ? size : 1));
}

char *memory_string(const char *text)
{
	return memory_or_die(strdup(text));
}

char *memory_format(const char *format, ...)
{
	char *text = NULL;
	va_list args;
	va_start(args, format);
	int rc = vasprintf(&text, format, args);
	va_end(args);
	return memory_or_die(rc < 0 ? NULL : text);
}

void *memory_new_secret(size_t size)
{
	void *secret = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory_or_die(secret == MAP_FAILED ? NULL : secret);
	madvise(secret, size, MADV_DONTDUMP);
	if (mlock(secret, size) < 0) {
		/* Over the limit: then it may be swapped, as may the memory that it is to keep secret. */
	}
	return secret;
}

void memory_free_secret(void *secret, size_t size)
{
	if (!secret)
		return;
	explicit_bzero(secret, size);
	munmap(secret, size);
}

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	alignas(max_align_t) unsigned char bytes[];
};

enum { ARENA_BLOCK_SIZE = 64 * 1024 };

void *arena_new(struct arena *arena, size_t size)
{
	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	struct arena_block *block = arena->blocks;
	if (!block || block->size - block->used < size) {
		size_t space = size > ARENA_BLOCK_SIZE ? size : ARENA_BLOCK_SIZE;
		block = memory_new(sizeof *block + space);
		block->size = space;
		block->next = arena->blocks;
		arena->blocks = block;
	}
	void *memory = block->bytes + block->used;
	block->used += size;
	return memory;
}

void *arena_copy(struct arena *arena, const void *data, size_t size)
{
	void *copy = arena_new(arena, size ? size : 1);
	if (size)
		memcpy(copy, data, size);
	return copy;
}

char *arena_string(struct arena *arena, const char *text)
{
	return arena_copy(arena, text, strlen(text) + 1);
}

char *arena_format(struct arena *arena, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	va_list again;
	va_copy(again, args);
	int length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	char *text = arena_new(arena, (size_t)(length < 0 ? 0 : length) + 1);
	if (length > 0)
		vsnprintf(text, (size_t)length + 1, format, again);
	va_end(again);
	return text;
}

void arena_join(struct arena *arena, struct arena *other)
{
	struct arena_block **end = &arena->blocks;
	while (*end)
		end = &(*end)->next;
	*end = other->blocks;
	other->blocks = NULL;
}

void arena_finish(struct arena *arena)
{
	if (!arena)
		return;
	for (struct arena_block *block = arena->blocks, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	arena->blocks = NULL;
}

void *vec_add_raw(void **at, size_t *count, size_t *space, size_t size)
{
	if (*count == *space) {
		*space = *space ? 2 * *space : 8;
		*at = memory_resize(*at, *space * size);
	}
	void *element = (char *)*at + *count * size;
	memset(element, 0, size);
	++*count;
	return element;
}

void vec_finish_raw(void **at, size_t *count, size_t *space)
{
	free(*at);
	*at = NULL;
	*count = *space = 0;
}

void memory_free_scoped(void *pointer_to_pointer)
{
	free(*(void **)pointer_to_pointer);
}

void memory_hex(const uint8_t *bytes, size_t size, char *ret_text)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < size; i++) {
		ret_text[2 * i] = digits[bytes[i] >> 4];
		ret_text[2 * i + 1] = digits[bytes[i] & 15];
	}
	ret_text[2 * size] = 0;
}
