/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the calls of cairn.h share: the bound of an operation, and faults as lines. */
#include "base/clock.h"
#include "base/fault.h"
#include "cairn.h"

struct deadline operation_deadline(double timeout_s, int signal_fd);
unsigned operation_threads(unsigned wanted);
/* The refusals, or the fault when there are none, become the error's lines; the status is the first one's. */
enum cairn_status operation_failed(const struct fault_list *refusals, const struct fault *fault, const char *where,
				   struct cairn_error *error);
