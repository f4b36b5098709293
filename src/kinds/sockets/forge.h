/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Packets as if they came from a peer that is not here: sent to this host through a raw socket (CAP_NET_RAW), where the kernel loops them back. */
#include "kinds/sockets/address.h"

/* A FIN of the peer's with @sequence, acknowledging @acknowledged, with the window that it gave. */
int forge_fin(const struct inet_address *from, const struct inet_address *to, uint32_t sequence, uint32_t acknowledged,
	      uint16_t window);
/* A datagram of UDP or UDP-Lite. */
int forge_datagram(int protocol, const struct inet_address *from, const struct inet_address *to, const void *data, size_t size);
