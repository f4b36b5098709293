/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of datagrams over IPv4 and IPv6: UDP, UDP-Lite, ICMP (ping), raw. Addresses by getsockname and getpeername, options by the table,
 * multicast memberships by asking for each group that the host is in (/proc/net/igmp, igmp6) whether this socket is (MCAST_MSFILTER).
 * Queued datagrams are peeked at and sent again as if by their senders: forged where that is permitted (CAP_NET_RAW), else by the
 * sender in the tree, else by a socket bound to its address; one that cannot be sent is lost, as datagrams may be.
 *
 * Not carried, so waited for until the program has taken it, then --in-flight: what waits in raw and ICMP sockets, which would get what is sent
 * to one of them again all at once; data that waits to be sent (UDP_CORK, MSG_MORE), which cannot be read; errors. */
#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/forge.h"
#include "kinds/sockets/message.h"
#include "kinds/sockets/multicast.h"
#include "kinds/sockets/option.h"
#include "kinds/table.h"

enum { RECEIVE = 1, SEND = 2 };

static bool is_udp(int protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
}

static bool probe(const struct frozen_file *file)
{
	struct socket_identity identity;
	return socket_is(file) && socket_identify((struct frozen_file *)(uintptr_t)file, &identity, NULL, NULL) == 0 &&
	       (identity.domain == AF_INET || identity.domain == AF_INET6) &&
	       (identity.type == SOCK_RAW || (identity.type == SOCK_DGRAM && (is_udp(identity.protocol) ||
			identity.protocol == IPPROTO_ICMP || identity.protocol == IPPROTO_ICMPV6)));
}

static int polls(int own)
{
	struct pollfd pollfd = { .fd = own, .events = POLLRDHUP | POLLIN };
	return poll(&pollfd, 1, 0) > 0 ? pollfd.revents : 0;
}

/* NULL, or what is there that can only be taken. A packet that is on its way out counts too; that passes. */
static const char *waits(int own, int protocol)
{
	int unsent = 0, seen = polls(own);
	if (seen & POLLERR)
		return "an error waits to be read";
	if (!is_udp(protocol) && (seen & POLLIN))
		return "a packet waits to be read";
	return ioctl(own, SIOCOUTQ, &unsent) == 0 && unsent > 0 ? "data waits to be sent (UDP_CORK or MSG_MORE)" : NULL;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct socket_identity identity;
	int own, rc = socket_refuse(harvest, file, fault);
	bool is_asked = harvest->frozen && !harvest->policy.losing;
	if (rc == 0 && is_asked)
		rc = socket_identify(file, &identity, &own, fault);
	const char *what = is_asked && rc == 0 ? waits(own, identity.protocol) : NULL;
	if (what)
		rc = fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "%s: %s, which cannot be carried; try again when the program has done "
					 "so, or --in-flight lose", file->link, what);
	frozen_file_put(file);
	return rc;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct socket_identity identity;
	struct socket_queue queue = { 0 };
	int own, rc = socket_identify(file, &identity, &own, fault);
	if (rc < 0)
		return rc;
	Cairn__InetSocket *message = HARVEST_MESSAGE(harvest, Cairn__InetSocket, cairn__inet_socket__init);
	int seen = polls(own);
	message->open = open_file_capture(harvest, file);
	message->socket = socket_capture(harvest, file, &identity, own);
	options_drop(message->socket, SOL_SOCKET, SO_INCOMING_CPU);
	message->local = address_own(&harvest->arena, own);
	message->remote = address_peer(&harvest->arena, own);
	message->shutdown = (seen & POLLRDHUP ? RECEIVE : 0) | (seen & POLLHUP ? RECEIVE | SEND : 0);
	multicast_capture(harvest, identity.domain, own, &message->memberships, &message->n_memberships);
	/* Peeking takes a pending error away: with one, the queue is not looked at. */
	if (is_udp(identity.protocol) && !(seen & POLLERR))
		rc = queue_peek(harvest, file, own, QUEUE_MESSAGES, &queue, fault);
	if (rc == 0) {
		queue_capture(harvest, &queue, &message->messages, &message->n_messages);
		harvest_add(harvest, &kind_inet_socket, &message->base);
	}
	frozen_file_put(file);
	return rc;
}

/* ---- image ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__InetSocket *message = (const Cairn__InetSocket *)base;
	int domain = message->socket && message->socket->domain == AF_INET6 ? AF_INET6 : AF_INET;
	int rc = socket_check(message->open, message->socket, domain, fault);
	if (rc == 0)
		rc = queue_check(message->messages, message->n_messages, fault);
	if (rc == 0)
		rc = multicast_check(message->memberships, message->n_memberships, domain, fault);
	if (rc < 0)
		return rc;
	assert(message->socket); /* socket_check */
	bool is_known = message->socket->type == SOCK_RAW ? message->socket->protocol < 256 :
			message->socket->type == SOCK_DGRAM && (is_udp((int)message->socket->protocol) ||
			message->socket->protocol == IPPROTO_ICMP || message->socket->protocol == IPPROTO_ICMPV6);
	if (!is_known || !address_is_good(&message->local, message->socket->domain) ||
	    !address_is_good(&message->remote, message->socket->domain) || message->shutdown > (RECEIVE | SEND) ||
	    (message->n_messages && (!is_udp((int)message->socket->protocol) || !message->local.len)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "socket %llu has impossible values",
				 (unsigned long long)message->socket->inode);
	return 0;
}

/* ---- newborn ---- */

static int at(const Cairn__InetSocket *message, int rc, struct fault *fault)
{
	return fault_at(fault, rc, "%s socket %llu", is_udp((int)message->socket->protocol) ? "UDP" : "raw",
			(unsigned long long)message->socket->inode);
}

static int place(const ProtobufCBinaryData *address, int fd, int (*call)(int, const struct sockaddr *, socklen_t),
		 const char *what, struct fault *fault)
{
	char text[ADDRESS_TEXT];
	struct inet_address parsed;
	if (!address->len || call(fd, (const struct sockaddr *)address->data, (socklen_t)address->len) == 0)
		return 0;
	int error = errno;
	address_parse(address->data, address->len, &parsed);
	return fault_set(fault, fault_class_of(error), error, "%s %s: %s; try %s", what, address_text(&parsed, text),
			 strerror(error), error == EADDRNOTAVAIL || error == ENETUNREACH ?
			 "--map-address, for a host with other addresses" : "to end the program that has it now");
}

/* glibc's prototypes take a union. */
static int bind_plain(int fd, const struct sockaddr *address, socklen_t size)
{
	return bind(fd, address, size);
}

static int connect_plain(int fd, const struct sockaddr *address, socklen_t size)
{
	return connect(fd, address, size);
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__InetSocket *message = (const Cairn__InetSocket *)base;
	int fd, rc = socket_make(message->socket, &fd, fault);
	if (rc < 0)
		return at(message, rc, fault);
	workshop_put(workshop, message->open->file, fd);
	rc = place(&message->local, fd, bind_plain, "bind", fault);
	if (rc == 0)
		rc = multicast_join((int)message->socket->domain, fd, message->memberships, message->n_memberships, fault);
	if (rc == 0)
		rc = options_set(fd, message->socket, OPTION_MADE, fault);
	if (rc == 0)
		rc = place(&message->remote, fd, connect_plain, "connect to", fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}

static int sender_inside(const struct workshop *workshop, const struct inet_address *source)
{
	for (uint32_t id = 0; id < workshop->file_space; id++) {
		const Cairn__InetSocket *one =
			(const Cairn__InetSocket *)workshop_file(workshop, id, &cairn__inet_socket__descriptor);
		struct inet_address local;
		if (one && one->socket->type == SOCK_DGRAM && one->local.len &&
		    address_parse(one->local.data, one->local.len, &local) && local.port == source->port &&
		    (address_same(&local, source) || address_is_any(&local)))
			return workshop_fd(workshop, id);
	}
	return -1;
}

/* Where to send so that it arrives in the socket: its own address, or loopback's. */
static socklen_t destination(const Cairn__InetSocket *message, struct sockaddr_storage *ret_address, struct inet_address *ret_parsed)
{
	struct sockaddr_in6 six;
	struct sockaddr_in four;
	memcpy(ret_address, message->local.data, message->local.len);
	address_parse(message->local.data, message->local.len, ret_parsed);
	if (address_is_any(ret_parsed) && message->socket->domain == AF_INET) {
		memcpy(&four, ret_address, sizeof four);
		four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		memcpy(ret_address, &four, sizeof four);
	} else if (address_is_any(ret_parsed)) {
		memcpy(&six, ret_address, sizeof six);
		six.sin6_addr = (struct in6_addr)IN6ADDR_LOOPBACK_INIT;
		memcpy(ret_address, &six, sizeof six);
	}
	address_parse(ret_address, message->local.len, ret_parsed);
	return (socklen_t)message->local.len;
}

/* A sender of IPv4 whose datagram waits in a socket bound to any address of IPv6. */
static void match_family(const struct inet_address *source, struct inet_address *to)
{
	if (source->family == AF_INET && to->family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&to->ip)) {
		to->family = AF_INET;
		to->ip = (struct in6_addr){ .s6_addr = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1 } };
	}
}

static bool send_one(struct workshop *workshop, const Cairn__InetSocket *message, const Cairn__SocketMessage *one)
{
	struct sockaddr_storage address;
	struct inet_address source, to;
	socklen_t size = destination(message, &address, &to);
	if (!address_parse(one->source.data, one->source.len, &source))
		return false;
	match_family(&source, &to);
	if (source.family == to.family &&
	    forge_datagram((int)message->socket->protocol, &source, &to, one->data.data, one->data.len) == 0)
		return true;
	int sender = sender_inside(workshop, &source);
	_close_ int own = sender < 0 ? socket((int)message->socket->domain, SOCK_DGRAM | SOCK_CLOEXEC,
					      (int)message->socket->protocol) : -1;
	if (sender < 0 && (own < 0 || bind(own, (const struct sockaddr *)one->source.data, (socklen_t)one->source.len) < 0))
		return false;
	return sendto(sender < 0 ? own : sender, one->data.data, one->data.len, MSG_DONTWAIT | MSG_NOSIGNAL,
		      (const struct sockaddr *)&address, size) >= 0;
}

static int settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__InetSocket *message = (const Cairn__InetSocket *)base;
	size_t lost = 0;
	(void)fault;
	for (size_t i = 0; i < message->n_messages; i++)
		lost += !send_one(workshop, message, message->messages[i]);
	if (lost)
		log_warn("UDP socket %llu: %zu of %zu queued datagrams cannot be sent again; continuing without them",
			 (unsigned long long)message->socket->inode, lost, message->n_messages);
	return 0;
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__InetSocket *message = (const Cairn__InetSocket *)base;
	if (message->shutdown) /* of one that is not connected too, though it says ENOTCONN (net/ipv4/af_inet.c inet_shutdown) */
		shutdown(workshop_fd(workshop, message->open->file), message->shutdown == RECEIVE ? SHUT_RD : SHUT_RDWR);
	int rc = socket_finish(workshop, message->open, message->socket, fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}

static int check_network(const ProtobufCMessage *base, bool closing, struct fault *fault)
{
	const Cairn__InetSocket *message = (const Cairn__InetSocket *)base;
	(void)closing;
	return socket_check_address(message->socket, &message->local, NULL, fault);
}

static const char *const address_fields[] = { "local", "remote", NULL };

const struct kind kind_inet_socket = {
	.name = "datagram socket",
	.tag = 72,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__inet_socket__descriptor,
	.owner_field = "open",
	.address_fields = address_fields,
	.before_births = true,
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check,
	.check_network = check_network,
	.make = make,
	.settle = settle,
	.commit = commit,
};
