/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Addresses of IPv4 and IPv6, alike. */
#include <netinet/in.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/memory.h"

struct inet_address {
	int family;         /* of the host's address: a mapped one is AF_INET */
	struct in6_addr ip; /* IPv4 as mapped */
	uint16_t port;      /* host order */
	uint32_t scope;
};
enum { ADDRESS_TEXT = 80 };

/* false: it is no such address. */
bool address_parse(const void *bytes, size_t size, struct inet_address *ret_address);
/* In a record: empty, or of a socket of @domain. */
bool address_is_good(const ProtobufCBinaryData *bytes, uint32_t domain);
bool address_same(const struct inet_address *a, const struct inet_address *b); /* but for the scope */
int address_compare(const struct inet_address *a, const struct inet_address *b);
bool address_is_any(const struct inet_address *address);
/* "127.0.0.1:80", "[::1]:80" */
const char *address_text(const struct inet_address *address, char text[ADDRESS_TEXT]);
const char *address_host(const struct inet_address *address, char text[ADDRESS_TEXT]);
/* As bytes in the arena, what getsockname or getpeername said; empty when there is none, or it is bound to nothing. */
ProtobufCBinaryData address_keep(struct arena *arena, const struct sockaddr_storage *address, socklen_t size);
ProtobufCBinaryData address_own(struct arena *arena, int fd);
ProtobufCBinaryData address_peer(struct arena *arena, int fd);
