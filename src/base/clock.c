/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t deadline_left_ns(const struct deadline *deadline)
{
	if (!deadline->at_ns)
		return UINT64_MAX;
	uint64_t now = clock_now_ns();
	return now < deadline->at_ns ? deadline->at_ns - now : 0;
}

int deadline_check(const struct deadline *deadline, struct fault *fault)
{
	if (deadline->signal_fd >= 0) {
		struct pollfd pollfd = { .fd = deadline->signal_fd, .events = POLLIN };
		if (poll(&pollfd, 1, 0) == 1)
			return fault_set(fault, FAULT_FAILED, EINTR, "interrupted by a signal; rolled back");
	}
	if (deadline->principal && getppid() != deadline->principal)
		return fault_set(fault, FAULT_FAILED, EINTR, "Cairn was killed; rolled back");
	if (!deadline_left_ns(deadline))
		return fault_set(fault, FAULT_TIMEOUT, ETIMEDOUT,
				 "out of time; rolled back; try a longer --timeout");
	return 0;
}

void clock_sleep_ns(uint64_t ns)
{
	struct timespec time = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	nanosleep(&time, NULL);
}
