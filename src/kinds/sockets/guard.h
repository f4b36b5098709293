/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A socket of a frozen program that is in repair mode would stay in it if Cairn died just then, and the program's connection with it. So
 * somebody else knows which ones are, shares Cairn's descriptors, and takes them out of it when Cairn is gone. */
#include "kinds/kind.h"

struct tcp_guard;

/* The harvest's; made with the first call, gone with the harvest. NULL: there is none to be had. */
struct tcp_guard *guard_get(struct harvest *harvest);
/* Before TCP_REPAIR is set on @fd, and after it was taken back; by any thread. @reuse: what SO_REUSEADDR was. Does nothing without a guard. */
void guard_watch(struct tcp_guard *guard, int fd, int reuse);
void guard_forget(struct tcp_guard *guard, int fd);
