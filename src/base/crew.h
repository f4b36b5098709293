/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Many small pieces of work, none of which needs another, shared among as many threads as there are processors. */
#include <stddef.h>

/* Calls @work for every item below @count, and returns when all are done; @worker is below CREW_MOST, and no two calls at the same time have
 * the same. @grain: how many items are about 200 us of work; a worker takes as many at once, and what one has done soon is done by the caller alone. */
enum { CREW_MOST = 16, CREW_FILES = 32 /* grain of a few questions about a file */ };
void crew_run(size_t count, size_t grain, void (*work)(void *context, unsigned worker, size_t item), void *context);
