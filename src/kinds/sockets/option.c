/* SPDX-License-Identifier: Apache-2.0 */
/* The table of socket options, and the two loops over it. Only values that differ from a fresh socket's are kept: the others
 * are the host's own defaults. */
#include "kinds/sockets/option.h"

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/in6.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/crew.h"
#include "base/log.h"
#include "kernel/sockopts.h"

/* Newer than the headers here (include/uapi of Linux 6.18). */
enum {
	OPTION_SO_TIMESTAMP_NEW = 63, OPTION_SO_TIMESTAMPNS_NEW = 64, OPTION_SO_TIMESTAMPING_NEW = 65,
	OPTION_SO_TXREHASH = 74, OPTION_SO_RCVMARK = 75, OPTION_SO_PASSPIDFD = 76, OPTION_SO_RCVPRIORITY = 82,
	OPTION_SO_PASSRIGHTS = 83, OPTION_SO_RESERVE_MEM = 73, OPTION_SO_BUF_LOCK = 72,
	OPTION_IP_LOCAL_PORT_RANGE = 51, OPTION_IPV6_RECVERR_RFC4884 = 31, OPTION_IP_RECVERR_RFC4884 = 26,
	OPTION_IPV6_ROUTER_ALERT_ISOLATE = 30,
	OPTION_TCP_TX_DELAY = 37, OPTION_TCP_RTO_MAX_MS = 44, OPTION_TCP_RTO_MIN_US = 45, OPTION_TCP_DELACK_MAX_US = 46,
	OPTION_UDPLITE_SEND_CSCOV = 10, OPTION_UDPLITE_RECV_CSCOV = 11, OPTION_SOL_UDPLITE = 136, OPTION_SOL_RAW = 255,
	OPTION_SOL_ICMPV6 = 58, OPTION_PACKET_VNET_HDR_SZ = 24,
};

#define ANY(name, form, when) { SOL_SOCKET, name, 0, 0, 0, form, when, #name }
#define IP4(name, form, when) { IPPROTO_IP, name, 0, 0, 0, form, when, #name }
#define IP6(name, form, when) { IPPROTO_IPV6, name, 0, AF_INET6, 0, form, when, #name }
#define TCP(name, form, when) { IPPROTO_TCP, name, 0, 0, SOCK_STREAM, form, when, #name }
#define UDP(name, form, when) { IPPROTO_UDP, name, 0, 0, SOCK_DGRAM, form, when, #name }
#define INT OPTION_INT

/* In the order in which they are put back. */
const struct socket_option socket_options[] = {
	ANY(SO_REUSEADDR, INT, OPTION_FIRST),
	ANY(SO_REUSEPORT, INT, OPTION_FIRST),
	ANY(SO_BINDTODEVICE, OPTION_BYTES, OPTION_FIRST),
	ANY(SO_MARK, INT, OPTION_FIRST),
	ANY(SO_DEBUG, INT, OPTION_MADE),
	ANY(SO_DONTROUTE, INT, OPTION_MADE),
	ANY(SO_BROADCAST, INT, OPTION_MADE),
	ANY(SO_KEEPALIVE, INT, OPTION_MADE),
	ANY(SO_OOBINLINE, INT, OPTION_MADE),
	ANY(SO_NO_CHECK, INT, OPTION_MADE),
	ANY(SO_PRIORITY, INT, OPTION_LAST), /* after IP_TOS, which sets it */
	ANY(SO_LINGER, OPTION_FIELDS, OPTION_LAST),
	ANY(SO_PASSCRED, INT, OPTION_LAST), /* connect(2) and sendmsg(2) of one without a name would give it one */
	ANY(SO_PASSSEC, INT, OPTION_MADE),
	ANY(OPTION_SO_PASSPIDFD, INT, OPTION_LAST),
	ANY(OPTION_SO_PASSRIGHTS, INT, OPTION_LAST),
	ANY(SO_RCVLOWAT, INT, OPTION_LAST),
	ANY(SO_RCVTIMEO, OPTION_TIME, OPTION_LAST),
	ANY(SO_SNDTIMEO, OPTION_TIME, OPTION_LAST),
	ANY(SO_TIMESTAMP, INT, OPTION_MADE),
	ANY(SO_TIMESTAMPNS, INT, OPTION_MADE),
	ANY(SO_TIMESTAMPING, OPTION_FIELDS, OPTION_MADE), /* with the clock of SOF_TIMESTAMPING_BIND_PHC */
	/* With 64-bit times for 32-bit programs, which others may ask for too; after the old ones, which say the same of them. */
	ANY(OPTION_SO_TIMESTAMP_NEW, INT, OPTION_MADE),
	ANY(OPTION_SO_TIMESTAMPNS_NEW, INT, OPTION_MADE),
	ANY(OPTION_SO_TIMESTAMPING_NEW, OPTION_FIELDS, OPTION_MADE),
	ANY(SO_RXQ_OVFL, INT, OPTION_MADE),
	ANY(SO_WIFI_STATUS, INT, OPTION_MADE),
	ANY(SO_NOFCS, INT, OPTION_MADE),
	ANY(SO_SELECT_ERR_QUEUE, INT, OPTION_MADE),
	ANY(SO_BUSY_POLL, INT, OPTION_MADE),
	ANY(SO_PREFER_BUSY_POLL, INT, OPTION_MADE),
	ANY(SO_BUSY_POLL_BUDGET, INT, OPTION_MADE),
	ANY(SO_MAX_PACING_RATE, OPTION_BYTES, OPTION_MADE),
	ANY(SO_INCOMING_CPU, INT, OPTION_MADE),
	ANY(SO_ZEROCOPY, INT, OPTION_MADE),
	ANY(SO_TXTIME, OPTION_FIELDS, OPTION_MADE),
	ANY(OPTION_SO_TXREHASH, INT, OPTION_MADE),
	ANY(OPTION_SO_RCVMARK, INT, OPTION_MADE),
	ANY(OPTION_SO_RCVPRIORITY, INT, OPTION_MADE),
	ANY(OPTION_SO_RESERVE_MEM, INT, OPTION_MADE),

	IP4(IP_FREEBIND, INT, OPTION_FIRST),
	IP4(IP_TRANSPARENT, INT, OPTION_FIRST),
	IP4(IP_BIND_ADDRESS_NO_PORT, INT, OPTION_FIRST),
	IP4(OPTION_IP_LOCAL_PORT_RANGE, INT, OPTION_FIRST),
	IP4(IP_TOS, INT, OPTION_MADE),
	IP4(IP_TTL, INT, OPTION_MADE),
	{ IPPROTO_IP, IP_HDRINCL, 0, 0, SOCK_RAW, INT, OPTION_MADE, "IP_HDRINCL" },
	IP4(IP_OPTIONS, OPTION_BYTES, OPTION_MADE),
	IP4(IP_RECVOPTS, INT, OPTION_MADE),
	IP4(IP_RETOPTS, INT, OPTION_MADE),
	IP4(IP_PKTINFO, INT, OPTION_MADE),
	IP4(IP_MTU_DISCOVER, INT, OPTION_MADE),
	IP4(IP_RECVERR, INT, OPTION_MADE),
	IP4(OPTION_IP_RECVERR_RFC4884, INT, OPTION_MADE),
	IP4(IP_RECVTTL, INT, OPTION_MADE),
	IP4(IP_RECVTOS, INT, OPTION_MADE),
	IP4(IP_PASSSEC, INT, OPTION_MADE),
	IP4(IP_RECVORIGDSTADDR, INT, OPTION_MADE),
	IP4(IP_MINTTL, INT, OPTION_LAST),
	{ IPPROTO_IP, IP_NODEFRAG, 0, 0, SOCK_RAW, INT, OPTION_MADE, "IP_NODEFRAG" },
	IP4(IP_CHECKSUM, INT, OPTION_MADE),
	IP4(IP_RECVFRAGSIZE, INT, OPTION_MADE),
	IP4(IP_MULTICAST_IF, INT, OPTION_MADE),
	IP4(IP_MULTICAST_TTL, INT, OPTION_MADE),
	IP4(IP_MULTICAST_LOOP, INT, OPTION_MADE),
	IP4(IP_MULTICAST_ALL, INT, OPTION_MADE),
	IP4(IP_UNICAST_IF, INT, OPTION_MADE),

	IP6(IPV6_V6ONLY, INT, OPTION_FIRST),
	IP6(IPV6_FREEBIND, INT, OPTION_FIRST),
	IP6(IPV6_TRANSPARENT, INT, OPTION_FIRST),
	IP6(IPV6_2292PKTINFO, INT, OPTION_MADE),
	IP6(IPV6_2292HOPOPTS, INT, OPTION_MADE),
	IP6(IPV6_2292DSTOPTS, INT, OPTION_MADE),
	IP6(IPV6_2292RTHDR, INT, OPTION_MADE),
	IP6(IPV6_2292HOPLIMIT, INT, OPTION_MADE),
	IP6(IPV6_CHECKSUM, INT, OPTION_MADE),
	IP6(IPV6_UNICAST_HOPS, INT, OPTION_MADE),
	IP6(IPV6_MULTICAST_IF, INT, OPTION_MADE),
	IP6(IPV6_MULTICAST_HOPS, INT, OPTION_MADE),
	IP6(IPV6_MULTICAST_LOOP, INT, OPTION_MADE),
	IP6(IPV6_MULTICAST_ALL, INT, OPTION_MADE),
	IP6(IPV6_UNICAST_IF, INT, OPTION_MADE),
	IP6(IPV6_MTU_DISCOVER, INT, OPTION_MADE),
	IP6(IPV6_RECVERR, INT, OPTION_MADE),
	IP6(OPTION_IPV6_RECVERR_RFC4884, INT, OPTION_MADE),
	IP6(IPV6_AUTOFLOWLABEL, INT, OPTION_MADE),
	IP6(IPV6_HDRINCL, INT, OPTION_MADE),
	IP6(IPV6_RECVPKTINFO, INT, OPTION_MADE),
	IP6(IPV6_RECVHOPLIMIT, INT, OPTION_MADE),
	IP6(IPV6_RECVHOPOPTS, INT, OPTION_MADE),
	IP6(IPV6_HOPOPTS, OPTION_BYTES, OPTION_MADE),
	IP6(IPV6_RTHDRDSTOPTS, OPTION_BYTES, OPTION_MADE),
	IP6(IPV6_RECVRTHDR, INT, OPTION_MADE),
	IP6(IPV6_RTHDR, OPTION_BYTES, OPTION_MADE),
	IP6(IPV6_RECVDSTOPTS, INT, OPTION_MADE),
	IP6(IPV6_DSTOPTS, OPTION_BYTES, OPTION_MADE),
	IP6(IPV6_FLOWINFO, INT, OPTION_MADE),
	IP6(IPV6_FLOWINFO_SEND, INT, OPTION_MADE),
	{ IPPROTO_IPV6, OPTION_IPV6_ROUTER_ALERT_ISOLATE, 0, AF_INET6, SOCK_RAW, INT, OPTION_MADE, "IPV6_ROUTER_ALERT_ISOLATE" },
	IP6(IPV6_RECVPATHMTU, INT, OPTION_MADE),
	IP6(IPV6_DONTFRAG, INT, OPTION_MADE),
	IP6(IPV6_RECVTCLASS, INT, OPTION_MADE),
	IP6(IPV6_TCLASS, INT, OPTION_MADE),
	IP6(IPV6_ADDR_PREFERENCES, INT, OPTION_MADE),
	IP6(IPV6_MINHOPCOUNT, INT, OPTION_LAST),
	IP6(IPV6_RECVORIGDSTADDR, INT, OPTION_MADE),
	IP6(IPV6_RECVFRAGSIZE, INT, OPTION_MADE),
	{ OPTION_SOL_ICMPV6, 1, 0, AF_INET6, SOCK_RAW, OPTION_FIELDS, OPTION_MADE, "ICMPV6_FILTER" },
	{ OPTION_SOL_RAW, 1, 0, AF_INET, SOCK_RAW, OPTION_FIELDS, OPTION_MADE, "ICMP_FILTER" },

	TCP(TCP_MAXSEG, INT, OPTION_FIRST),
	TCP(TCP_CONGESTION, OPTION_BYTES, OPTION_FIRST),
	TCP(TCP_SAVE_SYN, INT, OPTION_FIRST),
	TCP(TCP_FASTOPEN_CONNECT, INT, OPTION_FIRST),
	TCP(TCP_FASTOPEN_NO_COOKIE, INT, OPTION_FIRST),
	TCP(TCP_FASTOPEN_KEY, OPTION_BYTES, OPTION_FIRST),
	TCP(TCP_DEFER_ACCEPT, INT, OPTION_MADE),
	TCP(TCP_FASTOPEN, INT, OPTION_MADE),
	TCP(TCP_WINDOW_CLAMP, INT, OPTION_MADE),
	TCP(TCP_NODELAY, INT, OPTION_LAST),
	TCP(TCP_KEEPIDLE, INT, OPTION_MADE),
	TCP(TCP_KEEPINTVL, INT, OPTION_MADE),
	TCP(TCP_KEEPCNT, INT, OPTION_MADE),
	TCP(TCP_SYNCNT, INT, OPTION_MADE),
	TCP(TCP_LINGER2, INT, OPTION_MADE),
	TCP(TCP_THIN_LINEAR_TIMEOUTS, INT, OPTION_MADE),
	TCP(TCP_USER_TIMEOUT, INT, OPTION_MADE),
	TCP(TCP_NOTSENT_LOWAT, INT, OPTION_MADE),
	TCP(TCP_INQ, INT, OPTION_MADE),
	TCP(OPTION_TCP_TX_DELAY, INT, OPTION_MADE),
	TCP(OPTION_TCP_RTO_MAX_MS, INT, OPTION_MADE),
	TCP(OPTION_TCP_RTO_MIN_US, INT, OPTION_MADE),
	TCP(OPTION_TCP_DELACK_MAX_US, INT, OPTION_MADE),
	TCP(TCP_CORK, INT, OPTION_LAST), /* what is sent before it would wait */

	UDP(UDP_CORK, INT, OPTION_LAST),
	UDP(UDP_ENCAP, INT, OPTION_MADE),
	UDP(UDP_NO_CHECK6_TX, INT, OPTION_MADE),
	UDP(UDP_NO_CHECK6_RX, INT, OPTION_MADE),
	UDP(103 /* UDP_SEGMENT */, INT, OPTION_MADE),
	UDP(104 /* UDP_GRO */, INT, OPTION_MADE),
	{ OPTION_SOL_UDPLITE, OPTION_UDPLITE_SEND_CSCOV, 0, 0, SOCK_DGRAM, INT, OPTION_MADE, "UDPLITE_SEND_CSCOV" },
	{ OPTION_SOL_UDPLITE, OPTION_UDPLITE_RECV_CSCOV, 0, 0, SOCK_DGRAM, INT, OPTION_MADE, "UDPLITE_RECV_CSCOV" },

	{ SOL_NETLINK, NETLINK_PKTINFO, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_PKTINFO" },
	{ SOL_NETLINK, NETLINK_BROADCAST_ERROR, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_BROADCAST_ERROR" },
	{ SOL_NETLINK, NETLINK_NO_ENOBUFS, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_NO_ENOBUFS" },
	{ SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_LISTEN_ALL_NSID" },
	{ SOL_NETLINK, NETLINK_CAP_ACK, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_CAP_ACK" },
	{ SOL_NETLINK, NETLINK_EXT_ACK, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_EXT_ACK" },
	{ SOL_NETLINK, NETLINK_GET_STRICT_CHK, 0, AF_NETLINK, 0, INT, OPTION_MADE, "NETLINK_GET_STRICT_CHK" },

	{ SOL_PACKET, PACKET_AUXDATA, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_AUXDATA" },
	{ SOL_PACKET, PACKET_ORIGDEV, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_ORIGDEV" },
	{ SOL_PACKET, PACKET_VERSION, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_VERSION" },
	{ SOL_PACKET, PACKET_RESERVE, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_RESERVE" },
	{ SOL_PACKET, PACKET_VNET_HDR, 0, AF_PACKET, SOCK_RAW, INT, OPTION_MADE, "PACKET_VNET_HDR" },
	{ SOL_PACKET, OPTION_PACKET_VNET_HDR_SZ, 0, AF_PACKET, SOCK_RAW, INT, OPTION_MADE, "PACKET_VNET_HDR_SZ" },
	{ SOL_PACKET, PACKET_TX_HAS_OFF, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_TX_HAS_OFF" },
	{ SOL_PACKET, PACKET_LOSS, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_LOSS" },
	{ SOL_PACKET, PACKET_TIMESTAMP, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_TIMESTAMP" },
	{ SOL_PACKET, PACKET_QDISC_BYPASS, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_QDISC_BYPASS" },
	{ SOL_PACKET, PACKET_IGNORE_OUTGOING, 0, AF_PACKET, 0, INT, OPTION_MADE, "PACKET_IGNORE_OUTGOING" },

	ANY(SO_SNDBUF, OPTION_BUFFER, OPTION_LAST),
	ANY(SO_RCVBUF, OPTION_BUFFER, OPTION_LAST),
	ANY(SO_PEEK_OFF, INT, OPTION_LAST),
	ANY(SO_GET_FILTER, OPTION_FILTER, OPTION_LAST),
	ANY(SO_LOCK_FILTER, INT, OPTION_LAST), /* after the filter, for ever */
};
const size_t socket_option_count = sizeof socket_options / sizeof *socket_options;

const struct socket_option *socket_option_find(uint32_t level, uint32_t name)
{
	for (size_t i = 0; i < socket_option_count; i++)
		if (socket_options[i].level == level && socket_options[i].name == name)
			return &socket_options[i];
	return NULL;
}

/* Streams have no groups; the kernel shows values of them that it does not let anybody set. */
static bool is_multicast(const struct socket_option *option)
{
	return (option->level == IPPROTO_IP && (option->name == IP_MULTICAST_IF || option->name == IP_MULTICAST_TTL ||
						 option->name == IP_MULTICAST_LOOP || option->name == IP_MULTICAST_ALL)) ||
	       (option->level == IPPROTO_IPV6 && (option->name == IPV6_MULTICAST_IF || option->name == IPV6_MULTICAST_HOPS ||
						   option->name == IPV6_MULTICAST_LOOP || option->name == IPV6_MULTICAST_ALL));
}

/* Those of SOL_SOCKET that do something to a Unix socket. */
static bool concerns_unix(int name)
{
	static const int names[] = {
		SO_REUSEADDR, SO_BROADCAST, SO_KEEPALIVE, SO_LINGER, SO_PASSCRED, SO_PASSSEC, OPTION_SO_PASSPIDFD,
		OPTION_SO_PASSRIGHTS, SO_RCVLOWAT, SO_RCVTIMEO, SO_SNDTIMEO, SO_TIMESTAMP, SO_TIMESTAMPNS,
		OPTION_SO_TIMESTAMP_NEW, OPTION_SO_TIMESTAMPNS_NEW, SO_PRIORITY, SO_SNDBUF,
		SO_RCVBUF, SO_PEEK_OFF, SO_GET_FILTER, SO_LOCK_FILTER,
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i] == name)
			return true;
	return false;
}

static bool applies(const struct socket_option *option, int domain, int type, int protocol)
{
	if ((option->domain && option->domain != domain) || (option->type && option->type != type))
		return false;
	if (type == SOCK_STREAM && is_multicast(option))
		return false;
	switch (option->level) {
	case SOL_SOCKET: return domain != AF_UNIX || concerns_unix(option->name);
	case IPPROTO_IP: return domain == AF_INET || domain == AF_INET6;
	case IPPROTO_TCP: return domain != AF_UNIX && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
	case IPPROTO_UDP: return domain != AF_UNIX && (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE);
	case OPTION_SOL_UDPLITE: return domain != AF_UNIX && protocol == IPPROTO_UDPLITE;
	case OPTION_SOL_RAW: return domain == AF_INET && protocol == IPPROTO_ICMP;
	case OPTION_SOL_ICMPV6: return protocol == IPPROTO_ICMPV6;
	default: return true;
	}
}

/* The value's bytes; -1: it has none. A filter counts in instructions. */
static ssize_t get(int fd, const struct socket_option *option, uint8_t value[OPTION_MOST])
{
	socklen_t size = option->form == OPTION_INT || option->form == OPTION_BUFFER ? sizeof(int) : OPTION_MOST;
	if (option->form == OPTION_FILTER) {
		size = 0;
		if (getsockopt(fd, option->level, option->name, NULL, &size) < 0 ||
		    size * sizeof(struct sock_filter) > OPTION_MOST)
			return -1;
		if (size && getsockopt(fd, option->level, option->name, value, &size) < 0)
			return -1;
		return (ssize_t)(size * sizeof(struct sock_filter));
	}
	return getsockopt(fd, option->level, option->name, value, &size) < 0 ? -1 : (ssize_t)size;
}

/* What the kernel's list of TCP sockets says of an option; false: nothing. */
static bool is_listed(const struct tcp_end *end, const struct socket_option *option, uint8_t ret_value[OPTION_MOST], ssize_t *ret_size)
{
	const struct {
		bool is_known;
		int level, name;
		int value;
	} ints[] = {
		{ end->has_service, IPPROTO_IP, IP_TOS, end->service },
		{ end->has_class, IPPROTO_IPV6, IPV6_TCLASS, end->class },
		{ end->has_flags, IPPROTO_IP, IP_RECVERR, end->flags.recverr },
		{ end->has_flags, IPPROTO_IP, OPTION_IP_RECVERR_RFC4884, end->flags.recverr_rfc4884 },
		{ end->has_flags, IPPROTO_IP, IP_FREEBIND, end->flags.freebind },
		{ end->has_flags, IPPROTO_IP, IP_TRANSPARENT, end->flags.transparent },
		{ end->has_flags, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, end->flags.bind_address_no_port },
		{ end->has_flags, IPPROTO_IPV6, IPV6_FREEBIND, end->flags.freebind },
		{ end->has_flags, IPPROTO_IPV6, IPV6_TRANSPARENT, end->flags.transparent },
	};
	if (option->level == IPPROTO_TCP && option->name == TCP_CONGESTION && end->has_congestion) {
		memcpy(ret_value, end->congestion, sizeof end->congestion);
		*ret_size = sizeof end->congestion;
		return true;
	}
	/* Of a connection they say what the kernel has made of it, and are not kept (tcp.c drop_findings). */
	if (option->level == IPPROTO_TCP && (option->name == TCP_MAXSEG || option->name == TCP_WINDOW_CLAMP) &&
	    end->state == TCP_ESTABLISHED) {
		*ret_size = 0;
		return true;
	}
	for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
		if (ints[i].level == option->level && ints[i].name == option->name && ints[i].is_known) {
			memcpy(ret_value, &ints[i].value, sizeof ints[i].value);
			*ret_size = sizeof ints[i].value;
			return true;
		}
	return false;
}

/* Which of its buffers a program has set itself (SO_BUF_LOCK, 5.14); the others grow and shrink by themselves. */
static int buffers_set(int fd)
{
	int locks = 3;
	socklen_t size = sizeof locks;
	getsockopt(fd, SOL_SOCKET, OPTION_SO_BUF_LOCK, &locks, &size);
	return locks;
}

static const struct socket_defaults *defaults_known(const struct socket_scene *scene, const int identity[3])
{
	for (size_t i = 0; i < scene->defaults.count; i++) {
		const struct socket_defaults *known = &scene->defaults.at[i];
		if (known->domain == identity[0] && known->type == identity[1] && known->protocol == identity[2])
			return known;
	}
	return NULL;
}

static void defaults_learn(struct harvest *harvest, const int identity[3])
{
	struct socket_scene *scene = socket_scene(harvest);
	int domain = identity[0], type = identity[1], protocol = identity[2];
	if (defaults_known(scene, identity))
		return;
	struct socket_defaults *defaults = vec_add(&scene->defaults);
	*defaults = (struct socket_defaults){ domain, type, protocol,
					      ARENA_ARRAY(&harvest->arena, ProtobufCBinaryData, socket_option_count) };
	int fd = socket(domain, type | SOCK_CLOEXEC, protocol);
	for (size_t i = 0; fd >= 0 && i < socket_option_count; i++) {
		uint8_t value[OPTION_MOST];
		ssize_t size = applies(&socket_options[i], domain, type, protocol) ? get(fd, &socket_options[i], value) : -1;
		/* Data NULL: no socket of this kind has it. */
		if (size >= 0)
			defaults->values[i] = (ProtobufCBinaryData){ (size_t)size, arena_copy(&harvest->arena, value, (size_t)size + 1) };
	}
	if (fd >= 0)
		close(fd);
}

/* Of a filter only whether there is one: no room for it is a question for its length (net/core/filter.c sk_get_filter). */
static uint32_t room_for(const struct socket_option *option)
{
	return option->form == OPTION_FILTER ? 0 : option->form == OPTION_INT || option->form == OPTION_BUFFER ? sizeof(int) : SOCKOPT_VALUE_MOST;
}

static bool ask_ring(struct sockopt_ring *ring, const struct socket_defaults *defaults, int own, ssize_t ret_sizes[],
		     const uint8_t *ret_values[], struct sockopt_question questions[SOCKOPTS_AT_ONCE])
{
	size_t count = 0, places[SOCKOPTS_AT_ONCE];
	for (size_t i = 0; i < socket_option_count && count < SOCKOPTS_AT_ONCE; i++) {
		if (!defaults->values[i].data || socket_options[i].level != SOL_SOCKET)
			continue;
		questions[count].name = socket_options[i].name;
		questions[count].size = room_for(&socket_options[i]);
		places[count++] = i;
	}
	if (sockopt_ring_ask(ring, own, questions, count) < 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (!questions[i].size && questions[i].answer)
			continue;
		ret_sizes[places[i]] = questions[i].answer;
		ret_values[places[i]] = questions[i].value;
	}
	return true;
}

/* @ring: NULL, or by which those that it can be asked for are read. */
static struct socket_options_read read_options(struct arena *arena, struct sockopt_ring *ring, const struct socket_defaults *defaults,
					       int own, int locks, const struct tcp_end *end)
{
	Cairn__SocketOption *found[sizeof socket_options / sizeof *socket_options];
	const uint8_t *asked[sizeof socket_options / sizeof *socket_options] = { 0 };
	ssize_t sizes[sizeof socket_options / sizeof *socket_options];
	struct sockopt_question questions[SOCKOPTS_AT_ONCE];
	size_t count = 0;
	if (ring && !ask_ring(ring, defaults, own, sizes, asked, questions))
		memset(asked, 0, sizeof asked);
	for (size_t i = 0; i < socket_option_count; i++) {
		const struct socket_option *option = &socket_options[i];
		uint8_t room[OPTION_MOST];
		if (!defaults->values[i].data ||
		    (option->form == OPTION_BUFFER && !(locks & (option->name == SO_SNDBUF ? 1 : 2))))
			continue;
		ssize_t got = asked[i] ? sizes[i] : 0;
		if (!asked[i] && !(end && is_listed(end, option, room, &got)))
			got = get(own, option, room);
		const uint8_t *value = asked[i] ? asked[i] : room;
		size_t size = got < 0 ? 0 : (size_t)got;
		bool same = size == defaults->values[i].len && !memcmp(value, defaults->values[i].data, size);
		if (!size || (option->form != OPTION_BUFFER && same))
			continue;
		Cairn__SocketOption *one = ARENA_NEW(arena, Cairn__SocketOption);
		cairn__socket_option__init(one);
		one->level = option->level;
		one->name = option->name;
		one->value = (ProtobufCBinaryData){ size, arena_copy(arena, value, size) };
		found[count++] = one;
	}
	return (struct socket_options_read){ true, arena_copy(arena, found, count * sizeof *found), count };
}

struct ahead {
	const struct harvest *harvest;
	struct socket_scene *scene;
	bool with_rings; /* worth making them */
	struct {
		struct arena arena;
		struct sockopt_ring *ring;
		bool has_tried;
	} workers[CREW_MOST];
};

static bool is_at_hand(const struct frozen_file *file)
{
	return socket_is(file) && file->is_identified && file->own >= 0;
}

static void read_one_ahead(void *context, unsigned worker, size_t item)
{
	struct ahead *ahead = context;
	const struct frozen_file *file = ahead->harvest->files.at[item];
	if (!is_at_hand(file))
		return;
	if (ahead->with_rings && !ahead->workers[worker].has_tried)
		ahead->workers[worker].ring = sockopt_ring_new();
	ahead->workers[worker].has_tried = true;
	const struct socket_asked *asked = socket_asked(ahead->scene, file);
	ahead->scene->read[file->id] = read_options(&ahead->workers[worker].arena, ahead->workers[worker].ring,
						    defaults_known(ahead->scene, file->identity), file->own,
						    asked ? asked->locks : buffers_set(file->own),
						    asked && ahead->scene->has_tcp_ends ? tcp_ends_of(&ahead->scene->tcp_ends,
									(uint32_t)file->stat.st_ino, asked->cookie) : NULL);
}

/* Of those of which Cairn keeps a copy; there may be more than it may have. */
void options_read_ahead(struct harvest *harvest)
{
	struct ahead ahead = { .harvest = harvest, .scene = socket_scene(harvest) };
	size_t count = 0;
	if (ahead.scene->read)
		return;
	ahead.scene->read_count = harvest->last_id + 1;
	ahead.scene->read = ARENA_ARRAY(&harvest->arena, struct socket_options_read, ahead.scene->read_count);
	for (size_t i = 0; i < harvest->files.count; i++)
		if (is_at_hand(harvest->files.at[i])) {
			defaults_learn(harvest, harvest->files.at[i]->identity);
			count++;
		}
	ahead.with_rings = count >= SOCKETS_MANY;
	crew_run(harvest->files.count, CREW_FILES, read_one_ahead, &ahead);
	for (size_t i = 0; i < CREW_MOST; i++) {
		arena_join(&harvest->arena, &ahead.workers[i].arena);
		sockopt_ring_free(ahead.workers[i].ring);
	}
}

void options_capture(struct harvest *harvest, const struct frozen_file *file, int own, Cairn__Socket *message)
{
	struct socket_scene *scene = socket_scene(harvest);
	options_read_ahead(harvest);
	assert(scene->read); /* options_read_ahead */
	struct socket_options_read read = file->id < scene->read_count ? scene->read[file->id] : (struct socket_options_read){ 0 };
	if (!read.is_read) {
		defaults_learn(harvest, file->identity);
		read = read_options(&harvest->arena, NULL, defaults_known(scene, file->identity), own, buffers_set(own), NULL);
	}
	message->options = read.at;
	message->n_options = read.count;
}

bool options_known(struct harvest *harvest, const struct frozen_file *file, Cairn__Socket *ret_message)
{
	const struct socket_scene *scene = socket_scene(harvest);
	const struct socket_options_read *read = file->id < scene->read_count ? &scene->read[file->id] : NULL;
	if (!read || !read->is_read)
		return false;
	cairn__socket__init(ret_message);
	ret_message->options = read->at;
	ret_message->n_options = read->count;
	return true;
}

void options_drop(Cairn__Socket *message, int level, int name)
{
	size_t kept = 0;
	for (size_t i = 0; i < message->n_options; i++)
		if ((int)message->options[i]->level != level || (int)message->options[i]->name != name)
			message->options[kept++] = message->options[i];
	message->n_options = kept;
}

int options_check(const Cairn__Socket *message, struct fault *fault)
{
	if (message->n_options > socket_option_count)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "socket %llu has %zu options",
				 (unsigned long long)message->inode, message->n_options);
	for (size_t i = 0; i < message->n_options; i++) {
		const Cairn__SocketOption *one = message->options[i];
		const struct socket_option *option = socket_option_find(one->level, one->name);
		size_t wanted = !option ? 0 : option->form == OPTION_INT || option->form == OPTION_BUFFER ? sizeof(int) :
				option->form == OPTION_TIME ? sizeof(struct timeval) : 0;
		/* Some options of one byte: IP_TTL of old kernels and the like are ints for the kernel too. */
		if (!option || one->value.len > OPTION_MOST ||
		    (wanted && one->value.len != wanted && (one->value.len != 1 || option->form != OPTION_INT)) ||
		    (option->form == OPTION_FILTER && one->value.len % sizeof(struct sock_filter)))
			return fault_set(fault, FAULT_IMAGE, EINVAL, "socket %llu has an impossible option %u of level %u",
					 (unsigned long long)message->inode, one->name, one->level);
	}
	return 0;
}

static int set_buffer(int fd, const struct socket_option *option, int doubled)
{
	int value = doubled / 2, force = option->name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
	return setsockopt(fd, SOL_SOCKET, force, &value, sizeof value) == 0 ? 0 :
	       setsockopt(fd, SOL_SOCKET, option->name, &value, sizeof value);
}

static int set(int fd, const struct socket_option *option, const ProtobufCBinaryData *value)
{
	if (option->form == OPTION_BUFFER) {
		int doubled;
		memcpy(&doubled, value->data, sizeof doubled);
		return set_buffer(fd, option, doubled);
	}
	if (option->form == OPTION_FILTER) {
		const struct sock_fprog program = { (unsigned short)(value->len / sizeof(struct sock_filter)),
						    (struct sock_filter *)(void *)value->data };
		return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
	}
	return setsockopt(fd, option->level, option->set ? option->set : option->name, value->data, (socklen_t)value->len);
}

int options_set(int fd, const Cairn__Socket *message, enum option_when when, struct fault *fault)
{
	for (size_t i = 0; i < message->n_options; i++) {
		const Cairn__SocketOption *one = message->options[i];
		const struct socket_option *option = socket_option_find(one->level, one->name);
		if (option->when != when || set(fd, option, &one->value) == 0)
			continue;
		int error = errno;
		uint8_t now[OPTION_MOST];
		ssize_t size = get(fd, option, now);
		if (size == (ssize_t)one->value.len && !memcmp(now, one->value.data, (size_t)size))
			continue;
		/* What only shapes traffic and is not permitted here is worth less than the program. */
		if (error == ENOPROTOOPT || (error == EPERM && option->name != SO_BINDTODEVICE && option->name != SO_LOCK_FILTER)) {
			log_warn("socket %llu: %s: %s; continuing without it", (unsigned long long)message->inode,
				 option->text, strerror(error));
			continue;
		}
		return fault_set(fault, fault_class_of(error), error, "socket %llu: option %s: %s",
				 (unsigned long long)message->inode, option->text, strerror(error));
	}
	return 0;
}

int options_int(const Cairn__Socket *message, int level, int name, int otherwise)
{
	for (size_t i = 0; i < message->n_options; i++) {
		const Cairn__SocketOption *one = message->options[i];
		int value;
		if ((int)one->level != level || (int)one->name != name || one->value.len != sizeof value)
			continue;
		memcpy(&value, one->value.data, sizeof value);
		return value;
	}
	return otherwise;
}
