/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Packets of connections that stand still between a save and a restore are dropped. */
#include "kinds/kind.h"
#include "kinds/sockets/address.h"

struct tcp_pair {
	struct inet_address local, remote;
};
/* By a table that dies with Cairn; at the end of the harvest it goes. */
int lock_hold(struct harvest *harvest, const struct tcp_pair *pairs, size_t count, struct fault *fault);
/* The same in a table of the image's, which stays until a restore, or `cairn check --repair`. */
int lock_keep(const char *image_id, const struct tcp_pair *pairs, size_t count, struct fault *fault);
/* Nothing when there is none. */
int lock_release(const char *image_id, struct fault *fault);

struct lock_list {
	VEC(char *) image_ids; /* heap */
};
/* The images whose tables are there. */
int lock_find(struct lock_list *ret_list, struct fault *fault);
void lock_list_finish(struct lock_list *list);
