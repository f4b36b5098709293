/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Many options of a socket by one system call: an io_uring takes getsockopt(2) since 6.7, but only of SOL_SOCKET (io_uring/uring_cmd.c
 * io_uring_cmd_getsockopt). A system call costs more than such an option does, much more on a virtual machine. */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { SOCKOPT_VALUE_MOST = 64, SOCKOPTS_AT_ONCE = 64 };
struct sockopt_question {
	int name;
	uint32_t size;  /* of the room that the kernel is told of */
	ssize_t answer; /* the value's size, or a negative errno */
	uint8_t value[SOCKOPT_VALUE_MOST];
};

/* NULL: not here. */
struct sockopt_ring *sockopt_ring_new(void);
void sockopt_ring_free(struct sockopt_ring *ring);
/* 0, or a negative errno: no answers. At most SOCKOPTS_AT_ONCE. */
int sockopt_ring_ask(struct sockopt_ring *ring, int fd, struct sockopt_question *questions, size_t count);
