/* SPDX-License-Identifier: Apache-2.0 */
/* One TCP socket's queues and numbers, by TCP_REPAIR (net/ipv4/tcp.c). Entering repair mode makes the socket's SO_REUSEADDR "force", leaving it
 * makes it 0 whatever it was: it is put back. TCP_REPAIR_OFF_NO_WP leaves without a window probe, so that the peer sees nothing.
 * A FIN counts as one in the sequence numbers and is no byte in a queue: a socket that has sent or received one is connected one
 * number earlier, and the FIN comes again when it speaks. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crew.h"
#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/guard.h"
#include "kinds/sockets/option.h"
#include "kinds/sockets/tcp.h"

enum { QUEUE_NONE, QUEUE_RECEIVE, QUEUE_SEND }; /* TCP_REPAIR_QUEUE */
enum { REPAIR_OFF_NO_PROBE = -1, QUEUE_MOST = 1 << 30, TRIES = 20, MAXSEG_MOST = 32767, BUF_LOCK = 72 /* SO_BUF_LOCK */ };

bool tcp_has_received_fin(uint32_t state)
{
	return state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

bool tcp_has_sent_fin(uint32_t state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

/* Acknowledged means that it is not in the send queue's count any more. */
static bool own_fin_is_queued(uint8_t state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

static int set_int(int fd, int name, int value)
{
	return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value) < 0 ? -errno : 0;
}

static int get_int(int fd, int level, int name)
{
	int value = 0;
	socklen_t size = sizeof value;
	getsockopt(fd, level, name, &value, &size);
	return value;
}

bool tcp_can_repair(void)
{
	_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && set_int(fd, TCP_REPAIR, 1) == 0;
}

/* ---- frozen ---- */

static int sequence(int fd, int queue, uint32_t *ret_sequence)
{
	socklen_t size = sizeof *ret_sequence;
	int rc = set_int(fd, TCP_REPAIR_QUEUE, queue);
	return rc < 0 ? rc : getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, ret_sequence, &size) < 0 ? -errno : 0;
}

static int peek(int fd, struct arena *arena, int size, ProtobufCBinaryData *ret_bytes)
{
	*ret_bytes = (ProtobufCBinaryData){ 0 };
	if (size <= 0)
		return 0;
	ret_bytes->data = arena_new(arena, (size_t)size);
	ssize_t got = recv(fd, ret_bytes->data, (size_t)size, MSG_PEEK | MSG_DONTWAIT);
	ret_bytes->len = got < 0 ? 0 : (size_t)got;
	return got == size ? 0 : got < 0 ? -errno : -EAGAIN;
}

/* A look at the send queue gives whole segments, of which the first may be acknowledged in part (tcp_peek_sndq; tcp_clean_rtx_queue takes a
 * segment off only when all of it is): after a restore its peer may have had the beginning. @size bytes count, and they are the last ones. */
static int peek_sent(int fd, struct arena *arena, int size, ProtobufCBinaryData *ret_bytes)
{
	enum { SEGMENT_MOST = 1 << 17 };
	*ret_bytes = (ProtobufCBinaryData){ 0 };
	if (size <= 0)
		return 0;
	_free_ uint8_t *buffer = memory_resize(NULL, (size_t)size + SEGMENT_MOST);
	ssize_t got = recv(fd, buffer, (size_t)size + SEGMENT_MOST, MSG_PEEK | MSG_DONTWAIT);
	if (got < size || got > size + SEGMENT_MOST)
		return got < 0 ? -errno : -EAGAIN;
	ret_bytes->data = arena_copy(arena, buffer + (got - size), (size_t)size);
	ret_bytes->len = (size_t)size;
	return 0;
}

static int count(int fd, unsigned long request)
{
	int value = 0;
	return ioctl(fd, request, &value) < 0 ? -errno : value;
}

/* In repair mode. Nothing moves while the sequence number does not. */
static int read_received(const struct tcp_look *look, struct arena *arena, Cairn__TcpQueues *message)
{
	int fd = look->own;
	uint32_t end, again;
	socklen_t size = sizeof again;
	int rc = sequence(fd, QUEUE_RECEIVE, &end), received = count(fd, SIOCINQ);
	if (rc == 0)
		rc = peek(fd, arena, received, &message->receive);
	if (rc < 0)
		return rc;
	message->receive_sequence = end - (uint32_t)message->receive.len - tcp_has_received_fin(look->state);
	if (getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &again, &size) < 0)
		return -errno;
	return again == end ? 0 : -EAGAIN;
}

/* The send queue ends at the send sequence, but for a FIN. Its program stands still, so that it only gets shorter. */
static int read_sent(const struct tcp_look *look, struct arena *arena, Cairn__TcpQueues *message)
{
	int fd = look->own;
	uint32_t end;
	int queued = count(fd, SIOCOUTQ) - own_fin_is_queued(look->state), rc = sequence(fd, QUEUE_SEND, &end);
	int unsent = rc == 0 && queued > 0 ? count(fd, SIOCOUTQNSD) : 0;
	if (rc == 0)
		rc = peek_sent(fd, arena, queued, &message->send);
	if (rc < 0)
		return rc;
	message->send_sequence = end - (uint32_t)message->send.len - tcp_has_sent_fin(look->state);
	message->unsent = unsent <= 0 ? 0 : unsent > queued ? (uint32_t)queued : (uint32_t)unsent;
	return queued <= 0 || count(fd, SIOCOUTQ) - own_fin_is_queued(look->state) == queued ? 0 : -EAGAIN;
}

/* -ESTALE: it is not in the state any more that it was looked at in. */
static int read_rest(const struct tcp_look *look, struct arena *arena, Cairn__TcpQueues *message)
{
	struct tcp_info info = { 0 };
	struct tcp_repair_window window;
	socklen_t size = sizeof info;
	if (getsockopt(look->own, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
		return -errno;
	if (info.tcpi_state != look->state)
		return -ESTALE;
	message->options = info.tcpi_options;
	message->send_scale = info.tcpi_snd_wscale;
	message->receive_scale = info.tcpi_rcv_wscale;
	message->mss = (uint32_t)get_int(look->own, IPPROTO_TCP, TCP_MAXSEG);
	if (info.tcpi_options & TCPI_OPT_TIMESTAMPS)
		message->timestamp = (uint32_t)get_int(look->own, IPPROTO_TCP, TCP_TIMESTAMP);
	size = sizeof window;
	if (getsockopt(look->own, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &size) == 0 && size == sizeof window)
		message->window = (ProtobufCBinaryData){ sizeof window, arena_copy(arena, &window, sizeof window) };
	return 0;
}

/* The kernel's numbers (linux/sock_diag.h); SO_MEMINFO since 4.12. */
enum { MEMORY_RECEIVE_BUFFER = 1, MEMORY_SEND_BUFFER = 3, MEMORY_COUNT = 9 };

static void read_buffers(int fd, const struct socket_asked *asked, Cairn__TcpQueues *message)
{
	uint32_t memory[MEMORY_COUNT] = { 0 };
	socklen_t size = sizeof memory;
	if (!asked)
		getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size);
	message->send_buffer = asked ? asked->send_buffer : memory[MEMORY_SEND_BUFFER];
	message->receive_buffer = asked ? asked->receive_buffer : memory[MEMORY_RECEIVE_BUFFER];
}

static int read_exact(const struct tcp_look *look, struct tcp_guard *guard, struct arena *arena, Cairn__TcpQueues *message)
{
	guard_watch(guard, look->own, look->reuse);
	int rc = set_int(look->own, TCP_REPAIR, 1);
	if (rc < 0) {
		guard_forget(guard, look->own);
		return rc;
	}
	/* What was on its way when the tree was frozen still arrives: a moment later it is there. */
	for (int i = 0; i < TRIES && (i == 0 || rc == -EAGAIN); i++) {
		if (i > 2)
			clock_sleep_ns(1000000);
		rc = read_received(look, arena, message);
		if (rc == 0)
			rc = read_sent(look, arena, message);
	}
	if (rc == 0)
		rc = read_rest(look, arena, message);
	set_int(look->own, TCP_REPAIR, REPAIR_OFF_NO_PROBE);
	if (look->reuse) /* leaving takes it away */
		setsockopt(look->own, SOL_SOCKET, SO_REUSEADDR, &look->reuse, sizeof look->reuse);
	guard_forget(guard, look->own);
	message->exact = rc == 0;
	return rc;
}

/* 0 or a negative errno. */
static int read_queues(const struct tcp_look *look, struct tcp_guard *guard, const struct socket_asked *asked, const Cairn__Socket *options,
		       struct arena *arena, Cairn__TcpQueues *message)
{
	int own = look->own, offset = options_int(options, SOL_SOCKET, SO_PEEK_OFF, -1), none = -1, rc = -EPERM;
	cairn__tcp_queues__init(message);
	if (offset >= 0) /* 6.9: a program that peeks from an offset */
		setsockopt(own, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof none);
	read_buffers(own, asked, message);
	message->buffer_locks = (options_int(options, SOL_SOCKET, SO_SNDBUF, 0) ? 1 : 0) |
				(options_int(options, SOL_SOCKET, SO_RCVBUF, 0) ? 2 : 0);
	if (tcp_is_synchronized(look->state))
		rc = read_exact(look, guard, arena, message);
	/* Without CAP_NET_ADMIN, of MPTCP, or when it has ended: what was received. */
	if (rc == -EPERM || rc == -ENOPROTOOPT || rc == -EOPNOTSUPP)
		rc = peek(own, arena, count(own, SIOCINQ), &message->receive);
	if (offset >= 0)
		setsockopt(own, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset);
	return rc;
}

int tcp_queues_capture(struct harvest *harvest, struct tcp_look *look, const Cairn__Socket *options, Cairn__TcpQueues *ret_queues,
		       struct fault *fault)
{
	look->reuse = options_int(options, SOL_SOCKET, SO_REUSEADDR, 0);
	int rc = read_queues(look, guard_get(harvest), NULL, options, &harvest->arena, ret_queues);
	if (rc == -EAGAIN || rc == -ESTALE)
		return fault_set_transient(fault, FAULT_FAILED, EAGAIN, "TCP: its queues change while they are read; try again");
	return rc == 0 ? 0 : fault_set(fault, fault_class_of(-rc), -rc, "TCP: its queues cannot be read: %s", strerror(-rc));
}

/* ---- of many ---- */

struct ahead {
	struct harvest *harvest;
	struct frozen_file *const *files;
	struct tcp_guard *guard;
	struct arena arenas[CREW_MOST];
};

static void read_one(void *context, unsigned worker, size_t item)
{
	struct ahead *ahead = context;
	const struct frozen_file *file = ahead->files[item];
	const struct socket_asked *asked = file ? socket_asked(socket_scene(ahead->harvest), file) : NULL;
	Cairn__Socket options;
	struct tcp_look *look = asked ? file->note : NULL;
	if (!look || !options_known(ahead->harvest, file, &options))
		return;
	look->reuse = options_int(&options, SOL_SOCKET, SO_REUSEADDR, 0);
	Cairn__TcpQueues *queues = ARENA_NEW(&ahead->arenas[worker], Cairn__TcpQueues);
	if (read_queues(look, ahead->guard, asked, &options, &ahead->arenas[worker], queues) == 0)
		look->queues = queues;
}

void tcp_queues_ahead(struct harvest *harvest, struct frozen_file *const files[], size_t count)
{
	struct ahead ahead = { .harvest = harvest, .files = files, .guard = guard_get(harvest) };
	options_read_ahead(harvest);
	crew_run(count, CREW_FILES, read_one, &ahead);
	for (size_t i = 0; i < CREW_MOST; i++)
		arena_join(&harvest->arena, &ahead.arenas[i]);
}

/* ---- image ---- */

int tcp_queues_check(const Cairn__TcpQueues *message, struct fault *fault)
{
	if (message->send.len > QUEUE_MOST || message->receive.len > QUEUE_MOST || message->unsent > message->send.len ||
	    message->mss > 65535 || message->send_scale > 14 || message->receive_scale > 14 ||
	    message->send_buffer > INT32_MAX || message->receive_buffer > INT32_MAX || message->buffer_locks > 3 ||
	    (message->window.len && message->window.len != sizeof(struct tcp_repair_window)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a TCP connection has impossible queues");
	return 0;
}

/* ---- newborn ---- */

static int failed(struct fault *fault, int rc, const char *what)
{
	return fault_set(fault, fault_class_of(-rc), -rc, "%s: %s", what, strerror(-rc));
}

static int set_options(int fd, const Cairn__TcpQueues *queues)
{
	struct tcp_repair_opt options[4];
	socklen_t used = 0;
	options[used++] = (struct tcp_repair_opt){ TCPOPT_MAXSEG, queues->mss };
	if (queues->options & TCPI_OPT_WSCALE)
		options[used++] = (struct tcp_repair_opt){ TCPOPT_WINDOW, queues->send_scale | queues->receive_scale << 16 };
	if (queues->options & TCPI_OPT_SACK)
		options[used++] = (struct tcp_repair_opt){ TCPOPT_SACK_PERMITTED, 0 };
	if (queues->options & TCPI_OPT_TIMESTAMPS)
		options[used++] = (struct tcp_repair_opt){ TCPOPT_TIMESTAMP, 0 };
	int rc = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, used * (socklen_t)sizeof *options) < 0 ? -errno : 0;
	if (rc == 0 && (queues->options & TCPI_OPT_TIMESTAMPS))
		rc = set_int(fd, TCP_TIMESTAMP, (int)queues->timestamp);
	return rc;
}

static int fill(int fd, int queue, const uint8_t *data, size_t size)
{
	int rc = set_int(fd, TCP_REPAIR_QUEUE, queue);
	/* The kernel takes one skb of at most this much in repair mode (tcp_send_rcvq allocates it in one piece). */
	for (size_t done = 0; rc == 0 && done < size;) {
		size_t some = size - done < 32768 ? size - done : 32768;
		ssize_t sent = send(fd, data + done, some, MSG_DONTWAIT);
		if (sent <= 0)
			rc = sent < 0 ? -errno : -EIO;
		else
			done += (size_t)sent;
	}
	return rc;
}

/* As large as they were, and larger while more than that is in them: the accounting of a refilled queue is not that of old. */
static void set_buffers(int fd, const Cairn__TcpQueues *queues, size_t headroom)
{
	const int buffers[][3] = {
		{ SO_SNDBUFFORCE, SO_SNDBUF, (int)(queues->send_buffer / 2 + (headroom ? queues->send.len * 2 + headroom : 0)) },
		{ SO_RCVBUFFORCE, SO_RCVBUF, (int)(queues->receive_buffer / 2 + (headroom ? queues->receive.len * 2 + headroom : 0)) },
	};
	for (size_t i = 0; i < 2; i++)
		if (setsockopt(fd, SOL_SOCKET, buffers[i][0], &buffers[i][2], sizeof(int)) < 0)
			setsockopt(fd, SOL_SOCKET, buffers[i][1], &buffers[i][2], sizeof(int));
	if (!headroom) /* the last word: the kernel may go on choosing what the program has not set */
		setsockopt(fd, SOL_SOCKET, BUF_LOCK, &(int){ (int)queues->buffer_locks }, sizeof(int));
}

/* A window that was advertised with the peer's FIN lies beyond what the socket has received without it. */
static int set_window(int fd, const Cairn__TcpQueues *queues)
{
	struct tcp_repair_window window;
	uint32_t received = queues->receive_sequence + (uint32_t)queues->receive.len;
	if (!queues->window.len)
		return 0;
	memcpy(&window, queues->window.data, sizeof window);
	if ((int32_t)(window.rcv_wup - received) > 0)
		window.rcv_wup = received;
	if ((int32_t)(window.snd_wl1 - received) > 0)
		window.snd_wl1 = received;
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof window) < 0 ? -errno : 0;
}

int tcp_queues_connect(int fd, const Cairn__TcpSocket *message, struct fault *fault)
{
	const Cairn__TcpQueues *queues = message->queues;
	int rc = set_int(fd, TCP_REPAIR, 1);
	if (rc == 0 && bind(fd, (const struct sockaddr *)message->local.data, (socklen_t)message->local.len) < 0)
		rc = -errno;
	if (rc < 0)
		return failed(fault, rc, "bind");
	set_buffers(fd, queues, 1 << 20);
	if (set_int(fd, TCP_REPAIR_QUEUE, QUEUE_SEND) < 0 || set_int(fd, TCP_QUEUE_SEQ, (int)queues->send_sequence) < 0 ||
	    set_int(fd, TCP_REPAIR_QUEUE, QUEUE_RECEIVE) < 0 || set_int(fd, TCP_QUEUE_SEQ, (int)queues->receive_sequence) < 0)
		return failed(fault, -errno, "TCP_QUEUE_SEQ");
	/* connect(2) computes the segment size, from the default of 536 bytes; the size that is set afterwards would never be used. */
	set_int(fd, TCP_MAXSEG, queues->mss < MAXSEG_MOST ? (int)queues->mss : MAXSEG_MOST);
	if (connect(fd, (const struct sockaddr *)message->remote.data, (socklen_t)message->remote.len) < 0)
		return failed(fault, -errno, "connect");
	set_int(fd, TCP_MAXSEG, 0);
	rc = set_options(fd, queues);
	/* Computes it anew (IPv4 only): loopback's segments are longer than TCP_MAXSEG can say. */
	setsockopt(fd, IPPROTO_IP, IP_OPTIONS, NULL, 0);
	if (rc < 0)
		return failed(fault, rc, "TCP_REPAIR_OPTIONS");
	rc = fill(fd, QUEUE_RECEIVE, queues->receive.data, queues->receive.len);
	if (rc == 0)
		rc = fill(fd, QUEUE_SEND, queues->send.data, queues->send.len - queues->unsent);
	if (rc == 0)
		rc = set_window(fd, queues);
	return rc < 0 ? failed(fault, rc, "its queues and window") : 0;
}

int tcp_queues_release(int fd, const Cairn__TcpSocket *message, bool to_nobody, struct fault *fault)
{
	const Cairn__TcpQueues *queues = message->queues;
	/* With a window probe the peer answers with what it has. */
	int rc = set_int(fd, TCP_REPAIR, to_nobody ? REPAIR_OFF_NO_PROBE : 0);
	for (size_t done = queues->send.len - queues->unsent; rc == 0 && done < queues->send.len;) {
		ssize_t sent = send(fd, queues->send.data + done, queues->send.len - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0)
			rc = -errno;
		else
			done += (size_t)sent;
	}
	set_buffers(fd, queues, 0);
	return rc < 0 ? failed(fault, rc, "what was not sent yet") : 0;
}
