/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An io_uring as /proc/PID/fdinfo shows it (io_uring/fdinfo.c), and as its memory lies (struct io_rings and what follows it, io_uring/io_uring.c). */
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

struct fault;

/* Newer than the headers here (include/uapi/linux/io_uring.h of Linux 6.18). */
enum {
	URING_SETUP_NO_SQARRAY = 1 << 16,
	URING_SETUP_CQE_MIXED = 1 << 18,
	URING_REGISTER_PBUF_STATUS = 26,
	URING_REGISTER_NAPI = 27,
	URING_REGISTER_MEM_REGION = 34,
	URING_MOST_REQUESTS = 32768,
	URING_MOST_COMPLETIONS = 65536,
	URING_MOST_FILES = 1 << 20,
	URING_MOST_BUFFERS = 16384,
	URING_BUFFER_GROUPS = 65536,
};

struct uring_file {
	uint32_t slot;
	char *path; /* as the link of a descriptor says it */
};

struct uring_buffer {
	uint32_t slot, size;
	uint64_t address;
};

struct uring_info {
	bool complete; /* false: somebody had the ring locked, and the kernel showed only the common lines */
	uint32_t requests, completions; /* entries, powers of two */
	uint32_t taken;    /* requests that the kernel has taken, modulo 2^32 (CachedSqHead) */
	uint32_t posted;   /* completions that it has posted (CachedCqTail) */
	bool has_thread;   /* IORING_SETUP_SQPOLL */
	bool has_persons;  /* personalities; not shown since 6.16 */
	bool polls_busily; /* NAPI */
	uint32_t waiting;  /* requests that wait for a file to become ready, or for more to come of one that was */
	uint32_t overflown; /* completions for which there was no room */
	uint32_t file_slots, buffer_slots; /* 0: no table */
	VEC(struct uring_file) files;      /* those that are not empty */
	VEC(struct uring_buffer) buffers;
};

/* @text is cut into words; paths point into it. */
int uring_parse(char *text, struct uring_info *ret_info, struct fault *fault);
void uring_finish(struct uring_info *info);

/* Where what lies in the memory of a ring, in bytes: the offsets that the kernel gives at its making. */
enum uring_word { URING_SQ_HEAD, URING_SQ_TAIL, URING_SQ_DROPPED, URING_CQ_HEAD, URING_CQ_TAIL, URING_CQ_OVERFLOW, URING_WORDS };
struct uring_layout {
	uint32_t words[URING_WORDS], completions, array; /* array: of requests to take; as large as their number */
};
struct uring_layout uring_layout(const struct io_uring_params *parameters);
bool uring_layout_same(const struct uring_layout *a, const struct uring_layout *b);
uint32_t uring_word(const uint8_t *rings, const struct uring_layout *layout, enum uring_word word);

/* Makes a ring, which is closed by an exec. -errno. */
int uring_setup(uint32_t requests, struct io_uring_params *parameters);
/* io_uring_register(2): -errno. */
long uring_register(int fd, unsigned operation, const void *argument, unsigned count);
