/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/forge.h"

#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

enum { PAYLOAD_MOST = 65535 - 60, TIME_TO_LIVE = 64 };

static uint32_t add(uint32_t sum, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	for (size_t i = 0; i < size; i++)
		sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1071 over the pseudo-header and the segment. */
static uint16_t checksum(const struct inet_address *from, const struct inet_address *to, int protocol, const void *segment, size_t size)
{
	size_t skip = from->family == AF_INET ? 12 : 0;
	uint32_t sum = add(0, from->ip.s6_addr + skip, 16 - skip);
	sum = add(sum, to->ip.s6_addr + skip, 16 - skip);
	sum += (uint32_t)protocol + (uint32_t)size;
	sum = add(sum, segment, size);
	uint16_t result = (uint16_t)~sum;
	return htons(result ? result : 0xffff);
}

static size_t put_header(uint8_t *packet, const struct inet_address *from, const struct inet_address *to, int protocol, size_t size)
{
	if (from->family == AF_INET) {
		struct iphdr header = { .version = 4, .ihl = 5, .tot_len = htons((uint16_t)(size + sizeof header)), .ttl = TIME_TO_LIVE,
					.protocol = (uint8_t)protocol, .saddr = from->ip.s6_addr32[3], .daddr = to->ip.s6_addr32[3] };
		memcpy(packet, &header, sizeof header); /* the kernel adds its checksum */
		return sizeof header;
	}
	struct ip6_hdr header = { .ip6_src = from->ip, .ip6_dst = to->ip };
	header.ip6_flow = htonl(6u << 28);
	header.ip6_plen = htons((uint16_t)size);
	header.ip6_nxt = (uint8_t)protocol;
	header.ip6_hlim = TIME_TO_LIVE;
	memcpy(packet, &header, sizeof header);
	return sizeof header;
}

static int send_packet(const struct inet_address *to, const uint8_t *packet, size_t size)
{
	_close_ int fd = socket(to->family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = to->ip.s6_addr32[3] };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = to->ip, .sin6_scope_id = to->scope };
	if (fd < 0)
		return -errno;
	ssize_t sent = to->family == AF_INET ? sendto(fd, packet, size, 0, (struct sockaddr *)&four, sizeof four) :
					       sendto(fd, packet, size, 0, (struct sockaddr *)&six, sizeof six);
	return sent < 0 ? -errno : 0;
}

int forge_fin(const struct inet_address *from, const struct inet_address *to, uint32_t sequence, uint32_t acknowledged,
	      uint16_t window)
{
	uint8_t packet[sizeof(struct ip6_hdr) + sizeof(struct tcphdr)];
	struct tcphdr segment = { .source = htons(from->port), .dest = htons(to->port), .seq = htonl(sequence),
				  .ack_seq = htonl(acknowledged), .doff = 5, .fin = 1, .ack = 1, .window = htons(window) };
	segment.check = checksum(from, to, IPPROTO_TCP, &segment, sizeof segment);
	size_t size = put_header(packet, from, to, IPPROTO_TCP, sizeof segment);
	memcpy(packet + size, &segment, sizeof segment);
	return send_packet(to, packet, size + sizeof segment);
}

int forge_datagram(int protocol, const struct inet_address *from, const struct inet_address *to, const void *data, size_t size)
{
	struct udphdr header = { .source = htons(from->port), .dest = htons(to->port),
				 .len = htons((uint16_t)(size + sizeof header)) };
	if (size > PAYLOAD_MOST)
		return -EMSGSIZE;
	uint8_t *packet = memory_new(sizeof(struct ip6_hdr) + sizeof header + size), *segment;
	size_t before = put_header(packet, from, to, protocol, size + sizeof header);
	segment = packet + before;
	memcpy(segment, &header, sizeof header);
	if (size) /* an empty datagram has no data, not even an address */
		memcpy(segment + sizeof header, data, size);
	header.check = checksum(from, to, protocol, segment, size + sizeof header);
	memcpy(segment, &header, sizeof header);
	int rc = send_packet(to, packet, before + sizeof header + size);
	free(packet);
	return rc;
}
