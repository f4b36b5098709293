/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The way out of a job's own network namespace: pasta(1), which needs no privileges. */
#include <sys/types.h>

#include "base/fault.h"

/* Connects the network namespace of @init (which has a loopback already) with this one, until @init ends. A fault is no more than the lack of
 * a way out. */
int network_connect(pid_t init, struct fault *fault);
