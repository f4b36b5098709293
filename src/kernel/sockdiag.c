/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/sockdiag.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct dump {
	struct arena *arena;
	VEC(struct unix_socket) sockets;
};

/* The kernel's own dev_t (linux/kdev_t.h), 12 and 20 bits. */
static uint64_t device_of(uint32_t kernel_device)
{
	return makedev(kernel_device >> 20, kernel_device & 0xfffff);
}

static int take_attribute(const struct nlattr *attribute, void *context)
{
	struct dump *dump = context;
	struct unix_socket *socket = &dump->sockets.at[dump->sockets.count - 1];
	const void *payload = mnl_attr_get_payload(attribute);
	size_t size = mnl_attr_get_payload_len(attribute);
	switch (mnl_attr_get_type(attribute)) {
	case UNIX_DIAG_NAME:
		socket->name = arena_copy(dump->arena, payload, size);
		socket->name_size = (uint32_t)size;
		break;
	case UNIX_DIAG_VFS:
		if (size >= sizeof(struct unix_diag_vfs)) {
			struct unix_diag_vfs file;
			memcpy(&file, payload, sizeof file);
			socket->has_file = true;
			socket->file_inode = file.udiag_vfs_ino;
			socket->file_device = device_of(file.udiag_vfs_dev);
		}
		break;
	case UNIX_DIAG_PEER:
		socket->has_peer = size >= sizeof(uint32_t);
		memcpy(&socket->peer, payload, size >= sizeof(uint32_t) ? sizeof(uint32_t) : 0);
		break;
	case UNIX_DIAG_ICONS:
		socket->waiting = arena_copy(dump->arena, payload, size);
		socket->waiting_count = (uint32_t)(size / sizeof(uint32_t));
		break;
	case UNIX_DIAG_RQLEN:
		if (size >= sizeof(struct unix_diag_rqlen)) {
			struct unix_diag_rqlen length;
			memcpy(&length, payload, sizeof length);
			socket->receive_queue = length.udiag_rqueue;
			socket->send_queue = length.udiag_wqueue;
		}
		break;
	case UNIX_DIAG_SHUTDOWN:
		socket->shutdown = size ? *(const uint8_t *)payload : 0;
		break;
	}
	return MNL_CB_OK;
}

static int take_socket(const struct nlmsghdr *header, void *context)
{
	struct dump *dump = context;
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct unix_diag_msg)))
		return MNL_CB_OK;
	const struct unix_diag_msg *message = mnl_nlmsg_get_payload(header);
	struct unix_socket *socket = vec_add(&dump->sockets);
	socket->inode = message->udiag_ino;
	socket->type = message->udiag_type;
	socket->state = message->udiag_state;
	return mnl_attr_parse(header, sizeof *message, take_attribute, dump);
}

/* Sends the request and hands every answer to @take. */
static int run_dump(struct nlmsghdr *request, mnl_cb_t take, void *context)
{
	_free_ char *buffer = memory_new(1 << 16);
	struct mnl_socket *netlink = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	int rc = MNL_CB_OK;
	if (!netlink)
		return -errno;
	if (mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    mnl_socket_sendto(netlink, request, request->nlmsg_len) < 0)
		rc = -errno;
	while (rc > 0) {
		ssize_t size = mnl_socket_recvfrom(netlink, buffer, 1 << 16);
		rc = size < 0 ? -errno : mnl_cb_run(buffer, (size_t)size, request->nlmsg_seq, 0, take, context);
		if (rc == MNL_CB_ERROR)
			rc = errno ? -errno : -EIO;
	}
	mnl_socket_close(netlink);
	return rc;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = ((const struct unix_socket *)a)->inode, y = ((const struct unix_socket *)b)->inode;
	return (x > y) - (x < y);
}

int sockdiag_unix(struct arena *arena, struct unix_sockets *ret_sockets, struct fault *fault)
{
	struct {
		struct nlmsghdr header;
		struct unix_diag_req request;
	} ask = {
		.header = { .nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1 },
		.request = { .sdiag_family = AF_UNIX, .udiag_states = UINT32_MAX,
			     .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS |
					   UDIAG_SHOW_RQLEN },
	};
	struct dump dump = { .arena = arena };
	int rc = run_dump(&ask.header, take_socket, &dump);
	if (rc < 0) {
		vec_finish(&dump.sockets);
		return fault_set(fault, fault_class_of(-rc), -rc,
				 "cannot list the Unix sockets by sock_diag: %s; try a kernel with CONFIG_UNIX_DIAG",
				 strerror(-rc));
	}
	if (dump.sockets.count)
		qsort(dump.sockets.at, dump.sockets.count, sizeof *dump.sockets.at, compare);
	ret_sockets->at = arena_copy(arena, dump.sockets.at, dump.sockets.count * sizeof *dump.sockets.at);
	ret_sockets->count = dump.sockets.count;
	vec_finish(&dump.sockets);
	return 0;
}

const struct unix_socket *unix_sockets_find(const struct unix_sockets *sockets, uint32_t inode)
{
	const struct unix_socket key = { .inode = inode };
	return sockets->count ? bsearch(&key, sockets->at, sockets->count, sizeof key, compare) : NULL;
}

struct tcp_dump {
	VEC(struct tcp_end) ends;
};

static void take_ip(uint8_t ret_ip[16], int family, const uint32_t *words)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	if (family == AF_INET) {
		memcpy(ret_ip, mapped, sizeof mapped);
		memcpy(ret_ip + sizeof mapped, words, 4);
	} else {
		memcpy(ret_ip, words, 16);
	}
}

static int take_ulp_name(const struct nlattr *attribute, void *context)
{
	struct tcp_end *end = context;
	if (mnl_attr_get_type(attribute) == INET_ULP_INFO_NAME)
		snprintf(end->protocol, sizeof end->protocol, "%.*s", (int)mnl_attr_get_payload_len(attribute),
			 mnl_attr_get_str(attribute));
	return MNL_CB_OK;
}

static int take_tcp_attribute(const struct nlattr *attribute, void *context)
{
	struct tcp_end *end = context;
	const void *payload = mnl_attr_get_payload(attribute);
	size_t size = mnl_attr_get_payload_len(attribute);
	struct inet_diag_sockopt flags;
	switch (mnl_attr_get_type(attribute)) {
	case INET_DIAG_ULP_INFO:
		return mnl_attr_parse_nested(attribute, take_ulp_name, context);
	case INET_DIAG_MD5SIG:
		end->is_signed = true;
		break;
	case INET_DIAG_CONG:
		end->has_congestion = size <= sizeof end->congestion;
		memcpy(end->congestion, payload, end->has_congestion ? size : 0);
		break;
	case INET_DIAG_TOS:
		end->has_service = size == 1;
		end->service = *(const uint8_t *)payload;
		break;
	case INET_DIAG_TCLASS:
		end->has_class = size == 1;
		end->class = *(const uint8_t *)payload;
		break;
	case INET_DIAG_SOCKOPT:
		end->has_flags = size >= sizeof flags;
		memcpy(&flags, payload, size < sizeof flags ? size : sizeof flags);
		if (end->has_flags)
			end->flags = (struct tcp_flags){ flags.recverr, flags.recverr_rfc4884, flags.freebind, flags.transparent,
							 flags.bind_address_no_port };
		break;
	}
	return MNL_CB_OK;
}

static int take_tcp(const struct nlmsghdr *header, void *context)
{
	struct tcp_dump *dump = context;
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		return MNL_CB_OK;
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	struct tcp_end *end = vec_add(&dump->ends);
	take_ip(end->local, message->idiag_family, message->id.idiag_src);
	take_ip(end->remote, message->idiag_family, message->id.idiag_dst);
	end->local_port = ntohs(message->id.idiag_sport);
	end->remote_port = ntohs(message->id.idiag_dport);
	end->inode = message->idiag_inode;
	end->device = message->id.idiag_if;
	end->receive_queue = message->idiag_rqueue;
	end->send_queue = message->idiag_wqueue;
	end->cookie = message->id.idiag_cookie[0] | (uint64_t)message->id.idiag_cookie[1] << 32;
	end->family = message->idiag_family;
	end->state = message->idiag_state;
	return mnl_attr_parse(header, sizeof *message, take_tcp_attribute, end);
}

struct tcp_request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 request;
};

/* Sockets of IPv4, then of IPv6. */
static int dump_inet(int protocol, uint32_t states, mnl_cb_t take, void *context)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	int rc = 0;
	for (size_t i = 0; rc >= 0 && i < sizeof families; i++) {
		struct tcp_request ask = {
			.header = { .nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY,
				    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1 },
			.request = { .sdiag_family = families[i], .sdiag_protocol = (uint8_t)protocol, .idiag_states = states },
		};
		/* With what tcp_diag_get_aux gives (net/ipv4/inet_diag.c inet_sk_diag_fill). */
		if (protocol == IPPROTO_TCP)
			ask.request.idiag_ext = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_CONG - 1) | 1 << (INET_DIAG_TOS - 1) |
						1 << (INET_DIAG_TCLASS - 1);
		rc = run_dump(&ask.header, take, context);
	}
	return rc < 0 ? rc : 0;
}

static int compare_addresses(const void *a, const void *b)
{
	const struct tcp_end *x = a, *y = b;
	int order = memcmp(x->local, y->local, 16);
	if (!order)
		order = memcmp(x->remote, y->remote, 16);
	if (!order)
		order = (int)x->local_port - (int)y->local_port;
	return order ? order : (int)x->remote_port - (int)y->remote_port;
}

static int compare_inodes(const void *a, const void *b)
{
	uint32_t x = (*(struct tcp_end *const *)a)->inode, y = (*(struct tcp_end *const *)b)->inode;
	return (x > y) - (x < y);
}

static void sort_ends(struct arena *arena, struct tcp_ends *ends)
{
	if (!ends->count)
		return;
	qsort(ends->at, ends->count, sizeof *ends->at, compare_addresses);
	ends->by_inode = ARENA_ARRAY(arena, struct tcp_end *, ends->count);
	for (size_t i = 0; i < ends->count; i++)
		if (ends->at[i].inode)
			ends->by_inode[ends->inode_count++] = &ends->at[i];
	if (ends->inode_count)
		qsort(ends->by_inode, ends->inode_count, sizeof *ends->by_inode, compare_inodes);
}

int sockdiag_tcp(struct arena *arena, uint32_t states, struct tcp_ends *ret_ends, struct fault *fault)
{
	struct tcp_dump dump = { 0 };
	struct tcp_ends ends = { 0 };
	int rc = dump_inet(IPPROTO_TCP, states, take_tcp, &dump);
	if (rc == 0) {
		ends.at = arena_copy(arena, dump.ends.at, dump.ends.count * sizeof *dump.ends.at);
		ends.count = dump.ends.count;
		sort_ends(arena, &ends);
		*ret_ends = ends;
	}
	vec_finish(&dump.ends);
	return rc == 0 ? 0 : fault_set(fault, fault_class_of(-rc), -rc, "cannot list the TCP sockets by sock_diag: %s; try a "
				       "kernel with CONFIG_INET_DIAG", strerror(-rc));
}

const struct tcp_end *tcp_ends_find(const struct tcp_ends *ends, const struct tcp_end *addresses)
{
	return ends->count ? bsearch(addresses, ends->at, ends->count, sizeof *ends->at, compare_addresses) : NULL;
}

const struct tcp_end *tcp_ends_of(const struct tcp_ends *ends, uint32_t inode, uint64_t cookie)
{
	struct tcp_end key = { .inode = inode }, *wanted = &key;
	struct tcp_end **found = ends->inode_count && inode ?
		bsearch(&wanted, ends->by_inode, ends->inode_count, sizeof *ends->by_inode, compare_inodes) : NULL;
	if (!found)
		return NULL;
	size_t at = (size_t)(found - ends->by_inode);
	if ((at && ends->by_inode[at - 1]->inode == inode) ||
	    (at + 1 < ends->inode_count && ends->by_inode[at + 1]->inode == inode))
		return NULL;
	return !cookie || (*found)->cookie == cookie ? *found : NULL;
}

struct udp_dump {
	VEC(struct udp_socket) sockets;
};

static int take_udp(const struct nlmsghdr *header, void *context)
{
	struct udp_dump *dump = context;
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		return MNL_CB_OK;
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	*vec_add(&dump->sockets) = (struct udp_socket){ message->idiag_inode, message->idiag_family };
	return MNL_CB_OK;
}

static int compare_udp(const void *a, const void *b)
{
	uint32_t x = ((const struct udp_socket *)a)->inode, y = ((const struct udp_socket *)b)->inode;
	return (x > y) - (x < y);
}

int sockdiag_udp(struct arena *arena, struct udp_sockets *ret_sockets, struct fault *fault)
{
	struct udp_dump dump = { 0 };
	int rc = dump_inet(IPPROTO_UDP, UINT32_MAX, take_udp, &dump);
	if (rc == 0) {
		if (dump.sockets.count)
			qsort(dump.sockets.at, dump.sockets.count, sizeof *dump.sockets.at, compare_udp);
		ret_sockets->at = arena_copy(arena, dump.sockets.at, dump.sockets.count * sizeof *dump.sockets.at);
		ret_sockets->count = dump.sockets.count;
	}
	vec_finish(&dump.sockets);
	return rc == 0 ? 0 : fault_set(fault, fault_class_of(-rc), -rc, "cannot list the UDP sockets by sock_diag: %s; try a "
				       "kernel with CONFIG_INET_DIAG", strerror(-rc));
}

static void give_ip(uint32_t words[4], int family, const uint8_t ip[16])
{
	memcpy(words, family == AF_INET ? ip + 12 : ip, family == AF_INET ? 4 : 16);
}

int sockdiag_tcp_destroy(int family, const struct tcp_end *end)
{
	struct tcp_request ask = {
		.header = { .nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
			    .nlmsg_seq = 1 },
		.request = { .sdiag_family = (uint8_t)family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = UINT32_MAX },
	};
	struct inet_diag_sockid *id = &ask.request.id;
	give_ip(id->idiag_src, family, end->local);
	give_ip(id->idiag_dst, family, end->remote);
	id->idiag_sport = htons(end->local_port);
	id->idiag_dport = htons(end->remote_port);
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	int rc = run_dump(&ask.header, take_tcp, &(struct tcp_dump){ 0 });
	return rc < 0 ? rc : 0;
}

struct packet_dump {
	struct arena *arena;
	VEC(struct packet_socket) sockets;
};

static void take_memberships(struct packet_dump *dump, struct packet_socket *socket, const uint8_t *payload, size_t size)
{
	size_t count = size / sizeof(struct packet_diag_mclist);
	socket->memberships = ARENA_ARRAY(dump->arena, struct packet_membership, count);
	for (; socket->membership_count < count; socket->membership_count++) {
		struct packet_membership *membership = &socket->memberships[socket->membership_count];
		struct packet_diag_mclist one;
		memcpy(&one, payload + socket->membership_count * sizeof one, sizeof one);
		*membership = (struct packet_membership){ one.pdmc_index, one.pdmc_count, one.pdmc_type, one.pdmc_alen, { 0 } };
		if (membership->size > sizeof membership->address)
			membership->size = sizeof membership->address;
		memcpy(membership->address, one.pdmc_addr, membership->size);
	}
}

static int take_packet_attribute(const struct nlattr *attribute, void *context)
{
	struct packet_dump *dump = context;
	struct packet_socket *socket = &dump->sockets.at[dump->sockets.count - 1];
	const void *payload = mnl_attr_get_payload(attribute);
	size_t size = mnl_attr_get_payload_len(attribute);
	struct packet_diag_info info;
	switch (mnl_attr_get_type(attribute)) {
	case PACKET_DIAG_INFO:
		if (size >= sizeof info) {
			memcpy(&info, payload, sizeof info);
			socket->copy_threshold = info.pdi_copy_thresh;
		}
		break;
	case PACKET_DIAG_MCLIST:
		take_memberships(dump, socket, payload, size);
		break;
	case PACKET_DIAG_RX_RING:
	case PACKET_DIAG_TX_RING:
		socket->has_ring = true;
		break;
	}
	return MNL_CB_OK;
}

static int take_packet(const struct nlmsghdr *header, void *context)
{
	struct packet_dump *dump = context;
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct packet_diag_msg)))
		return MNL_CB_OK;
	const struct packet_diag_msg *message = mnl_nlmsg_get_payload(header);
	struct packet_socket *socket = vec_add(&dump->sockets);
	socket->inode = message->pdiag_ino;
	return mnl_attr_parse(header, sizeof *message, take_packet_attribute, dump);
}

int sockdiag_packet(struct arena *arena, struct packet_sockets *ret_sockets, struct fault *fault)
{
	struct {
		struct nlmsghdr header;
		struct packet_diag_req request;
	} ask = {
		.header = { .nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1 },
		.request = { .sdiag_family = AF_PACKET, .pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG },
	};
	struct packet_dump dump = { .arena = arena };
	int rc = run_dump(&ask.header, take_packet, &dump);
	if (rc >= 0) {
		ret_sockets->at = arena_copy(arena, dump.sockets.at, dump.sockets.count * sizeof *dump.sockets.at);
		ret_sockets->count = dump.sockets.count;
	}
	vec_finish(&dump.sockets);
	return rc >= 0 ? 0 : fault_set(fault, fault_class_of(-rc), -rc, "cannot list the packet sockets by sock_diag: %s; try a kernel with "
				       "CONFIG_PACKET_DIAG", strerror(-rc));
}
