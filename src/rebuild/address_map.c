/* SPDX-License-Identifier: Apache-2.0 */
/* --map-address: addresses of sockets that this host has not. Ports stay. */
#include "rebuild/address_map.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

struct address_map {
	int family;
	struct in6_addr old_ip, new_ip; /* IPv4 in the last word */
	size_t uses;
};

static int parse(const char *word, struct address_map *ret_map, struct fault *fault)
{
	_free_ char *old_text = memory_string(word);
	char *equals = strchr(old_text, '=');
	*ret_map = (struct address_map){ .family = strchr(word, ':') ? AF_INET6 : AF_INET };
	if (equals)
		*equals = 0;
	size_t skip = ret_map->family == AF_INET ? 12 : 0;
	if (equals && inet_pton(ret_map->family, old_text, ret_map->old_ip.s6_addr + skip) == 1 &&
	    inet_pton(ret_map->family, equals + 1, ret_map->new_ip.s6_addr + skip) == 1)
		return 0;
	return fault_set(fault, FAULT_USAGE, EINVAL, "--map-address %s: is not OLD=NEW with two addresses of one family; try "
			 "--map-address 192.0.2.1=192.0.2.2", word);
}

/* A struct sockaddr_in or _in6, in which an address of IPv4 may be mapped. */
static void apply(ProtobufCBinaryData *bytes, struct address_map *map)
{
	struct sockaddr_in four;
	struct sockaddr_in6 six;
	if (bytes->len == sizeof four && map->family == AF_INET) {
		memcpy(&four, bytes->data, sizeof four);
		if (four.sin_addr.s_addr != map->old_ip.s6_addr32[3])
			return;
		four.sin_addr.s_addr = map->new_ip.s6_addr32[3];
		memcpy(bytes->data, &four, sizeof four);
		map->uses++;
	} else if (bytes->len == sizeof six) {
		memcpy(&six, bytes->data, sizeof six);
		bool is_mapped = IN6_IS_ADDR_V4MAPPED(&six.sin6_addr);
		if (map->family == AF_INET && is_mapped && six.sin6_addr.s6_addr32[3] == map->old_ip.s6_addr32[3])
			six.sin6_addr.s6_addr32[3] = map->new_ip.s6_addr32[3];
		else if (map->family == AF_INET6 && IN6_ARE_ADDR_EQUAL(&six.sin6_addr, &map->old_ip))
			six.sin6_addr = map->new_ip;
		else
			return;
		memcpy(bytes->data, &six, sizeof six);
		map->uses++;
	}
}

/* The first that fits, so that two addresses can change places. */
static void apply_first(ProtobufCBinaryData *bytes, struct address_map *maps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t before = maps[i].uses;
		apply(bytes, &maps[i]);
		if (maps[i].uses != before)
			return;
	}
}

int plan_map_addresses(struct plan *plan, const char *const *words, size_t count, struct fault *fault)
{
	_free_ struct address_map *maps = memory_new((count + 1) * sizeof *maps);
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = parse(words[i], &maps[i], fault);
	for (size_t r = 0; rc == 0 && count && r < plan->records.count; r++) {
		const struct plan_record *record = &plan->records.at[r];
		for (size_t f = 0; record->kind->address_fields && record->kind->address_fields[f]; f++) {
			const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
				record->kind->descriptor, record->kind->address_fields[f]);
			apply_first((ProtobufCBinaryData *)(void *)((char *)record->message + field->offset), maps, count);
		}
	}
	for (size_t i = 0; rc == 0 && i < count; i++)
		if (!maps[i].uses)
			log_warn("holds no socket with the old address of --map-address %s; continuing without it", words[i]);
	return rc;
}
