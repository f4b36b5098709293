/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Time that bounds an operation. */
#include <stdbool.h>
#include <stdint.h>

#include "base/fault.h"

uint64_t clock_now_ns(void); /* CLOCK_MONOTONIC */

/* A whole operation's bound, and the wish of its user to end it early. */
struct deadline {
	uint64_t at_ns; /* CLOCK_MONOTONIC; 0: none */
	int signal_fd;  /* signalfd of SIGINT, SIGTERM, SIGHUP, blocked in this thread; -1: none */
	int principal;  /* the process for which this one works, and whose end is the end of the operation; 0: none */
};
/* 0, or -ETIMEDOUT or -EINTR with a fault; called wherever an operation may wait or take long. */
int deadline_check(const struct deadline *deadline, struct fault *fault);
uint64_t deadline_left_ns(const struct deadline *deadline); /* UINT64_MAX: unbounded */
void clock_sleep_ns(uint64_t ns);
