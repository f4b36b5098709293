/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Hands write tracking (base/tracking.h) from one process of Cairn's to another, through a SOCK_SEQPACKET socket: packets
 * {"spaces": [[PID, START, IMAGE], ...]} with the descriptors. */
#include <jansson.h>
#include <stdbool.h>

#include "base/tracking.h"

/* Sends it, with the descriptors (which stay the caller's) or without. -errno. */
int handover_send(int socket, const struct tracking *tracking, bool with_descriptors);
/* Adds what one packet holds: 1; 0: the other side is gone; -errno (-EAGAIN with @flags MSG_DONTWAIT). A packet that says something else is in
 * *ret_other (NULL else), the caller's. */
int handover_receive(int socket, int flags, struct tracking *tracking, json_t **ret_other);
