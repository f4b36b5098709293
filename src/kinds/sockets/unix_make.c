/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets, made again. Ends without names come from socketpair(2). Where an end has the name of a socket that listened,
 * one listens for a moment, unseen, the other connects, and the first is accepted. An end whose other end is gone gets another one, which
 * fills its queue and is closed at the end. The steps:
 *   make    sockets, pairs, names of those that do not listen: before anybody listens, so that an abstract name is free for the moment
 *   join    listening, connections that wait, connected datagram sockets
 *   settle  queues: all open files exist, and the processes whose credentials go with the messages
 *   commit  shut down, closed, options: after the last queue is filled */
#include "kinds/sockets/unix.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/message.h"
#include "kinds/sockets/option.h"
#include "kinds/sockets/unix_name.h"

static const Cairn__UnixSocket *record_of(const struct workshop *workshop, uint32_t file)
{
	return (const Cairn__UnixSocket *)workshop_file(workshop, file, &cairn__unix_socket__descriptor);
}

static bool is_datagram(const Cairn__UnixSocket *message)
{
	return message->socket->type == SOCK_DGRAM;
}

static int at(const Cairn__UnixSocket *message, int rc, struct fault *fault)
{
	return fault_at(fault, rc, "Unix socket %llu", (unsigned long long)message->socket->inode);
}

/* One that some other call than socket(2) made. */
static int adopt(struct workshop *workshop, const Cairn__UnixSocket *message, int fd, struct fault *fault)
{
	workshop_put(workshop, message->open->file, fd);
	int rc = options_set(fd, message->socket, OPTION_FIRST, fault);
	return rc < 0 ? rc : options_set(fd, message->socket, OPTION_MADE, fault);
}

static int make_plain(struct workshop *workshop, const Cairn__UnixSocket *message, struct fault *fault)
{
	int fd, rc = socket_make(message->socket, &fd, fault);
	if (rc < 0)
		return rc;
	workshop_put(workshop, message->open->file, fd);
	rc = options_set(fd, message->socket, OPTION_MADE, fault);
	/* Who listens is bound when all connections are made. */
	return rc < 0 || message->listening ? rc : unix_bind(workshop, message, fd, fault);
}

/* @peer NULL: the other end is gone, or is to be. */
static int make_pair(struct workshop *workshop, const Cairn__UnixSocket *message, const Cairn__UnixSocket *peer,
		     struct fault *fault)
{
	struct actor *actor;
	int fds[2], rc = actor_get(workshop, message->peer_credentials, &actor, fault);
	if (rc == 0)
		rc = actor_pair(actor, (int)message->socket->type, fds, fault);
	if (rc < 0)
		return rc;
	if (!peer)
		workshop_put_second(workshop, message->open->file, fds[1]);
	rc = adopt(workshop, message, fds[0], fault);
	if (rc == 0)
		rc = unix_bind(workshop, message, fds[0], fault);
	if (peer) {
		int other = adopt(workshop, peer, fds[1], rc == 0 ? fault : NULL);
		rc = rc == 0 ? other : rc;
		if (rc == 0)
			rc = unix_bind(workshop, peer, fds[1], fault);
	}
	return rc;
}

/* The connection that is Cairn's own; another program may have been quicker. */
static int accept_own(int listener, const struct actor *actor, struct fault *fault)
{
	struct pollfd pollfd = { .fd = listener, .events = POLLIN };
	for (;;) {
		if (poll(&pollfd, 1, 10000) <= 0)
			return fault_set(fault, FAULT_FAILED, ETIMEDOUT, "its connection did not arrive");
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		struct ucred credentials = { 0 };
		socklen_t size = sizeof credentials;
		if (fd < 0)
			return fault_set(fault, fault_class_of(errno), errno, "accept: %s", strerror(errno));
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
		if (credentials.pid == actor_pid(actor))
			return fd;
		close(fd);
	}
}

/* @client is connected, by whom the accepted one says, to a socket with its name that listens, as whom the client says. */
static int connect_and_accept(struct workshop *workshop, const Cairn__UnixSocket *accepted, const Cairn__UnixSocket *client,
			      int client_fd, struct fault *fault)
{
	_close_ int listener = socket(AF_UNIX, (int)accepted->socket->type | SOCK_CLOEXEC, 0), directory = -1;
	struct sockaddr_un address;
	struct actor *actor;
	if (listener < 0)
		return fault_set(fault, fault_class_of(errno), errno, "socket: %s", strerror(errno));
	int rc = unix_bind_unseen(workshop, &accepted->name, listener, &directory, fault);
	if (rc == 0)
		rc = actor_get(workshop, client ? client->peer_credentials : NULL, &actor, fault);
	if (rc == 0)
		rc = actor_listen(actor, listener, 128, fault);
	if (rc == 0)
		rc = actor_get(workshop, accepted->peer_credentials, &actor, fault);
	if (rc < 0)
		return rc;
	socklen_t size = directory < 0 ? unix_address(&accepted->name, &address) :
					 unix_reach_in(directory, &accepted->name, &address);
	rc = actor_connect(actor, client_fd, &address, size, fault);
	int fd = rc < 0 ? rc : accept_own(listener, actor, fault);
	return fd < 0 ? fd : adopt(workshop, accepted, fd, fault);
}

/* The abstract name that an accepted end bears may be in use outside. */
static bool name_is_taken(struct workshop *workshop, const Cairn__UnixSocket *accepted)
{
	int directory;
	_close_ int fd = accepted->name.data[0] ? -1 : socket(AF_UNIX, (int)accepted->socket->type | SOCK_CLOEXEC, 0);
	return fd >= 0 && unix_bind_unseen(workshop, &accepted->name, fd, &directory, NULL) == -EADDRINUSE;
}

static int make_accepted(struct workshop *workshop, const Cairn__UnixSocket *accepted, const Cairn__UnixSocket *client,
			 struct fault *fault)
{
	if (name_is_taken(workshop, accepted)) {
		log_warn("Unix socket %llu: the abstract name @%.*s is in use here; continuing without it",
			 (unsigned long long)accepted->socket->inode, (int)accepted->name.len - 1,
			 (const char *)accepted->name.data + 1);
		return make_pair(workshop, accepted, client, fault);
	}
	if (!client) {
		int fd = socket(AF_UNIX, (int)accepted->socket->type | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return fault_set(fault, fault_class_of(errno), errno, "socket: %s", strerror(errno));
		workshop_put_second(workshop, accepted->open->file, fd);
		return connect_and_accept(workshop, accepted, NULL, fd, fault);
	}
	int rc = make_plain(workshop, client, fault);
	return rc < 0 ? rc : connect_and_accept(workshop, accepted, client, workshop_fd(workshop, client->open->file), fault);
}

static int make_connected(struct workshop *workshop, const Cairn__UnixSocket *message, const Cairn__UnixSocket *peer,
			  struct fault *fault)
{
	if (message->accepted)
		return make_accepted(workshop, message, peer, fault);
	if (peer && peer->accepted)
		return make_accepted(workshop, peer, message, fault);
	return make_pair(workshop, message, peer, fault);
}

static int make_datagram(struct workshop *workshop, const Cairn__UnixSocket *message, const Cairn__UnixSocket *peer,
			 struct fault *fault)
{
	bool mutual = peer && peer != message && peer->peer == message->open->file;
	/* Only socketpair(2) knows who made it; the others called connect(2) each. */
	if (mutual && message->peer_credentials)
		return make_pair(workshop, message, peer, fault);
	if (message->connected && !peer && !message->reconnect.len)
		return make_pair(workshop, message, NULL, fault);
	return make_plain(workshop, message, fault);
}

int unix_make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__UnixSocket *message = (const Cairn__UnixSocket *)base;
	const Cairn__UnixSocket *peer = message->peer ? record_of(workshop, message->peer) : NULL;
	if (workshop_fd(workshop, message->open->file) >= 0)
		return 0; /* its other end's record made it */
	if (message->peer && (!peer || !message->connected || peer->socket->type != message->socket->type ||
			      (!is_datagram(message) && (peer->peer != message->open->file || peer == message || !peer->connected))))
		return at(message, fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: its other end is none"), fault);
	int rc = is_datagram(message) ? make_datagram(workshop, message, peer, fault) :
		 message->connected && !message->reconnect.len ? make_connected(workshop, message, peer, fault) :
								  make_plain(workshop, message, fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}

/* ---- join ---- */

static int start_listening(struct workshop *workshop, const Cairn__UnixSocket *message, struct fault *fault)
{
	struct sockaddr_un address;
	socklen_t size;
	struct actor *actor;
	int fd = workshop_fd(workshop, message->open->file), directory = -1;
	int rc = message->path[0] ? unix_bind(workshop, message, fd, fault) :
				    unix_bind_unseen(workshop, &message->name, fd, &directory, fault);
	_close_ int unseen = directory;
	if (rc == 0)
		rc = actor_get(workshop, message->peer_credentials, &actor, fault);
	if (rc == 0)
		rc = actor_listen(actor, fd, (int)message->backlog, fault);
	if (rc == 0 && message->n_waiting && unseen >= 0)
		size = unix_reach_in(unseen, &message->name, &address);
	else if (rc == 0 && message->n_waiting)
		rc = unix_reach(workshop, message, &address, &size, fault);
	for (size_t i = 0; rc == 0 && i < message->n_waiting; i++) {
		const Cairn__UnixSocket *client = record_of(workshop, message->waiting[i]);
		if (!client || client->connected || client->listening || client->socket->type != message->socket->type)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: what waits for it is no socket");
		rc = actor_get(workshop, client->peer_credentials, &actor, fault);
		if (rc == 0)
			rc = actor_connect(actor, workshop_fd(workshop, client->open->file), &address, size, fault);
	}
	return rc;
}

static int connect_to_peer(struct workshop *workshop, const Cairn__UnixSocket *message, const Cairn__UnixSocket *peer,
			   struct fault *fault)
{
	struct sockaddr_un address;
	socklen_t size;
	int rc = unix_reach(workshop, peer, &address, &size, fault);
	if (rc == 0 && connect(workshop_fd(workshop, message->open->file), (const struct sockaddr *)&address, size) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "connect to its peer: %s", strerror(errno));
	return rc;
}

static int connect_outside(struct workshop *workshop, const Cairn__UnixSocket *message, struct fault *fault)
{
	struct sockaddr_un address;
	struct actor *actor;
	int directory = -1;
	socklen_t size = unix_address(&message->reconnect, &address);
	int rc = message->reconnect_path[0] ? unix_reach_path(message->reconnect_path, &address, &size, &directory, fault) : 0;
	_close_ int opened = directory;
	(void)opened;
	if (rc == 0)
		rc = actor_get(workshop, message->peer_credentials, &actor, fault);
	if (rc == 0)
		rc = actor_connect(actor, workshop_fd(workshop, message->open->file), &address, size, fault);
	if (rc == 0)
		return 0;
	return fault_at(fault, rc, "cannot connect again to %s%.*s, which was outside the tree; try to start what listens there",
			message->reconnect.data[0] ? "" : "@",
			(int)message->reconnect.len - !message->reconnect.data[0],
			(const char *)message->reconnect.data + !message->reconnect.data[0]);
}

/* Somebody in the tree who has the address that a datagram came from, -1: nobody. */
static int sender_inside(const struct workshop *workshop, const ProtobufCBinaryData *source)
{
	const size_t head = offsetof(struct sockaddr_un, sun_path);
	for (uint32_t id = 0; id < workshop->file_space; id++) {
		const Cairn__UnixSocket *one = record_of(workshop, id);
		if (one && is_datagram(one) && source->len >= head && one->name.len == source->len - head && one->name.len &&
		    !memcmp(one->name.data, source->data + head, one->name.len))
			return workshop_fd(workshop, id);
	}
	return -1;
}

/* Whoever sent a datagram that waits and is not there any more gets somebody who sends it again. */
static int hire_feeders(struct workshop *workshop, const Cairn__UnixSocket *message, struct fault *fault)
{
	const size_t head = offsetof(struct sockaddr_un, sun_path);
	for (size_t i = 0; i < message->n_messages; i++) {
		const ProtobufCBinaryData *source = &message->messages[i]->source;
		if (bench_feeder(workshop, source) >= 0 || sender_inside(workshop, source) >= 0)
			continue;
		_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), directory = -1;
		if (fd < 0)
			return fault_set(fault, fault_class_of(errno), errno, "socket: %s", strerror(errno));
		if (source->len > head) {
			const ProtobufCBinaryData name = { source->len - head, source->data + head };
			struct fault lost;
			if (unix_bind_unseen(workshop, &name, fd, &directory, &lost) < 0)
				log_warn("Unix socket %llu: the sender of a queued datagram: %s; continuing without its name",
					 (unsigned long long)message->socket->inode, lost.text);
		}
		bench_put_feeder(workshop, source, fd_steal(&fd));
	}
	return 0;
}

static bool is_pair(const Cairn__UnixSocket *message, const Cairn__UnixSocket *peer)
{
	return peer && peer != message && peer->peer == message->open->file && message->peer_credentials;
}

int unix_join(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__UnixSocket *message = (const Cairn__UnixSocket *)base;
	const Cairn__UnixSocket *peer = message->peer ? record_of(workshop, message->peer) : NULL;
	int rc = 0;
	for (size_t i = 0; i < message->n_messages; i++)
		for (size_t f = 0; f < message->messages[i]->n_files; f++)
			if (!workshop_file(workshop, message->messages[i]->files[f], NULL))
				return at(message, fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: carries a file that is missing"),
					  fault);
	if (message->listening)
		rc = start_listening(workshop, message, fault);
	else if (message->reconnect.len)
		rc = connect_outside(workshop, message, fault);
	else if (is_datagram(message) && peer && !is_pair(message, peer) && !message->n_messages)
		rc = connect_to_peer(workshop, message, peer, fault);
	if (rc == 0 && is_datagram(message) && !is_pair(message, peer) && !(message->connected && !peer))
		rc = hire_feeders(workshop, message, fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}

/* ---- settle ---- */

/* Room for a whole queue at its sender; what it had is given back. */
struct room {
	int fd, before, locks;
};

static struct room room_make(int fd, const Cairn__UnixSocket *message)
{
	struct room room = { .fd = -1 };
	size_t total = 0;
	socklen_t size = sizeof room.before;
	for (size_t i = 0; i < message->n_messages; i++)
		total += message->messages[i]->data.len + 1024;
	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room.before, &size);
	if (total < (size_t)room.before / 4)
		return room;
	int wanted = total > 1u << 28 ? 1 << 29 : (int)total * 2;
	getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &room.locks, &size);
	room.fd = fd;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
	return room;
}

static void room_end(const struct room *room)
{
	int half = room->before / 2;
	if (room->fd < 0)
		return;
	if (setsockopt(room->fd, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof half) < 0)
		setsockopt(room->fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
	setsockopt(room->fd, SOL_SOCKET, SO_BUF_LOCK, &room->locks, sizeof room->locks);
}

/* By the other end: the queue has one sender. */
static int fill_from_peer(struct workshop *workshop, const Cairn__UnixSocket *message, int sender, struct fault *fault)
{
	int rc = sender < 0 ? fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: has messages and nobody who sent them") : 0;
	struct room room = rc < 0 ? (struct room){ .fd = -1 } : room_make(sender, message);
	for (size_t i = 0; rc == 0 && i < message->n_messages; i++)
		rc = message_send(workshop, message->messages[i], sender, NULL, 0, fault);
	room_end(&room);
	return rc;
}

static int fill_from_all(struct workshop *workshop, const Cairn__UnixSocket *message, struct fault *fault)
{
	struct sockaddr_un address;
	socklen_t size;
	int rc = unix_reach(workshop, message, &address, &size, fault);
	for (size_t i = 0; rc == 0 && i < message->n_messages; i++) {
		const Cairn__SocketMessage *one = message->messages[i];
		int sender = sender_inside(workshop, &one->source);
		if (sender < 0)
			sender = bench_feeder(workshop, &one->source);
		struct room room = room_make(sender, message);
		rc = message_send(workshop, one, sender, &address, size, fault);
		room_end(&room);
	}
	return rc;
}

int unix_settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__UnixSocket *message = (const Cairn__UnixSocket *)base;
	const Cairn__UnixSocket *peer = message->peer ? record_of(workshop, message->peer) : NULL;
	int rc = 0;
	if (!message->n_messages)
		return 0;
	if (!is_datagram(message) || is_pair(message, peer))
		rc = message->reconnect.len ? 0 : fill_from_peer(workshop, message, peer ? workshop_fd(workshop, message->peer) :
				    workshop_second(workshop, message->open->file), fault);
	else if (message->connected && !peer && !message->reconnect.len)
		rc = fill_from_peer(workshop, message, workshop_second(workshop, message->open->file), fault);
	else
		rc = fill_from_all(workshop, message, fault);
	if (rc == 0 && is_datagram(message) && peer && !is_pair(message, peer))
		rc = connect_to_peer(workshop, message, peer, fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}

/* ---- commit ---- */

/* The other end that never was the program's: closing it is what it saw. */
static void close_other_end(struct workshop *workshop, const Cairn__UnixSocket *message)
{
	int second = workshop_second(workshop, message->open->file);
	if (second < 0)
		return;
	if (message->reset && send(workshop_fd(workshop, message->open->file), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("Unix socket %llu: no reset", (unsigned long long)message->socket->inode);
	close(second);
	workshop_put_second(workshop, message->open->file, -1);
}

int unix_commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	static const int how[] = { 0, SHUT_RD, SHUT_WR, SHUT_RDWR };
	const Cairn__UnixSocket *message = (const Cairn__UnixSocket *)base;
	int fd = workshop_fd(workshop, message->open->file);
	close_other_end(workshop, message);
	if (message->shutdown && (message->peer || is_datagram(message)) && !message->listening)
		shutdown(fd, how[message->shutdown]);
	int rc = socket_finish(workshop, message->open, message->socket, fault);
	return rc < 0 ? at(message, rc, fault) : 0;
}
