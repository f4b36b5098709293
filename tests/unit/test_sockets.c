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

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_out_of_range_are_damaged),
		cmocka_unit_test(unix_sockets_that_cannot_be_are_damaged),
		cmocka_unit_test(tcp_connections_that_cannot_be_are_damaged),
		cmocka_unit_test(datagram_sockets_that_cannot_be_are_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
