/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The memory that a ring shares with its program: heads, tails, completions, requests. Only rings with entries of the ordinary sizes, 64 and 16 bytes. */
#include "base/clock.h"
#include "base/fault.h"
#include "kernel/uring.h"

struct uring_memory {
	struct uring_layout layout;
	bool no_array; /* as far as can be told: one without (IORING_SETUP_NO_SQARRAY) may have got one that says that every request is at its own place, which is the same */
	size_t rings_size, entries_size;
	uint8_t *rings, *entries; /* on the heap */
};

/* Frozen. Reads the ring behind @own, whose descriptor is Cairn's copy; @like is an ordinary ring of Cairn's own that was made with @parameters, of the same size. */
int uring_memory_read(int own, int like, const struct io_uring_params *parameters, struct uring_memory *ret_memory, struct fault *fault);
void uring_memory_finish(struct uring_memory *memory);

/* Newborn. A new ring @fd, made with @parameters, is brought to where it was: the kernel's positions by empty requests, then memory. @memory as it is to be. */
int uring_memory_write(int fd, const struct io_uring_params *parameters, const struct uring_memory *memory, uint32_t taken, uint32_t posted,
		       const struct deadline *deadline, struct fault *fault);
