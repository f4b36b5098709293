/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A bar on stderr for what takes its time. It appears after a third of a second (at once, if it is always wanted) and is gone at the end. */
#include <stdbool.h>
#include <stdint.h>

#include "cmd/cmd.h"

struct bar {
	const char *what;
	bool wanted, at_once, drawn;
	uint64_t begin_ns, last_ns;
};
struct bar bar_begin(const struct cmd_common *common, const char *what);
/* @bar: a struct bar. */
void bar_show(void *bar, uint64_t done, uint64_t total);
void bar_end(struct bar *bar);
