/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The descriptors of the tree, and the open file descriptions behind them. */
#include "kinds/kind.h"

/* Adds the descriptors of all processes, and the open file descriptions behind them, each once; of a frozen tree also those that are in
 * flight in its sockets. */
int files_read(struct harvest *harvest, struct fault *fault);
/* Of a running tree, whose descriptors change while it is looked at: is this one what it was? */
enum file_change { FILE_SAME, FILE_TOUCHED, FILE_ANOTHER };
enum file_change files_look_again(const struct frozen_file *seen);
