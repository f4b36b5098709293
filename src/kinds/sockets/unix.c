/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets, as they are found. The kernel's list (sock_diag) says of each who its other end is, its name's file, its shutdown state and,
 * of one that listens, who waits; Cairn's own copy says the rest: name, options, SO_PEERCRED, and the queue, by peeking.
 * How they are made again is in unix_make.c.
 *
 * Not carried: out-of-band bytes, and data that was sent to a connection before it was accepted (both can only be taken, not
 * looked at: tried again, then --in-flight); ends outside the tree, but as --outside says. */
#include "kinds/sockets/unix.h"

#include <assert.h>
#include <errno.h>
#include <linux/magic.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kinds/identity.h"
#include "kinds/sockets/message.h"
#include "kinds/table.h"

enum { RECEIVE = 1 }; /* of the shutdown bits */
enum { SIOCUNIXFILE_ = 0x89e0 }; /* linux/un.h, which cannot be included beside sys/un.h */

/* What refuse, reach and capture want to know of one. */
struct unix_look {
	struct socket_identity identity;
	int own;
	const struct unix_socket *seen;
	struct socket_queue queue;
};

static bool probe(const struct frozen_file *file)
{
	struct socket_identity identity;
	return socket_is(file) && socket_identify((struct frozen_file *)(uintptr_t)file, &identity, NULL, NULL) == 0 &&
	       identity.domain == AF_UNIX;
}

static int look(struct harvest *harvest, struct frozen_file *file, struct unix_look **ret_look, struct fault *fault)
{
	struct unix_sockets *all;
	int rc = socket_scene_unix(harvest, &all, fault);
	if (rc < 0)
		return rc;
	if (!file->note)
		file->note = ARENA_NEW(&harvest->arena, struct unix_look);
	struct unix_look *found = file->note;
	/* A running one's copy is not asked anything. */
	rc = socket_identify(file, &found->identity, harvest->frozen ? &found->own : NULL, fault);
	if (rc < 0)
		return rc;
	found->seen = unix_sockets_find(all, (uint32_t)file->stat.st_ino);
	if (!found->seen)
		return fault_set(fault, harvest->frozen ? FAULT_UNSUPPORTED : FAULT_VANISHED, harvest->frozen ? ENOTSUP : ESRCH,
				 "%s: is a Unix socket of another network namespace; try to checkpoint in that one "
				 "(nsenter --net)", file->link);
	*ret_look = found;
	return 0;
}

static bool polls(int own, int events)
{
	struct pollfd pollfd = { .fd = own, .events = (short)events };
	return poll(&pollfd, 1, 0) > 0 && (pollfd.revents & events);
}

static bool is_stream(const struct unix_look *look)
{
	return look->identity.type == SOCK_STREAM;
}

static bool is_connected(const struct unix_look *look)
{
	return look->seen->has_peer;
}

/* Peeking takes a pending error away (net/core/datagram.c sock_error), but for a stream's. */
static bool has_error(const struct unix_look *look)
{
	return polls(look->own, POLLERR);
}

static int reach(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct unix_look *found = NULL;
	int rc = look(harvest, file, &found, fault);
	assert(rc < 0 || found);
	if (rc < 0 || found->seen->state == TCP_LISTEN || (has_error(found) && !is_stream(found)))
		return rc == -ESRCH ? 0 : rc;
	enum queue_form form = is_stream(found) ? QUEUE_STREAM :
			       found->identity.type == SOCK_SEQPACKET && (found->seen->shutdown & RECEIVE) ? QUEUE_ENDED :
			       QUEUE_MESSAGES;
	rc = queue_peek(harvest, file, found->own, form, &found->queue, fault);
	frozen_file_put(file);
	return rc;
}

/* ---- who waits for whom ---- */

static int wait_compare(const void *a, const void *b)
{
	uint32_t x = ((const struct socket_wait *)a)->client, y = ((const struct socket_wait *)b)->client;
	return (x > y) - (x < y);
}

static void find_waits(struct harvest *harvest, const struct unix_sockets *all)
{
	struct socket_scene *scene = socket_scene(harvest);
	if (scene->has_waits)
		return;
	size_t count = 0;
	for (size_t i = 0; i < all->count; i++)
		count += all->at[i].waiting_count;
	scene->has_waits = true;
	scene->waits = ARENA_ARRAY(&harvest->arena, struct socket_wait, count);
	for (size_t i = 0; i < all->count; i++)
		for (size_t w = 0; w < all->at[i].waiting_count; w++)
			scene->waits[scene->wait_count++] = (struct socket_wait){ all->at[i].waiting[w], all->at[i].inode };
	if (scene->wait_count)
		qsort(scene->waits, scene->wait_count, sizeof *scene->waits, wait_compare);
}

/* The listening socket that has not accepted this one yet, 0: none. */
static uint32_t listener_of(struct harvest *harvest, const struct unix_socket *seen)
{
	struct socket_scene *scene = socket_scene(harvest);
	struct socket_wait key = { .client = seen->inode };
	find_waits(harvest, &scene->unix_sockets);
	const struct socket_wait *found = scene->wait_count ?
		bsearch(&key, scene->waits, scene->wait_count, sizeof key, wait_compare) : NULL;
	return found ? found->listener : 0;
}

/* ---- what cannot be carried ---- */

static int in_flight(const struct harvest *harvest, struct fault *fault, const char *what)
{
	if (harvest->policy.losing)
		return 0;
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY,
				   "%s, which cannot be read without taking it; try again when the program has taken it, or "
				   "--in-flight lose", what);
}

static int refuse_listening(struct harvest *harvest, const struct unix_look *found, struct fault *fault)
{
	for (size_t i = 0; i < found->seen->waiting_count; i++) {
		struct frozen_file *client = socket_inside(harvest, found->seen->waiting[i]);
		int own, sent = 0;
		if (!client)
			return in_flight(harvest, fault, "a connection from outside the tree, or one that is closed again, waits to be "
							 "accepted");
		if (frozen_file_own(client, &own, NULL) < 0 || ioctl(own, TIOCOUTQ, &sent) < 0 || sent)
			return in_flight(harvest, fault, "a connection with data in it waits to be accepted");
	}
	/* Nobody knows how many waited before the list was made. */
	return found->seen->receive_queue == found->seen->waiting_count ? 0 :
	       in_flight(harvest, fault, "a connection waits to be accepted");
}

static const char *name_text(struct harvest *harvest, const struct unix_socket *socket)
{
	if (!socket || !socket->name_size)
		return "an unnamed socket";
	if (!socket->name[0])
		return arena_format(&harvest->arena, "@%.*s", (int)socket->name_size - 1, (const char *)socket->name + 1);
	return arena_format(&harvest->arena, "%.*s", (int)socket->name_size, (const char *)socket->name);
}

/* The other end (an inode) is not in the tree. */
static int refuse_outside(struct harvest *harvest, const struct unix_look *found, uint32_t peer, struct fault *fault)
{
	const struct unix_socket *other = unix_sockets_find(&socket_scene(harvest)->unix_sockets, peer);
	pid_t pid;
	if (harvest->policy.outside == OUTSIDE_CLOSE)
		return 0;
	if (harvest->policy.outside == OUTSIDE_RECONNECT && other && other->name_size)
		return 0;
	const char *holder = socket_holder(harvest, peer, &pid);
	int rc = harvest->policy.outside == OUTSIDE_RECONNECT ?
		fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			  "Unix socket: its other end is held by %s, outside the tree, and has no name to connect to again; "
			  "try to checkpoint a common parent, or --outside close", holder) :
		fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			  "Unix %s socket: its other end (%s) is held by %s, outside the tree; try to checkpoint a common parent, "
			  "--outside close%s", is_stream(found) ? "stream" : found->identity.type == SOCK_DGRAM ? "datagram" :
			  "seqpacket", name_text(harvest, other), holder,
			  other && other->name_size ? ", or --outside reconnect" : "");
	fault->transient = !socket_is_outsider(harvest, pid);
	return rc;
}

static int refuse_errors(const struct harvest *harvest, const struct unix_look *found, struct fault *fault)
{
	if (!harvest->frozen || found->seen->state == TCP_LISTEN)
		return 0;
	if (polls(found->own, POLLPRI))
		return in_flight(harvest, fault, "Unix socket: an out-of-band byte waits in it");
	if (has_error(found) && !(is_stream(found) && found->seen->has_peer && !found->seen->peer))
		return in_flight(harvest, fault, "Unix socket: an error waits in it");
	return 0;
}

static int refuse_file(const struct harvest *const_harvest, struct frozen_file *file, struct fault *fault)
{
	struct harvest *harvest = (struct harvest *)(uintptr_t)const_harvest; /* what is learnt is kept in it */
	struct unix_look *found;
	int rc = look(harvest, file, &found, fault);
	if (rc == 0)
		rc = socket_refuse(harvest, file, fault);
	if (rc == 0)
		rc = refuse_errors(harvest, found, fault);
	if (rc == 0 && found->seen->state == TCP_LISTEN)
		rc = harvest->frozen ? refuse_listening(harvest, found, fault) : 0;
	else if (rc == 0 && found->seen->has_peer && found->seen->peer && !socket_inside(harvest, found->seen->peer))
		rc = refuse_outside(harvest, found, found->seen->peer, fault);
	else if (rc == 0 && found->seen->has_peer && !found->seen->peer) {
		uint32_t listener = listener_of(harvest, found->seen);
		if (listener && !socket_inside(harvest, listener))
			rc = refuse_outside(harvest, found, listener, fault);
	}
	frozen_file_put(file);
	return rc;
}

/* ---- capture ---- */

static bool same_name(const struct unix_socket *a, const struct unix_socket *b)
{
	return a->name_size == b->name_size && a->name_size && !memcmp(a->name, b->name, a->name_size) &&
	       a->has_file == b->has_file && (!a->has_file || a->file_inode == b->file_inode);
}

static bool somebody_listens(const struct unix_sockets *all, const struct unix_socket *socket)
{
	for (size_t i = 0; i < all->count; i++)
		if (all->at[i].state == TCP_LISTEN && same_name(&all->at[i], socket))
			return true;
	return false;
}

/* accept(2) gives a socket the name of the one that listened. */
static bool is_accepted(struct harvest *harvest, const struct unix_look *found, bool has_path)
{
	const struct unix_sockets *all = &socket_scene(harvest)->unix_sockets;
	const struct unix_socket *seen = found->seen, *other = seen->peer ? unix_sockets_find(all, seen->peer) : NULL;
	if (!seen->has_peer || !seen->name_size || found->identity.type == SOCK_DGRAM)
		return false;
	if (other && !other->name_size)
		return true;
	if (somebody_listens(all, seen))
		return true;
	if (!other)
		return !has_path;
	/* Both have names and nobody listens any more: one is accepted, and the other connected earlier. */
	if (somebody_listens(all, other))
		return false;
	return seen->inode > other->inode;
}

/* File systems whose stat(2) shows other devices than the kernel has inside. */
static bool shows_devices(const char *path)
{
	struct statfs system;
	return statfs(path, &system) == 0 && system.f_type != OVERLAYFS_SUPER_MAGIC && system.f_type != BTRFS_SUPER_MAGIC;
}

static bool is_the_file(const char *path, const struct unix_socket *seen, struct stat *ret_stat)
{
	return stat(path, ret_stat) == 0 && S_ISSOCK(ret_stat->st_mode) && (uint32_t)ret_stat->st_ino == seen->file_inode &&
	       (ret_stat->st_dev == seen->file_device || !shows_devices(path));
}

/* Where the file of its name is. A relative name was looked up in the working directory of whoever bound it, at that time. */
static char *find_path(struct harvest *harvest, const struct frozen_file *file, const struct unix_socket *seen,
		       struct stat *ret_stat)
{
	if (!seen->has_file || !seen->name_size || !seen->name[0])
		return NULL;
	char *name = arena_format(&harvest->arena, "%.*s", (int)seen->name_size, (const char *)seen->name);
	if (name[0] == '/')
		return is_the_file(name, seen, ret_stat) ? name : NULL;
	for (size_t round = 0; round < 2; round++)
		for (size_t i = 0; i < harvest->processes.count; i++) {
			const struct frozen_process *process = harvest->processes.at[i];
			if (process->zombie || (process->view == file->pid) == (round != 0))
				continue;
			char *path = arena_format(&harvest->arena, "%s/%s", strcmp(process->cwd, "/") ? process->cwd : "", name);
			if (is_the_file(path, seen, ret_stat))
				return path;
		}
	return NULL;
}

/* Where the file is by now, whose name or directory was changed since: a socket knows (SIOCUNIXFILE, for CAP_NET_ADMIN). NULL: it is gone, or
 * that is not known. */
static char *find_moved(struct harvest *harvest, const struct unix_look *found, struct stat *ret_stat)
{
	char link[64], path[4096];
	if (!found->seen->has_file || found->own < 0)
		return NULL;
	_close_ int file = ioctl(found->own, SIOCUNIXFILE_);
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	ssize_t size = file < 0 ? -1 : readlink(link, path, sizeof path - 1);
	if (size <= 0)
		return NULL;
	path[size] = 0;
	return path[0] == '/' && is_the_file(path, found->seen, ret_stat) ? arena_string(&harvest->arena, path) : NULL;
}

static Cairn__SocketCredentials *peer_credentials(struct harvest *harvest, int own)
{
	struct ucred credentials;
	socklen_t size = sizeof credentials;
	if (getsockopt(own, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0 || credentials.uid == (uid_t)-1)
		return NULL;
	Cairn__SocketCredentials *message = HARVEST_MESSAGE(harvest, Cairn__SocketCredentials, cairn__socket_credentials__init);
	message->pid = (uint32_t)credentials.pid;
	message->uid = credentials.uid;
	message->gid = credentials.gid;
	uint32_t groups[1024];
	size = sizeof groups;
	if (getsockopt(own, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0) {
		message->groups = arena_copy(&harvest->arena, groups, size);
		message->n_groups = size / sizeof *groups;
	}
	return message;
}

/* One that was not accepted yet does not know its own side's: the process that has it connected. */
static Cairn__SocketCredentials *own_credentials(struct harvest *harvest, const struct frozen_file *file)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		if (process->view != file->pid)
			continue;
		Cairn__SocketCredentials *message =
			HARVEST_MESSAGE(harvest, Cairn__SocketCredentials, cairn__socket_credentials__init);
		message->pid = (uint32_t)process->pid;
		message->uid = process->status.uid[1];
		message->gid = process->status.gid[1];
		message->groups = process->status.groups;
		message->n_groups = process->status.group_count;
		return message;
	}
	return NULL;
}

static void capture_name(struct harvest *harvest, const struct frozen_file *file, const struct unix_look *found,
			 Cairn__UnixSocket *message)
{
	struct stat stat;
	message->name = (ProtobufCBinaryData){ found->seen->name_size, found->seen->name };
	char *path = find_path(harvest, file, found->seen, &stat);
	message->accepted = is_accepted(harvest, found, path != NULL);
	if (!path && !message->accepted && (path = find_moved(harvest, found, &stat)))
		log_warn("Unix socket %.*s: its file is %s by now; a restore gives it that name", (int)found->seen->name_size,
			 (const char *)found->seen->name, path);
	if (!path || message->accepted)
		return;
	message->path = path;
	message->mode = stat.st_mode & 07777;
	message->file_uid = stat.st_uid;
	message->file_gid = stat.st_gid;
	message->directory = identity_of_directory(harvest, path);
}

static void capture_outside(struct harvest *harvest, const struct frozen_file *file, uint32_t peer, Cairn__UnixSocket *message)
{
	const struct unix_socket *other = unix_sockets_find(&socket_scene(harvest)->unix_sockets, peer);
	struct stat stat;
	if (harvest->policy.outside != OUTSIDE_RECONNECT || !other || !other->name_size)
		return;
	message->reconnect = (ProtobufCBinaryData){ other->name_size, other->name };
	message->peer_credentials = own_credentials(harvest, file);
	char *path = find_path(harvest, file, other, &stat);
	if (path)
		message->reconnect_path = path;
}

static void capture_peer(struct harvest *harvest, const struct frozen_file *file, const struct unix_look *found,
			 Cairn__UnixSocket *message)
{
	message->connected = is_connected(found);
	if (!message->connected)
		return;
	struct frozen_file *other = socket_inside(harvest, found->seen->peer);
	uint32_t listener = found->seen->peer ? 0 : listener_of(harvest, found->seen);
	if (other) {
		message->peer = other->id;
	} else if (listener && socket_inside(harvest, listener)) {
		/* It connects again; the one that listens has it in its list. */
		message->connected = false;
		message->peer_credentials = own_credentials(harvest, file);
	} else if (listener || found->seen->peer) {
		capture_outside(harvest, file, listener ? listener : found->seen->peer, message);
	} else {
		message->reset = has_error(found);
	}
}

static void capture_listening(struct harvest *harvest, const struct unix_look *found, Cairn__UnixSocket *message)
{
	const struct unix_socket *seen = found->seen;
	message->listening = seen->state == TCP_LISTEN;
	if (!message->listening)
		return;
	message->backlog = seen->send_queue;
	message->waiting = ARENA_ARRAY(&harvest->arena, uint32_t, seen->waiting_count);
	for (size_t i = 0; i < seen->waiting_count; i++) {
		struct frozen_file *client = socket_inside(harvest, seen->waiting[i]);
		if (client)
			message->waiting[message->n_waiting++] = client->id;
	}
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct unix_look *found = NULL;
	int rc = look(harvest, file, &found, fault);
	if (rc < 0)
		return rc;
	assert(found);
	Cairn__UnixSocket *message = HARVEST_MESSAGE(harvest, Cairn__UnixSocket, cairn__unix_socket__init);
	message->open = open_file_capture(harvest, file);
	message->socket = socket_capture(harvest, file, &found->identity, found->own);
	message->shutdown = found->seen->shutdown;
	message->peer_credentials = peer_credentials(harvest, found->own);
	capture_name(harvest, file, found, message);
	capture_listening(harvest, found, message);
	capture_peer(harvest, file, found, message);
	queue_capture(harvest, &found->queue, &message->messages, &message->n_messages);
	harvest_add(harvest, &kind_unix_socket, &message->base);
	frozen_file_put(file);
	return 0;
}

/* ---- image ---- */

static bool name_fits(const ProtobufCBinaryData *name)
{
	return name->len <= sizeof((struct sockaddr_un *)NULL)->sun_path && (!name->data || name->len);
}

static bool sources_fit(const Cairn__UnixSocket *message)
{
	for (size_t i = 0; i < message->n_messages; i++)
		if (message->messages[i]->source.len > sizeof(struct sockaddr_un))
			return false;
	return true;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__UnixSocket *message = (const Cairn__UnixSocket *)base;
	int rc = socket_check(message->open, message->socket, AF_UNIX, fault);
	if (rc == 0)
		rc = queue_check(message->messages, message->n_messages, fault);
	if (rc < 0)
		return rc;
	uint32_t type = message->socket->type;
	bool is_datagram = type == SOCK_DGRAM;
	if ((type != SOCK_STREAM && type != SOCK_SEQPACKET && !is_datagram) || !name_fits(&message->name) ||
	    !name_fits(&message->reconnect) || message->shutdown > 3 ||
	    (message->path[0] && (message->path[0] != '/' || !message->name.len)) ||
	    (message->listening && (is_datagram || !message->name.len || message->connected || message->peer)) ||
	    (message->n_waiting && !message->listening) || (message->accepted && (is_datagram || !message->name.len)) ||
	    !sources_fit(message) || (message->reconnect_path[0] && message->reconnect_path[0] != '/') ||
	    (message->peer_credentials && message->peer_credentials->n_groups > 65536))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "Unix socket %llu has impossible values",
				 (unsigned long long)message->socket->inode);
	return message->path[0] ? unix_check_path(message, fault) : 0;
}

const struct kind kind_unix_socket = {
	.name = "Unix socket",
	.tag = 70,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__unix_socket__descriptor,
	.owner_field = "open",
	.path_field = "path",
	.before_births = true,
	.probe = probe,
	.reach = reach,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check,
	.make = unix_make,
	.join = unix_join,
	.settle = unix_settle,
	.commit = unix_commit,
};
