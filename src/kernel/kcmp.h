/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Identity of kernel objects by kcmp(2). */
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"

enum kcmp_what { SAME_FILE, SAME_VM, SAME_FILES, SAME_FS, SAME_SIGHAND, SAME_IO, SAME_SYSVSEM };

/* A total order: 0 same object, -1 before, 1 after (kcmp returns 1 and 2 for less and greater); -2 with a fault otherwise. @index_a and @index_b
 * are descriptors for SAME_FILE, else 0. */
int kcmp_order(enum kcmp_what what, pid_t a, int index_a, pid_t b, int index_b, struct fault *fault);
/* 1 when entry (@watched_fd, n-th with this number: @nth) of epoll descriptor @epoll_fd of @epoll_pid is the same
 * open file as @fd of @pid, 0 when not, negative errno otherwise (KCMP_EPOLL_TFD). */
int kcmp_epoll_target(pid_t pid, int fd, pid_t epoll_pid, int epoll_fd, int watched_fd, int nth);
