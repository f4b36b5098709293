/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of this folder share. */
#include <stdbool.h>

#include "base/bulletin.h"

/* This process's page, made when there is none; NULL: no memory. */
struct bulletin *inside_bulletin(void);
/* Blocks SIGURG, by which Cairn wakes, in this thread. */
void inside_listen(void *ret_mask); /* a sigset_t */
void inside_listen_no_more(const void *mask);
/* Until Cairn has word for this thread, or some time has passed. */
void inside_await(long milliseconds);
/* This call failed: sets errno, keeps the text for cairn_why, returns -1. */
__attribute__((format(printf, 2, 3))) int inside_failed(int error, const char *format, ...);
