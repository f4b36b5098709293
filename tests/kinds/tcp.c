/* SPDX-License-Identifier: Apache-2.0 */
/* variant v4: TCP sockets keep addresses, options, backlog, queues of both directions and every half-closed state */
/* variant v6: the same over IPv6 */
/* variant mapped: the same of IPv4 through IPv6 sockets */
#include "probe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

static int family = AF_INET;
static bool mapped;

static socklen_t loopback(struct sockaddr_storage *address, in_port_t port)
{
	memset(address, 0, sizeof *address);
	if (family == AF_INET) {
		struct sockaddr_in *four = (struct sockaddr_in *)address;
		*four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		return sizeof *four;
	}
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
	*six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	if (mapped) {
		static const uint8_t bytes[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1 };
		memcpy(&six->sin6_addr, bytes, 16);
	}
	return sizeof *six;
}

static in_port_t port_of(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET ? ((const struct sockaddr_in *)address)->sin_port :
					       ((const struct sockaddr_in6 *)address)->sin6_port;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static void set(int fd, int level, int name, int value)
{
	PROBE(setsockopt(fd, level, name, &value, sizeof value));
}

static int state(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof info;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info.tcpi_state;
}

static int listener(int backlog, in_port_t *ret_port)
{
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, 0);
	int fd = PROBE(socket(family, SOCK_STREAM, 0));
	PROBE(bind(fd, (struct sockaddr *)&address, size));
	PROBE(listen(fd, backlog));
	size = sizeof address;
	PROBE(getsockname(fd, (struct sockaddr *)&address, &size));
	*ret_port = port_of(&address);
	return fd;
}

static int connected(in_port_t port)
{
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, port);
	int fd = PROBE(socket(family, SOCK_STREAM, 0));
	PROBE(connect(fd, (struct sockaddr *)&address, size));
	return fd;
}

struct pair {
	int client, server;
};

static struct pair make_pair(int from, in_port_t port)
{
	struct pair pair;
	pair.client = connected(port);
	pair.server = PROBE(accept(from, NULL, NULL));
	return pair;
}

static void settled(int fd, int wanted)
{
	while (state(fd) != wanted)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void receive(int fd, const char *wanted, size_t size, const char *what)
{
	static char seen[300000];
	size_t got = 0;
	while (got < size) {
		struct pollfd pollfd = { .fd = fd, .events = POLLIN };
		if (poll(&pollfd, 1, 5000) <= 0)
			break;
		ssize_t n = recv(fd, seen + got, size - got, MSG_DONTWAIT);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	PROBE_SAME(got, size, what);
	if (got == size)
		probe_same_bytes(seen, wanted, size, what);
}

static void end_of(int fd, const char *what)
{
	char byte;
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	poll(&pollfd, 1, 3000);
	PROBE_SAME(recv(fd, &byte, 1, MSG_DONTWAIT), 0, what);
}

static void talk(int a, int b, const char *what)
{
	PROBE_SAME(send(a, what, strlen(what), MSG_NOSIGNAL), strlen(what), what);
	receive(b, what, strlen(what), what);
	PROBE_SAME(send(b, what, strlen(what), MSG_NOSIGNAL), strlen(what), what);
	receive(a, what, strlen(what), what);
}

int main(int argc, char **argv)
{
	static char data[200000];
	probe_fill(data, sizeof data, 7);
	if (argc > 1 && strcmp(argv[1], "v4"))
		family = AF_INET6;
	mapped = argc > 1 && !strcmp(argv[1], "mapped");
	in_port_t port;
	int from = listener(17, &port);
	set(from, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(from, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	set(from, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);

	/* Bound only; options before and after. */
	struct sockaddr_storage bound_address, address;
	socklen_t size = loopback(&bound_address, 0);
	int bound = PROBE(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	set(bound, SOL_SOCKET, SO_REUSEADDR, 1);
	set(bound, IPPROTO_TCP, TCP_NODELAY, 1);
	set(bound, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
	set(bound, IPPROTO_TCP, TCP_SYNCNT, 3);
	set(bound, IPPROTO_TCP, TCP_LINGER2, 11);
	set(bound, SOL_SOCKET, SO_RCVBUF, 40000);
	set(bound, IPPROTO_IP, IP_TOS, 0x10);
	PROBE(setsockopt(bound, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 9 }, sizeof(struct linger)));
	PROBE(bind(bound, (struct sockaddr *)&bound_address, size));
	size = sizeof bound_address;
	PROBE(getsockname(bound, (struct sockaddr *)&bound_address, &size));
	int fresh = PROBE(socket(family, SOCK_STREAM, 0));
	set(fresh, IPPROTO_TCP, TCP_MAXSEG, 777);

	struct pair plain = make_pair(from, port), queued = make_pair(from, port), cork = make_pair(from, port);
	set(plain.client, IPPROTO_TCP, TCP_NODELAY, 1);
	set(plain.client, SOL_SOCKET, SO_OOBINLINE, 1);
	PROBE(setsockopt(plain.server, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	PROBE(send(queued.client, data, 100000, 0));
	PROBE(send(queued.server, data + 100000, 70000, 0));
	set(cork.client, IPPROTO_TCP, TCP_CORK, 1);
	if (!getuid())
		PROBE(send(cork.client, "held back", 9, 0));
	/* Closed in one direction, or by one process altogether. */
	struct pair half = make_pair(from, port), other_half = make_pair(from, port), both = make_pair(from, port),
		    left = make_pair(from, port);
	PROBE(send(half.client, "before", 6, 0));
	PROBE(shutdown(half.client, SHUT_WR));
	PROBE(shutdown(other_half.server, SHUT_WR));
	PROBE(send(both.client, "unread", 6, 0));
	PROBE(shutdown(both.client, SHUT_WR));
	settled(both.server, TCP_CLOSE_WAIT);
	PROBE(shutdown(both.server, SHUT_WR));
	PROBE(send(left.client, "goodbye", 7, 0));
	PROBE(close(left.client));
	settled(half.client, TCP_FIN_WAIT2);
	settled(half.server, TCP_CLOSE_WAIT);
	settled(both.server, TCP_CLOSE);
	settled(left.server, TCP_CLOSE_WAIT);
	struct sockaddr_storage own, peer;
	size = sizeof own;
	PROBE(getsockname(plain.client, (struct sockaddr *)&own, &size));
	size = sizeof peer;
	PROBE(getpeername(plain.client, (struct sockaddr *)&peer, &size));

	probe_save();

	PROBE_SAME(state(from), TCP_LISTEN, "state of the listening one");
	PROBE_SAME(option(from, SOL_SOCKET, SO_REUSEADDR), 0, "SO_REUSEADDR of the listening one");
	PROBE_SAME(option(from, SOL_SOCKET, SO_KEEPALIVE), 1, "SO_KEEPALIVE");
	PROBE_SAME(option(from, IPPROTO_TCP, TCP_KEEPIDLE), 77, "TCP_KEEPIDLE");
	struct tcp_info info;
	size = sizeof info;
	getsockopt(from, IPPROTO_TCP, TCP_INFO, &info, &size);
	PROBE_SAME(info.tcpi_sacked, 17, "backlog");
	size = sizeof address;
	getsockname(bound, (struct sockaddr *)&address, &size);
	probe_same_bytes(&address, &bound_address, size, "address of the bound one");
	PROBE_SAME(option(bound, SOL_SOCKET, SO_REUSEADDR), 1, "SO_REUSEADDR");
	PROBE_SAME(option(bound, IPPROTO_TCP, TCP_NODELAY), 1, "TCP_NODELAY");
	PROBE_SAME(option(bound, IPPROTO_TCP, TCP_USER_TIMEOUT), 12345, "TCP_USER_TIMEOUT");
	PROBE_SAME(option(bound, IPPROTO_TCP, TCP_SYNCNT), 3, "TCP_SYNCNT");
	PROBE_SAME(option(bound, IPPROTO_TCP, TCP_LINGER2), 11, "TCP_LINGER2");
	PROBE_SAME(option(bound, SOL_SOCKET, SO_RCVBUF), 80000, "SO_RCVBUF");
	PROBE_SAME(option(bound, IPPROTO_IP, IP_TOS), 0x10, "IP_TOS");
	struct linger linger;
	size = sizeof linger;
	getsockopt(bound, SOL_SOCKET, SO_LINGER, &linger, &size);
	PROBE_SAME(linger.l_onoff * 100 + linger.l_linger, 109, "SO_LINGER");
	PROBE_SAME(fcntl(bound, F_GETFL), O_RDWR | O_NONBLOCK, "flags");
	PROBE_SAME(fcntl(bound, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(option(fresh, IPPROTO_TCP, TCP_MAXSEG), 777, "TCP_MAXSEG");

	size = sizeof address;
	getsockname(plain.client, (struct sockaddr *)&address, &size);
	probe_same_bytes(&address, &own, size, "own address of a connection");
	size = sizeof address;
	PROBE_SAME(getpeername(plain.client, (struct sockaddr *)&address, &size), 0, "peer of a connection");
	probe_same_bytes(&address, &peer, size, "peer's address of a connection");
	size = sizeof address;
	PROBE_SAME(getpeername(plain.server, (struct sockaddr *)&address, &size), 0, "peer of a connection's other end");
	probe_same_bytes(&address, &own, size, "peer's address of a connection's other end");
	char congestion[16] = "";
	size = sizeof congestion;
	getsockopt(plain.server, IPPROTO_TCP, TCP_CONGESTION, congestion, &size);
	PROBE_TRUE(!strcmp(congestion, "reno"), "congestion control");
	PROBE_SAME(option(plain.client, IPPROTO_TCP, TCP_NODELAY), 1, "TCP_NODELAY of a connection");
	PROBE_SAME(option(plain.server, SOL_SOCKET, SO_KEEPALIVE), 1, "SO_KEEPALIVE of an accepted one");
	PROBE_SAME(option(plain.client, SOL_SOCKET, SO_REUSEADDR), 0, "SO_REUSEADDR of a connection");
	PROBE_SAME(option(plain.client, SOL_SOCKET, SO_OOBINLINE), 1, "SO_OOBINLINE");
	talk(plain.client, plain.server, "both ways");
	receive(queued.server, data, 100000, "queue of the server");
	receive(queued.client, data + 100000, 70000, "queue of the client");
	talk(queued.server, queued.client, "after the queues");
	PROBE_SAME(option(cork.client, IPPROTO_TCP, TCP_CORK), 1, "TCP_CORK");
	set(cork.client, IPPROTO_TCP, TCP_CORK, 0);
	if (!getuid())
		receive(cork.server, "held back", 9, "what was held back");
	talk(cork.client, cork.server, "after the cork");

	receive(half.server, "before", 6, "before the end");
	end_of(half.server, "half closed by the client");
	PROBE_SAME(state(half.server), TCP_CLOSE_WAIT, "state of the half that is open");
	/* The acknowledgement of its end may be delayed by 40 ms. */
	for (int i = 0; i < 1000 && state(half.client) == TCP_FIN_WAIT1; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	PROBE_SAME(state(half.client), TCP_FIN_WAIT2, "state of the half that is closed");
	PROBE_SAME(send(half.server, "answer", 6, MSG_NOSIGNAL), 6, "against the close");
	receive(half.client, "answer", 6, "against the close");
	PROBE_SAME(send(half.client, "x", 1, MSG_NOSIGNAL), -1, "send of the closed half");
	PROBE_SAME(errno, EPIPE, "error of the closed half");
	end_of(other_half.client, "half closed by the server");
	PROBE_SAME(send(other_half.client, "to it", 5, MSG_NOSIGNAL), 5, "to the one that closed");
	receive(other_half.server, "to it", 5, "to the one that closed");
	receive(both.server, "unread", 6, "queue of a closed connection");
	end_of(both.server, "end of a closed connection");
	PROBE_SAME(send(both.server, "x", 1, MSG_NOSIGNAL), -1, "send to a closed connection");
	PROBE_SAME(errno, EPIPE, "error of a closed connection");
	receive(left.server, "goodbye", 7, "last words of one that left");
	end_of(left.server, "end of one that left");

	struct pair new = make_pair(from, port);
	talk(new.client, new.server, "new connection");
	return probe_end();
}
