/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the calls of cairn.h share: the bound of an operation, and faults as lines. */
#include "base/clock.h"
#include "base/fault.h"
#include "cairn.h"

struct deadline operation_deadline(double timeout_s, int signal_fd);
unsigned operation_threads(unsigned wanted);
/* While a program stands still, nothing that could run instead of Cairn should: the calling thread, and what it starts, gets the lowest
 * real-time priority where that is permitted (CAP_SYS_NICE). Beside busy threads, a fair share was seen to come after 40 s (6.18). */
struct urgency {
	int policy, priority; /* what it was */
	bool raised;
};
void urgency_raise(struct urgency *urgency);
void urgency_end(struct urgency *urgency);
/* The refusals, or the fault when there are none, become the error's lines; the status is the first one's. */
enum cairn_status operation_failed(const struct fault_list *refusals, const struct fault *fault, const char *where,
				   struct cairn_error *error);
