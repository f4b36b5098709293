/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Who could have written a file, or have put another one in its place? */
#include "base/fault.h"

/* @fd is open for @path, and nothing was read from it. FAULT_PERMISSION when anybody but root could have decided what it is: by writing to it, or by
 * changing what its path means. The checks are of the file behind @fd; it must be the one that the path, walked through directories
 * that only root can change, leads to. */
int trust_check(const char *path, int fd, struct fault *fault);

/* Whoever may write to a file from which memory is mapped (--lazy=mapped) may write to that memory, as long as the program runs: FAULT_PERMISSION when that is
 * anybody but root and the caller. */
int trust_check_mapped(const char *path, int fd, struct fault *fault);
