/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of sockets say to records that no Cairn wrote. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "kinds/table.h"
#include "sockets.pb-c.h"

static Cairn__OpenFile open_ = CAIRN__OPEN_FILE__INIT;
static Cairn__Socket head = CAIRN__SOCKET__INIT;
static uint8_t bytes[5000];

static ProtobufCBinaryData data(size_t size)
{
	return (ProtobufCBinaryData){ size, bytes };
}

static void prepare(int domain, int type, int protocol)
{
	open_.file = 7;
	cairn__socket__init(&head);
	head.domain = (uint32_t)domain;
	head.type = (uint32_t)type;
	head.protocol = (uint32_t)protocol;
	memset(bytes, 0, sizeof bytes);
}

static void is_damaged(const struct kind *kind, const ProtobufCMessage *message)
{
	struct fault fault = { 0 };
	assert_true(kind->check(message, &fault) < 0);
	assert_int_equal(fault.class, FAULT_IMAGE);
}

static void is_good(const struct kind *kind, const ProtobufCMessage *message)
{
	struct fault fault = { 0 };
	assert_int_equal(kind->check(message, &fault), 0);
}

static void options_out_of_range_are_damaged(void **state)
{
	(void)state;
	Cairn__NetlinkSocket netlink = CAIRN__NETLINK_SOCKET__INIT;
	Cairn__SocketOption option = CAIRN__SOCKET_OPTION__INIT, *list[] = { &option };
	prepare(AF_NETLINK, SOCK_RAW, 0);
	netlink.open = &open_;
	netlink.socket = &head;
	is_good(&kind_netlink_socket, &netlink.base);
	head.options = list;
	head.n_options = 1;
	option = (Cairn__SocketOption){ .base = option.base, .level = SOL_SOCKET, .name = SO_RCVBUF, .value = data(4) };
	is_good(&kind_netlink_socket, &netlink.base);
	option.value = data(1); /* an int is read from it */
	is_damaged(&kind_netlink_socket, &netlink.base);
	option.value = data(8);
	is_damaged(&kind_netlink_socket, &netlink.base);
	option.name = 4711;
	is_damaged(&kind_netlink_socket, &netlink.base);
	option.name = SO_GET_FILTER;
	option.value = data(7); /* no whole instruction */
	is_damaged(&kind_netlink_socket, &netlink.base);
	option.value = data(4999);
	is_damaged(&kind_netlink_socket, &netlink.base);
	head.n_options = 1000000;
	is_damaged(&kind_netlink_socket, &netlink.base);
	head.n_options = 0;
	head.protocol = 32;
	is_damaged(&kind_netlink_socket, &netlink.base);
	head.protocol = 0;
	netlink.n_groups = 65;
	is_damaged(&kind_netlink_socket, &netlink.base);
	netlink.n_groups = 0;
	head.domain = AF_INET;
	is_damaged(&kind_netlink_socket, &netlink.base);
	netlink.socket = NULL;
	is_damaged(&kind_netlink_socket, &netlink.base);
}

static void unix_sockets_that_cannot_be_are_damaged(void **state)
{
	(void)state;
	Cairn__UnixSocket message = CAIRN__UNIX_SOCKET__INIT;
	Cairn__SocketMessage queued = CAIRN__SOCKET_MESSAGE__INIT, *list[] = { &queued };
	prepare(AF_UNIX, SOCK_STREAM, 0);
	message.open = &open_;
	message.socket = &head;
	const Cairn__UnixSocket good = message;
	is_good(&kind_unix_socket, &message.base);
	message.name = data(109);
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.accepted = true; /* by whose name? */
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.listening = true; /* where? */
	is_damaged(&kind_unix_socket, &message.base);
	message.name = data(10);
	is_good(&kind_unix_socket, &message.base);
	message.connected = true;
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.n_waiting = 1;
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.shutdown = 4;
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.path = (char[]){ "relative" };
	message.name = data(10);
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.reconnect_path = (char[]){ "relative" };
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	message.messages = list;
	message.n_messages = 1;
	queued.source = data(120); /* longer than an address */
	is_damaged(&kind_unix_socket, &message.base);
	queued.source = data(0);
	queued.n_files = 254;
	is_damaged(&kind_unix_socket, &message.base);
	queued.n_files = 0;
	queued.data.len = (size_t)1 << 40;
	is_damaged(&kind_unix_socket, &message.base);
	message = good;
	head.type = 99;
	is_damaged(&kind_unix_socket, &message.base);
	open_.file = 0;
	head.type = SOCK_STREAM;
	is_damaged(&kind_unix_socket, &message.base);
}

static void tcp_connections_that_cannot_be_are_damaged(void **state)
{
	(void)state;
	Cairn__TcpSocket message = CAIRN__TCP_SOCKET__INIT;
	Cairn__TcpQueues queues = CAIRN__TCP_QUEUES__INIT;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	prepare(AF_INET, SOCK_STREAM, IPPROTO_TCP);
	message.open = &open_;
	message.socket = &head;
	message.state = TCP_ESTABLISHED;
	message.local = message.remote = (ProtobufCBinaryData){ sizeof address, (uint8_t *)&address };
	message.queues = &queues;
	queues.exact = true;
	const Cairn__TcpSocket good = message;
	is_good(&kind_tcp_socket, &message.base);
	message.local = data(sizeof address); /* of no family */
	is_damaged(&kind_tcp_socket, &message.base);
	message.local = data(7);
	is_damaged(&kind_tcp_socket, &message.base);
	message = good;
	message.remote.len = 0;
	is_damaged(&kind_tcp_socket, &message.base);
	message = good;
	message.queues = NULL;
	is_damaged(&kind_tcp_socket, &message.base);
	message = good;
	message.state = 12;
	is_damaged(&kind_tcp_socket, &message.base);
	message.state = 257; /* not ESTABLISHED when it is cut to a byte */
	is_damaged(&kind_tcp_socket, &message.base);
	message.state = TCP_CLOSE;
	is_damaged(&kind_tcp_socket, &message.base);
	message = good;
	queues.exact = false; /* to the outside, without numbers */
	is_damaged(&kind_tcp_socket, &message.base);
	queues.exact = true;
	queues.unsent = 1;
	is_damaged(&kind_tcp_socket, &message.base);
	queues.unsent = 0;
	queues.send_scale = 15;
	is_damaged(&kind_tcp_socket, &message.base);
	queues.send_scale = 0;
	queues.window = data(3);
	is_damaged(&kind_tcp_socket, &message.base);
	queues.window = data(0);
	queues.send_buffer = UINT32_MAX;
	is_damaged(&kind_tcp_socket, &message.base);
	queues.send_buffer = 0;
	queues.receive.len = (size_t)1 << 40;
	is_damaged(&kind_tcp_socket, &message.base);
	queues.receive.len = 0;
	head.protocol = IPPROTO_UDP;
	is_damaged(&kind_tcp_socket, &message.base);
	head.protocol = IPPROTO_TCP;
	message.state = TCP_LISTEN;
	message.local.len = 0;
	queues.exact = false;
	is_damaged(&kind_tcp_socket, &message.base);
}

static void datagram_sockets_that_cannot_be_are_damaged(void **state)
{
	(void)state;
	Cairn__InetSocket message = CAIRN__INET_SOCKET__INIT;
	Cairn__Membership membership = CAIRN__MEMBERSHIP__INIT, *list[] = { &membership };
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(53) };
	prepare(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
	message.open = &open_;
	message.socket = &head;
	is_good(&kind_inet_socket, &message.base);
	message.local = (ProtobufCBinaryData){ sizeof address - 1, (uint8_t *)&address };
	is_damaged(&kind_inet_socket, &message.base);
	message.local.len = sizeof address;
	is_good(&kind_inet_socket, &message.base);
	message.shutdown = 4;
	is_damaged(&kind_inet_socket, &message.base);
	message.shutdown = 0;
	message.memberships = list;
	message.n_memberships = 1;
	membership.group = message.local;
	is_good(&kind_inet_socket, &message.base);
	membership.interface = (char[]){ "a name that no interface can have" };
	is_damaged(&kind_inet_socket, &message.base);
	membership.interface = (char[]){ "lo" };
	membership.n_sources = 65;
	is_damaged(&kind_inet_socket, &message.base);
	message.n_memberships = 0;
	head.type = SOCK_STREAM;
	is_damaged(&kind_inet_socket, &message.base);
}

static void packet_sockets_that_cannot_be_are_damaged(void **state)
{
	(void)state;
	Cairn__PacketSocket message = CAIRN__PACKET_SOCKET__INIT;
	Cairn__PacketMembership membership = CAIRN__PACKET_MEMBERSHIP__INIT, *list[] = { &membership };
	prepare(AF_PACKET, SOCK_RAW, 0);
	message.open = &open_;
	message.socket = &head;
	message.interface = (char[]){ "lo" };
	message.protocol = 0x88b5;
	const Cairn__PacketSocket good = message;
	is_good(&kind_packet_socket, &message.base);
	message.protocol = 0x10000;
	is_damaged(&kind_packet_socket, &message.base);
	message = good;
	message.interface = (char[]){ "a name that no interface can have" };
	is_damaged(&kind_packet_socket, &message.base);
	message = good;
	message.fanout = 6u << 16; /* by a program */
	is_damaged(&kind_packet_socket, &message.base);
	message = good;
	message.memberships = list;
	message.n_memberships = 1;
	membership.interface = (char[]){ "lo" };
	is_damaged(&kind_packet_socket, &message.base); /* joined how often? */
	membership.count = 1;
	is_good(&kind_packet_socket, &message.base);
	membership.address = data(33);
	is_damaged(&kind_packet_socket, &message.base);
	membership.address = data(32);
	membership.type = 4;
	is_damaged(&kind_packet_socket, &message.base);
	membership.type = 0;
	membership.count = 1u << 31; /* a loop until tomorrow */
	is_damaged(&kind_packet_socket, &message.base);
	message = good;
	head.type = SOCK_STREAM;
	is_damaged(&kind_packet_socket, &message.base);
}

/* A record of @kind with all that can be in one, as bytes. */
static size_t sample(const struct kind *kind, uint8_t out[4096])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ProtobufCBinaryData place = { sizeof address, (uint8_t *)&address };
	Cairn__SocketMessage queued = CAIRN__SOCKET_MESSAGE__INIT, *messages[] = { &queued };
	Cairn__SocketOption option = CAIRN__SOCKET_OPTION__INIT, *options[] = { &option };
	Cairn__Membership membership = CAIRN__MEMBERSHIP__INIT, *memberships[] = { &membership };
	Cairn__UnixSocket unix_ = CAIRN__UNIX_SOCKET__INIT;
	Cairn__TcpSocket tcp = CAIRN__TCP_SOCKET__INIT;
	Cairn__TcpQueues queues = CAIRN__TCP_QUEUES__INIT;
	Cairn__InetSocket inet = CAIRN__INET_SOCKET__INIT;
	Cairn__PacketSocket packet = CAIRN__PACKET_SOCKET__INIT;
	Cairn__PacketMembership joined = CAIRN__PACKET_MEMBERSHIP__INIT, *all_joined[] = { &joined };
	Cairn__NetlinkSocket netlink = CAIRN__NETLINK_SOCKET__INIT;
	prepare(kind == &kind_unix_socket ? AF_UNIX : kind == &kind_netlink_socket ? AF_NETLINK : kind == &kind_packet_socket ? AF_PACKET : AF_INET,
		kind == &kind_tcp_socket ? SOCK_STREAM : kind == &kind_packet_socket ? SOCK_RAW : SOCK_DGRAM,
		kind == &kind_tcp_socket ? IPPROTO_TCP : kind == &kind_inet_socket ? IPPROTO_UDP : 0);
	option.level = SOL_SOCKET;
	option.name = SO_RCVBUF;
	option.value = data(4);
	head.options = options;
	head.n_options = 1;
	queued.data = data(20);
	membership.group = queued.source = place;
	membership.interface = joined.interface = (char[]){ "lo" };
	joined.count = 2;
	joined.address = data(6);
	queues.exact = true;
	queues.send = queues.receive = data(10);
	unix_.open = tcp.open = inet.open = packet.open = netlink.open = &open_;
	unix_.socket = tcp.socket = inet.socket = packet.socket = netlink.socket = &head;
	tcp.local = tcp.remote = inet.local = inet.remote = place;
	tcp.queues = &queues;
	tcp.state = TCP_ESTABLISHED;
	unix_.name = data(10);
	unix_.messages = inet.messages = messages;
	inet.memberships = memberships;
	packet.memberships = all_joined;
	unix_.n_messages = inet.n_messages = inet.n_memberships = packet.n_memberships = 1;
	packet.interface = (char[]){ "lo" };
	const ProtobufCMessage *message = kind == &kind_unix_socket ? &unix_.base : kind == &kind_tcp_socket ? &tcp.base :
					  kind == &kind_inet_socket ? &inet.base : kind == &kind_packet_socket ? &packet.base : &netlink.base;
	return protobuf_c_message_pack(message, out);
}

/* Whatever the bytes are, they are a record that is good or damaged; under the sanitizers that is all that there is to see. */
static void any_bytes_are_good_or_damaged(void **state)
{
	static const struct kind *const tried[] = { &kind_unix_socket, &kind_tcp_socket, &kind_inet_socket, &kind_netlink_socket,
						    &kind_packet_socket };
	uint32_t random = 4711, good = 0, damaged = 0;
	(void)state;
	for (size_t k = 0; k < sizeof tried / sizeof *tried; k++) {
		uint8_t whole[4096], some[4096];
		size_t size = sample(tried[k], whole);
		for (int round = 0; round < 20000; round++) {
			struct fault fault = { 0 };
			memcpy(some, whole, size);
			for (int changes = round % 4; changes >= 0 && round; changes--) {
				random = random * 1664525 + 1013904223;
				some[(random >> 8) % size] = (uint8_t)(random >> 24);
			}
			ProtobufCMessage *message = protobuf_c_message_unpack(tried[k]->descriptor, NULL, size, some);
			assert_true(message || round);
			if (!message)
				continue;
			int rc = tried[k]->check(message, &fault);
			assert_true(rc == 0 || (round && fault.class == FAULT_IMAGE));
			good += rc == 0;
			damaged += rc < 0;
			protobuf_c_message_free_unpacked(message, NULL);
		}
	}
	assert_true(good > 1000 && damaged > 1000);
}

/* Sockets of these can be made on few kernels: what they are is said here instead. */
static void sockets_that_are_not_carried_are_refused_by_name(void **state)
{
	(void)state;
	static const struct {
		int identity[3];
		const char *name;
	} all[] = {
		{ { AF_INET, SOCK_STREAM, IPPROTO_SCTP }, "SCTP" }, { { AF_INET6, SOCK_SEQPACKET, IPPROTO_SCTP }, "SCTP" },
		{ { AF_VSOCK, SOCK_STREAM, 0 }, "vsock" }, { { 44 /* AF_XDP */, SOCK_RAW, 0 }, "XDP" },
		{ { AF_BLUETOOTH, SOCK_RAW, 1 }, "Bluetooth" }, { { AF_CAN, SOCK_RAW, 1 }, "CAN" }, { { AF_ALG, SOCK_SEQPACKET, 0 }, "AF_ALG" },
		{ { AF_INET, SOCK_DCCP, 33 }, "protocol 33" }, { { AF_TIPC, SOCK_RDM, 0 }, "domain 30" },
	};
	struct harvest harvest = { .frozen = true };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct frozen_file file = { .own = -1, .link = "socket:[1]", .stat = { .st_mode = S_IFSOCK }, .is_identified = true };
		struct fault fault = { 0 };
		const struct kind *found = NULL;
		memcpy(file.identity, all[i].identity, sizeof file.identity);
		for (const struct kind *const *kind = kinds; *kind && !found; kind++)
			if ((*kind)->probe && (*kind)->scope == SCOPE_FILE && (*kind)->probe(&file))
				found = *kind;
		assert_ptr_equal(found, &kind_other_socket);
		assert_true(found->refuse_file(&harvest, &file, &fault) < 0);
		assert_int_equal(fault.class, FAULT_UNSUPPORTED);
		assert_non_null(strstr(fault.text, all[i].name));
		assert_non_null(strstr(fault.text, "; try "));
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_out_of_range_are_damaged),
		cmocka_unit_test(unix_sockets_that_cannot_be_are_damaged),
		cmocka_unit_test(tcp_connections_that_cannot_be_are_damaged),
		cmocka_unit_test(datagram_sockets_that_cannot_be_are_damaged),
		cmocka_unit_test(packet_sockets_that_cannot_be_are_damaged),
		cmocka_unit_test(sockets_that_are_not_carried_are_refused_by_name),
		cmocka_unit_test(any_bytes_are_good_or_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
