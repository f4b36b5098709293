/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Heap memory that cannot fail, an arena for everything that lives as long as one operation, and a
 * growing array. Running out of memory ends Cairn at once: that is safe at every moment, because a
 * frozen program walks home alone (tracee/remote.h) and a newborn dies with its tracer. */
#include <stddef.h>
#include <stdint.h>

void *memory_new(size_t size);                   /* zeroed */
void *memory_resize(void *memory, size_t size);  /* not zeroed beyond the old size */
char *memory_string(const char *text);           /* strdup */
__attribute__((format(printf, 1, 2))) char *memory_format(const char *format, ...);

/* An arena: what is in it is freed together and owns no descriptor. */
struct arena {
	struct arena_block *blocks;
};
void *arena_new(struct arena *arena, size_t size); /* zeroed, aligned for any type */
void *arena_copy(struct arena *arena, const void *data, size_t size);
char *arena_string(struct arena *arena, const char *text);
__attribute__((format(printf, 2, 3))) char *arena_format(struct arena *arena, const char *format, ...);
void arena_finish(struct arena *arena);
/* What is in @other lives as long as @arena now; @other is empty. */
void arena_join(struct arena *arena, struct arena *other);
#define ARENA_NEW(arena, type) ((type *)arena_new((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *)arena_new((arena), (size_t)(count) * sizeof(type)))

/* A growing array of any type: struct { VEC(struct vma) vmas; }. Init by zero, finish with vec_finish. */
#define VEC(type)                  \
	struct {                   \
		type *at;          \
		size_t count, space; \
	}
#define vec_finish(vec) vec_finish_raw((void **)&(vec)->at, &(vec)->count, &(vec)->space)
/* Pointer to a new zeroed last element. */
#define vec_add(vec) \
	((__typeof__((vec)->at))vec_add_raw((void **)&(vec)->at, &(vec)->count, &(vec)->space, sizeof *(vec)->at))
void *vec_add_raw(void **at, size_t *count, size_t *space, size_t size);
void vec_finish_raw(void **at, size_t *count, size_t *space);

/* For keys: zeroed pages, in no core dump, not swapped as far as RLIMIT_MEMLOCK allows (a child's copies may be, mlock(2)); wiped when they are given
 * back. */
void *memory_new_secret(size_t size);
void memory_free_secret(void *secret, size_t size); /* NULL too */

/* Hexadecimal digits of @size bytes, and a NUL: 2 * @size + 1. */
void memory_hex(const uint8_t *bytes, size_t size, char *ret_text);

/* Scope cleanup of a heap pointer. */
void memory_free_scoped(void *pointer_to_pointer);
#define _free_ __attribute__((cleanup(memory_free_scoped)))
