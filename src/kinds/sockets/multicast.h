/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Multicast groups that a socket is in. The kernel tells no list, but answers for a group and an interface (MCAST_MSFILTER). */
#include "kinds/sockets/address.h"
#include "kinds/sockets/socket.h"

void multicast_capture(struct harvest *harvest, int domain, int own, Cairn__Membership ***ret_memberships, size_t *ret_count);
int multicast_check(Cairn__Membership *const *memberships, size_t count, int domain, struct fault *fault);
int multicast_join(int domain, int fd, Cairn__Membership *const *memberships, size_t count, struct fault *fault);
