/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Descriptors of Cairn's own: scope cleanup and complete reads and writes. All are O_CLOEXEC. */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

void fd_close_scoped(int *fd); /* closes when >= 0; errno is kept */
#define _close_ __attribute__((cleanup(fd_close_scoped)))
int fd_steal(int *fd); /* hands the descriptor on: *fd becomes -1 */

/* All of @size or a negative errno; short files give -ENODATA. */
int fd_read_full(int fd, void *data, size_t size);
int fd_pread_full(int fd, void *data, size_t size, uint64_t offset);
int fd_write_full(int fd, const void *data, size_t size);
int fd_pwrite_full(int fd, const void *data, size_t size, uint64_t offset);
