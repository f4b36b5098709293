/* SPDX-License-Identifier: Apache-2.0 */
/* TCP, made again.
 *   make    plain sockets; connections whose ends were not read exactly, between their two ends, while nobody listens
 *   join    bound, listening; connections in repair mode, silent
 *   settle  queues of those that were not read exactly
 *   commit  the network is unlocked; they speak again; half closed as they were
 * A port may still be held by what the old program left behind (TIME_WAIT): every socket is bound with SO_REUSEADDR, and has its own value
 * at the end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/forge.h"
#include "kinds/sockets/option.h"
#include "kinds/sockets/tcp.h"

static const Cairn__TcpSocket *record_of(const struct workshop *workshop, uint32_t file)
{
	return (const Cairn__TcpSocket *)workshop_file(workshop, file, &cairn__tcp_socket__descriptor);
}

static int at(const Cairn__TcpSocket *message, int rc, struct fault *fault)
{
	return fault_at(fault, rc, "TCP socket %llu", (unsigned long long)message->socket->inode);
}

static bool is_outside(const Cairn__TcpSocket *message)
{
	return tcp_is_synchronized((uint8_t)message->state) && !message->peer && !message->ended && !message->reset;
}

bool tcp_is_unique(const ProtobufCMessage *base)
{
	return is_outside((const Cairn__TcpSocket *)base);
}

bool tcp_is_over(const Cairn__TcpSocket *message, bool closing)
{
	return message->ended || message->reset || (is_outside(message) && closing);
}

static int set_reuse(int fd, int value)
{
	return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, sizeof value);
}

static void say_address(const ProtobufCBinaryData *bytes, char text[ADDRESS_TEXT])
{
	struct inet_address address;
	address_parse(bytes->data, bytes->len, &address);
	address_text(&address, text);
}

static int make_fresh(const Cairn__TcpSocket *message, int *ret_fd, struct fault *fault)
{
	int rc = socket_make(message->socket, ret_fd, fault);
	if (rc == 0)
		set_reuse(*ret_fd, 1);
	return rc;
}

/* What holds a port for nobody: connections that no process has any more. For a minute, in TIME_WAIT, or in FIN_WAIT2, where the other end was killed and has said
 * nothing. Neither has data to send, so ending them, which is permitted to CAP_NET_ADMIN, harms nobody. They hold it against SO_REUSEADDR, too, if the old socket had it not. */
struct port_remains {
	size_t count;
	bool listened; /* but somebody has it */
};

static struct port_remains sweep_port(const ProtobufCBinaryData *local)
{
	struct port_remains remains = { 0 };
	struct arena arena = { 0 };
	struct tcp_ends ends = { 0 };
	struct inet_address address;
	if (address_parse(local->data, local->len, &address) && sockdiag_tcp(&arena, (uint32_t)TCP_STATES_ALL, &ends, NULL) == 0)
		for (size_t i = 0; i < ends.count; i++) {
			const struct tcp_end *end = &ends.at[i];
			if (end->local_port != address.port)
				continue;
			remains.listened |= end->state == TCP_LISTEN;
			remains.count += !end->inode && end->state != TCP_LISTEN;
			if (!end->inode && (end->state == TCP_TIME_WAIT || end->state == TCP_FIN_WAIT2))
				sockdiag_tcp_destroy(address.family, end);
		}
	arena_finish(&arena);
	return remains;
}

/* Until the kernel has forgotten them, where they may not be ended. -EADDRINUSE: it is held by somebody, or for too long. */
static int bind_patiently(const struct workshop *workshop, int fd, const ProtobufCBinaryData *local, struct fault *fault)
{
	const uint64_t patience_ns = UINT64_C(65000000000), pause_ns = 100000000, until = clock_now_ns() + patience_ns;
	char text[ADDRESS_TEXT];
	for (bool said = false;; said = true) {
		struct port_remains remains = sweep_port(local);
		if (bind(fd, (const struct sockaddr *)local->data, (socklen_t)local->len) == 0)
			return 0;
		if (errno != EADDRINUSE || remains.listened || !remains.count || clock_now_ns() > until)
			return -errno;
		int rc = deadline_check(workshop->deadline, fault);
		if (rc < 0)
			return rc;
		say_address(local, text);
		if (!said)
			log_warn("%s: is held for up to a minute by connections that were closed (TIME_WAIT), which only root may end; continuing when it is free", text);
		clock_sleep_ns(pause_ns);
	}
}

static int bind_to(const struct workshop *workshop, int fd, const ProtobufCBinaryData *local, struct fault *fault)
{
	char text[ADDRESS_TEXT];
	if (!local->len || bind(fd, (const struct sockaddr *)local->data, (socklen_t)local->len) == 0)
		return 0;
	int error = errno, rc = error == EADDRINUSE ? bind_patiently(workshop, fd, local, fault) : -error;
	if (rc == 0 || rc == -ETIMEDOUT)
		return rc;
	error = -rc;
	say_address(local, text);
	return fault_set(fault, fault_class_of(error), error, "bind %s: %s; try %s", text, strerror(error),
			 error == EADDRNOTAVAIL ? "--map-address, for a host with another address" :
			 error == EACCES ? "as root, which may bind such a port" : "to end the program that has it now");
}

/* ---- between two ends of Cairn's own ---- */

/* A listening socket at @local (NULL: at loopback), for one connection. */
static int listen_once(const struct workshop *workshop, int domain, const ProtobufCBinaryData *local, struct fault *fault)
{
	_close_ int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int on = 1;
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "socket: %s", strerror(errno));
	set_reuse(fd, 1);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int rc = local ? bind_to(workshop, fd, local, fault) :
		 bind(fd, domain == AF_INET6 ? (struct sockaddr *)&six : (struct sockaddr *)&four,
		      domain == AF_INET6 ? sizeof six : sizeof four) < 0 ?
			 fault_set(fault, fault_class_of(errno), errno, "bind to loopback: %s", strerror(errno)) : 0;
	if (rc == 0 && listen(fd, 8) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "listen: %s", strerror(errno));
	return rc < 0 ? rc : fd_steal(&fd);
}

/* The connection that came from @client; somebody else's is closed. */
static int accept_from(int listener, int client, struct fault *fault)
{
	struct sockaddr_storage address;
	struct inet_address wanted, seen;
	socklen_t size = sizeof address;
	if (getsockname(client, (struct sockaddr *)&address, &size) < 0 || !address_parse(&address, size, &wanted))
		return fault_set(fault, FAULT_FAILED, errno, "getsockname: %s", strerror(errno));
	for (;;) {
		struct pollfd pollfd = { .fd = listener, .events = POLLIN };
		if (poll(&pollfd, 1, 5000) <= 0)
			return fault_set(fault, FAULT_FAILED, ETIMEDOUT, "a connection within Cairn did not arrive");
		size = sizeof address;
		int fd = accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);
		if (fd < 0)
			return fault_set(fault, fault_class_of(errno), errno, "accept: %s", strerror(errno));
		if (address_parse(&address, size, &seen) && address_same(&seen, &wanted))
			return fd;
		close(fd);
	}
}

/* What the old connection left behind passes, or is ended where that is permitted. */
static bool clear_place(const Cairn__TcpSocket *message, uint64_t until_ns)
{
	struct inet_address local, remote;
	address_parse(message->local.data, message->local.len, &local);
	address_parse(message->remote.data, message->remote.len, &remote);
	const struct inet_address *ends[] = { &local, &remote };
	for (size_t i = 0; i < 2; i++) {
		struct tcp_end end = { .local_port = ends[i]->port, .remote_port = ends[!i]->port };
		memcpy(end.local, &ends[i]->ip, 16);
		memcpy(end.remote, &ends[!i]->ip, 16);
		if (message->peer || i == 0)
			sockdiag_tcp_destroy(local.family, &end);
	}
	if (clock_now_ns() > until_ns)
		return false;
	clock_sleep_ns(20000000);
	return true;
}

static int connect_patiently(const Cairn__TcpSocket *message, int fd, struct fault *fault)
{
	const uint64_t patience_ns = UINT64_C(3000000000), until = clock_now_ns() + patience_ns;
	while (connect(fd, (const struct sockaddr *)message->remote.data, (socklen_t)message->remote.len) < 0) {
		if (errno != EADDRNOTAVAIL || !clear_place(message, until))
			return fault_set(fault, fault_class_of(errno), errno, "connect: %s", strerror(errno));
	}
	return 0;
}

/* Both ends were in the tree and nothing was on its way between them: a new connection with the same addresses. */
static int make_between(struct workshop *workshop, const Cairn__TcpSocket *client, const Cairn__TcpSocket *server,
			struct fault *fault)
{
	_close_ int listener = listen_once(workshop, (int)server->socket->domain, &client->remote, fault);
	int fd, rc = listener < 0 ? listener : make_fresh(client, &fd, fault);
	if (rc < 0)
		return rc;
	workshop_put(workshop, client->open->file, fd);
	rc = bind_to(workshop, fd, &client->local, fault);
	if (rc == 0)
		rc = connect_patiently(client, fd, fault);
	int other = rc < 0 ? rc : accept_from(listener, fd, fault);
	if (other < 0)
		return other;
	workshop_put(workshop, server->open->file, other);
	return options_set(other, server->socket, OPTION_FIRST, fault);
}

/* The other end is gone or is to be: a connection over loopback, whose other end closes at the end. */
static int make_over(struct workshop *workshop, const Cairn__TcpSocket *message, struct fault *fault)
{
	_close_ int listener = listen_once(workshop, (int)message->socket->domain, NULL, fault), second = -1;
	int fd, rc = listener < 0 ? listener : make_fresh(message, &fd, fault);
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	if (rc < 0)
		return rc;
	workshop_put(workshop, message->open->file, fd);
	if (getsockname(listener, (struct sockaddr *)&address, &size) < 0 || connect(fd, (struct sockaddr *)&address, size) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "connect within Cairn: %s", strerror(errno));
	second = accept_from(listener, fd, fault);
	if (second < 0)
		return second;
	workshop_put_second(workshop, message->open->file, fd_steal(&second));
	return 0;
}

int tcp_make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__TcpSocket *message = (const Cairn__TcpSocket *)base;
	const Cairn__TcpSocket *peer = message->peer ? record_of(workshop, message->peer) : NULL;
	int fd, rc;
	if (workshop_fd(workshop, message->open->file) >= 0)
		return 0;
	if (message->peer && (!peer || peer == message || peer->peer != message->open->file || !peer->queues))
		return at(message, fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: its other end is none"), fault);
	if (tcp_is_over(message, workshop->close_connections))
		rc = make_over(workshop, message, fault);
	else if (peer && !(message->queues->exact && peer->queues->exact))
		/* Who was the client is not known; the kernel's choice of ports tells often, and it does not matter. */
		rc = make_between(workshop, message, peer, fault);
	else
		rc = make_fresh(message, &fd, fault), rc == 0 ? workshop_put(workshop, message->open->file, fd) : (void)0;
	return rc < 0 ? at(message, rc, fault) : 0;
}

/* ---- join ---- */

static bool is_exact(const struct workshop *workshop, const Cairn__TcpSocket *message)
{
	const Cairn__TcpSocket *peer = message->peer ? record_of(workshop, message->peer) : NULL;
	return tcp_is_synchronized((uint8_t)message->state) && !tcp_is_over(message, workshop->close_connections) && message->queues->exact &&
	       (!peer || peer->queues->exact);
}

static int connect_exact(struct workshop *workshop, const Cairn__TcpSocket *message, struct fault *fault)
{
	const uint64_t patience_ns = UINT64_C(3000000000), until = clock_now_ns() + patience_ns;
	for (;;) {
		int fd = workshop_fd(workshop, message->open->file);
		int rc = tcp_queues_connect(fd, message, fault);
		if (rc != -EADDRNOTAVAIL && rc != -EADDRINUSE)
			return rc;
		if (!clear_place(message, until))
			return rc;
		/* One that failed is half made. */
		int again, made = make_fresh(message, &again, fault);
		if (made < 0)
			return made;
		close(fd);
		workshop_put(workshop, message->open->file, again);
	}
}

int tcp_join(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__TcpSocket *message = (const Cairn__TcpSocket *)base;
	int fd = workshop_fd(workshop, message->open->file), rc = 0;
	bool is_connected = tcp_is_synchronized((uint8_t)message->state);
	if (is_exact(workshop, message))
		rc = connect_exact(workshop, message, fault);
	else if (!is_connected && !tcp_is_over(message, workshop->close_connections))
		rc = bind_to(workshop, fd, &message->local, fault);
	fd = workshop_fd(workshop, message->open->file);
	if (rc == 0)
		rc = options_set(fd, message->socket, OPTION_MADE, fault);
	if (rc == 0 && message->state == TCP_LISTEN && listen(fd, (int)message->backlog) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "listen: %s", strerror(errno));
	return rc < 0 ? at(message, rc, fault) : 0;
}

/* ---- settle ---- */

/* As if the other end had sent it: it does. */
static int send_all(int from, int to, const ProtobufCBinaryData *bytes, struct fault *fault)
{
	const int room = (int)bytes->len + (1 << 16);
	if (setsockopt(to, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0)
		setsockopt(to, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	for (size_t done = 0; done < bytes->len;) {
		struct pollfd pollfd = { .fd = from, .events = POLLOUT };
		ssize_t sent = send(from, bytes->data + done, bytes->len - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN && poll(&pollfd, 1, 2000) > 0)
			continue;
		if (sent < 0)
			return fault_set(fault, fault_class_of(errno), errno, "received data of %zu bytes: %s", bytes->len,
					 strerror(errno));
		done += (size_t)sent;
	}
	/* Arrived, not only sent. */
	const uint64_t until = clock_now_ns() + UINT64_C(2000000000);
	int there = 0;
	while (ioctl(to, FIONREAD, &there) == 0 && (size_t)there < bytes->len && clock_now_ns() < until)
		clock_sleep_ns(1000000);
	return 0;
}

int tcp_settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__TcpSocket *message = (const Cairn__TcpSocket *)base;
	if (!message->queues || !message->queues->receive.len || is_exact(workshop, message))
		return 0;
	int from = message->peer ? workshop_fd(workshop, message->peer) : workshop_second(workshop, message->open->file);
	int rc = send_all(from, workshop_fd(workshop, message->open->file), &message->queues->receive, fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}

/* ---- commit ---- */

static void wait_for_state(int fd, bool (*is_there)(uint32_t))
{
	const uint64_t until = clock_now_ns() + UINT64_C(1000000000);
	struct tcp_info info = { .tcpi_state = 0 };
	socklen_t size = sizeof info;
	while (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && !is_there(info.tcpi_state) && clock_now_ns() < until)
		clock_sleep_ns(500000);
}

static bool is_peer_closed(uint32_t state)
{
	return tcp_has_received_fin(state) || state == TCP_CLOSE || state == TCP_TIME_WAIT;
}

static void end_over(struct workshop *workshop, const Cairn__TcpSocket *message, int fd)
{
	const struct linger at_once = { 1, 0 };
	int second = workshop_second(workshop, message->open->file);
	if (second < 0)
		return;
	bool is_reset = message->reset || (!message->ended && workshop->close_connections);
	if (is_reset)
		setsockopt(second, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	else if (message->state == TCP_CLOSE || tcp_has_sent_fin(message->state))
		shutdown(fd, SHUT_WR);
	close(second);
	workshop_put_second(workshop, message->open->file, -1);
	wait_for_state(fd, is_peer_closed);
}

/* Its end of stream, again. An end in the tree acknowledges it at once, so that it is as far as it was. */
static void close_half(struct workshop *workshop, const Cairn__TcpSocket *message, int fd)
{
	const int once = 2;
	shutdown(fd, SHUT_WR);
	if (message->peer)
		setsockopt(workshop_fd(workshop, message->peer), IPPROTO_TCP, TCP_QUICKACK, &once, sizeof once);
}

/* The end of stream of a peer outside, which has been acknowledged and does not come again. */
static int hear_fin(const Cairn__TcpSocket *message, int fd, struct fault *fault)
{
	struct inet_address local, remote;
	const Cairn__TcpQueues *queues = message->queues;
	address_parse(message->local.data, message->local.len, &local);
	address_parse(message->remote.data, message->remote.len, &remote);
	uint32_t sequence = queues->receive_sequence + (uint32_t)queues->receive.len;
	struct tcp_repair_window window = { .snd_wnd = 0xffff };
	if (queues->window.len == sizeof window)
		memcpy(&window, queues->window.data, sizeof window);
	int rc = forge_fin(&remote, &local, sequence, queues->send_sequence, (uint16_t)(window.snd_wnd >> queues->send_scale));
	if (rc < 0)
		return fault_set(fault, fault_class_of(-rc), -rc, "its peer's end of stream (CAP_NET_RAW): %s; try --tcp close",
				 strerror(-rc));
	wait_for_state(fd, is_peer_closed);
	return 0;
}

static int release_outside(struct workshop *workshop, struct fault *fault)
{
	if (!workshop->image_id[0])
		return 0;
	int rc = lock_release(workshop->image_id, fault);
	if (rc == 0)
		workshop->image_id[0] = 0; /* once is enough */
	return rc;
}

int tcp_commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__TcpSocket *message = (const Cairn__TcpSocket *)base;
	int fd = workshop_fd(workshop, message->open->file), rc = 0;
	if (is_outside(message))
		rc = release_outside(workshop, fault);
	if (rc == 0 && is_exact(workshop, message))
		rc = tcp_queues_release(fd, message, is_outside(message) && workshop->maps_addresses, fault);
	else if (rc == 0 && tcp_is_over(message, workshop->close_connections))
		end_over(workshop, message, fd);
	if (rc == 0 && is_outside(message) && is_exact(workshop, message) && tcp_has_received_fin(message->state))
		rc = hear_fin(message, fd, fault);
	if (rc == 0 && tcp_has_sent_fin(message->state) && !tcp_is_over(message, workshop->close_connections))
		close_half(workshop, message, fd);
	set_reuse(fd, options_int(message->socket, SOL_SOCKET, SO_REUSEADDR, 0));
	if (rc == 0)
		rc = socket_finish(workshop, message->open, message->socket, fault);
	if (rc == 0 && message->state == TCP_SYN_SENT) {
		/* It was about to connect, and is so again. */
		int flags = fcntl(fd, F_GETFL);
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
		if (connect(fd, (const struct sockaddr *)message->remote.data, (socklen_t)message->remote.len) < 0 &&
		    errno != EINPROGRESS)
			log_warn("TCP socket %llu: connect: %s; continuing without it", (unsigned long long)message->socket->inode,
				 strerror(errno));
		fcntl(fd, F_SETFL, flags);
	}
	return rc < 0 ? at(message, rc, fault) : 0;
}
