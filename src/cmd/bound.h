/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* --timeout where Cairn itself is held, in a look at a file whose file system does not answer, say: no call of its own would ever return. So it works in a
 * child, which may be killed at any moment (nothing is harmed by that), and somebody is there who says what happened. */
#include "cmd/cmd.h"

/* Returns in the child, or in this process if there is no timeout or no child to be had. The parent ends with the child's exit status; or, some
 * seconds after the timeout, kills it and ends with that of a timeout, or, if something new has come to lie at @output by then, of a failure that says so. */
void cmd_bound(const struct cmd_common *common, const char *output);
