/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Memory of a running program that an image still has: which addresses, and what address each had in the image. Follows what the
 * program does to its memory meanwhile. Pure. */
#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"

struct pending_part {
	uint64_t start, end; /* now, bytes */
	uint64_t old;        /* what was @start in the image */
};
struct pending {
	VEC(struct pending_part) parts; /* in no order, without overlaps in either address */
};

void pending_add(struct pending *pending, uint64_t start, uint64_t end, uint64_t old);
/* What is there is zeros from now on, or not there any more. */
void pending_remove(struct pending *pending, uint64_t start, uint64_t end);
/* mremap(2): what was pending at @from is so at @to, and what was at @to is gone. */
void pending_move(struct pending *pending, uint64_t from, uint64_t to, uint64_t size);
/* What @address was in the image; false: nothing is pending there. */
bool pending_old(const struct pending *pending, uint64_t address, uint64_t *ret_old);
void pending_copy(const struct pending *pending, struct pending *ret_copy);
