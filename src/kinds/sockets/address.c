/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

bool address_parse(const void *bytes, size_t size, struct inet_address *ret_address)
{
	struct sockaddr_in four;
	struct sockaddr_in6 six;
	*ret_address = (struct inet_address){ 0 };
	if (size == sizeof four) {
		memcpy(&four, bytes, sizeof four);
		ret_address->family = AF_INET;
		ret_address->port = ntohs(four.sin_port);
		ret_address->ip.s6_addr16[5] = 0xffff;
		ret_address->ip.s6_addr32[3] = four.sin_addr.s_addr;
		return four.sin_family == AF_INET;
	}
	if (size != sizeof six)
		return false;
	memcpy(&six, bytes, sizeof six);
	ret_address->family = IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) ? AF_INET : AF_INET6;
	ret_address->port = ntohs(six.sin6_port);
	ret_address->ip = six.sin6_addr;
	ret_address->scope = six.sin6_scope_id;
	return six.sin6_family == AF_INET6;
}

bool address_is_good(const ProtobufCBinaryData *bytes, uint32_t domain)
{
	struct inet_address address;
	sa_family_t family = 0;
	if (!bytes->len)
		return true;
	memcpy(&family, bytes->data, bytes->len < sizeof family ? bytes->len : sizeof family);
	return address_parse(bytes->data, bytes->len, &address) && family == domain;
}

int address_compare(const struct inet_address *a, const struct inet_address *b)
{
	int order = memcmp(&a->ip, &b->ip, sizeof a->ip);
	return order ? order : (int)a->port - (int)b->port;
}

bool address_same(const struct inet_address *a, const struct inet_address *b)
{
	return address_compare(a, b) == 0;
}

bool address_is_any(const struct inet_address *address)
{
	return address->family == AF_INET ? address->ip.s6_addr32[3] == 0 : IN6_IS_ADDR_UNSPECIFIED(&address->ip);
}

const char *address_host(const struct inet_address *address, char text[ADDRESS_TEXT])
{
	if (address->family == AF_INET)
		inet_ntop(AF_INET, &address->ip.s6_addr32[3], text, ADDRESS_TEXT);
	else
		inet_ntop(AF_INET6, &address->ip, text, ADDRESS_TEXT);
	return text;
}

const char *address_text(const struct inet_address *address, char text[ADDRESS_TEXT])
{
	char host[ADDRESS_TEXT];
	address_host(address, host);
	snprintf(text, ADDRESS_TEXT, address->family == AF_INET ? "%.60s:%u" : "[%.60s]:%u", host, address->port);
	return text;
}

ProtobufCBinaryData address_keep(struct arena *arena, const struct sockaddr_storage *address, socklen_t size)
{
	struct inet_address parsed;
	if (!address_parse(address, size, &parsed) || (!parsed.port && address_is_any(&parsed)))
		return (ProtobufCBinaryData){ 0 };
	return (ProtobufCBinaryData){ size, arena_copy(arena, address, size) };
}

ProtobufCBinaryData address_own(struct arena *arena, int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	return getsockname(fd, (struct sockaddr *)&address, &size) < 0 ? (ProtobufCBinaryData){ 0 } :
									  address_keep(arena, &address, size);
}

ProtobufCBinaryData address_peer(struct arena *arena, int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	return getpeername(fd, (struct sockaddr *)&address, &size) < 0 ? (ProtobufCBinaryData){ 0 } :
									  address_keep(arena, &address, size);
}
