/* SPDX-License-Identifier: Apache-2.0 */
/* TCP over IPv4 and IPv6, as it is found. Listening and unconnected sockets are addresses and options. A connection's queues and numbers
 * are read by TCP_REPAIR (tcp_queues.c), for which CAP_NET_ADMIN is needed; without it, one with both ends in the tree is made anew between
 * them if nothing is unsent or unacknowledged. A connection to the outside is kept only if the program ends or stops with the save
 * (--tcp established): while it stands still its packets are dropped (lock.c). How all is made again is in tcp_make.c.
 *
 * Both ends of a connection in the tree are read one after the other, while the kernel may still deliver what is on its way. So they
 * are compared: what the one has acknowledged the other must have.
 *
 * Not carried: connected MPTCP (refuses TCP_REPAIR, fallen back or not), kTLS, urgent bytes, connections not accepted yet and errors not
 * read yet (both only to be taken: tried again, then --in-flight). */
#include "kinds/sockets/tcp.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crew.h"
#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/guard.h"
#include "kinds/sockets/option.h"
#include "kinds/table.h"

enum { TCP_AO_INFO_ = 40 }; /* include/uapi/linux/tcp.h of 6.7 */

static bool probe(const struct frozen_file *file)
{
	struct socket_identity identity;
	return socket_is(file) && socket_identify((struct frozen_file *)(uintptr_t)file, &identity, NULL, NULL) == 0 &&
	       (identity.domain == AF_INET || identity.domain == AF_INET6) && identity.type == SOCK_STREAM &&
	       (identity.protocol == IPPROTO_TCP || identity.protocol == IPPROTO_MPTCP);
}

bool tcp_is_synchronized(uint8_t state)
{
	return state == TCP_ESTABLISHED || state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSE_WAIT ||
	       state == TCP_LAST_ACK || state == TCP_CLOSING;
}

static void ask_addresses(struct tcp_look *look)
{
	look->local_size = look->remote_size = sizeof look->local_bytes;
	if (getsockname(look->own, (struct sockaddr *)&look->local_bytes, &look->local_size) < 0)
		look->local_size = 0;
	if (getpeername(look->own, (struct sockaddr *)&look->remote_bytes, &look->remote_size) < 0)
		look->remote_size = 0;
}

static socklen_t address_of(const struct tcp_end *end, const uint8_t ip[16], uint16_t port, struct sockaddr_storage *ret_bytes)
{
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	memcpy(&four.sin_addr, ip + 12, 4);
	memcpy(&six.sin6_addr, ip, 16);
	if (end->family == AF_INET)
		memcpy(ret_bytes, &four, sizeof four);
	else
		memcpy(ret_bytes, &six, sizeof six);
	return end->family == AF_INET ? sizeof four : sizeof six;
}

static int polls(int own, int events)
{
	struct pollfd pollfd = { .fd = own, .events = (short)events };
	return poll(&pollfd, 1, 0) > 0 ? pollfd.revents & events : 0;
}

/* What it says itself. */
static int look_at(struct frozen_file *file, struct tcp_look *look, struct fault *fault)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof info;
	*look = (struct tcp_look){ 0 };
	int rc = socket_identify(file, &look->identity, &look->own, fault);
	if (rc < 0)
		return rc;
	look->state = getsockopt(look->own, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ? TCP_CLOSE : info.tcpi_state;
	if (look->state == TCP_LISTEN) {
		look->waiting = info.tcpi_unacked; /* tcp_get_info: of one that listens */
		look->backlog = info.tcpi_sacked;
	}
	ask_addresses(look);
	look->connected = look->remote_size && address_parse(&look->remote_bytes, look->remote_size, &look->remote);
	if (look->local_size)
		address_parse(&look->local_bytes, look->local_size, &look->local);
	int seen = polls(look->own, POLLRDHUP | POLLERR | POLLPRI);
	look->ended = look->state == TCP_CLOSE && (seen & POLLRDHUP);
	look->failed = seen & POLLERR;
	look->urgent = seen & POLLPRI;
	return 0;
}

/* What the kernel's list says of it; errors and urgent bytes are looked for in all of them together. */
static void look_up(struct harvest *harvest, struct frozen_file *file, const struct tcp_end *end, struct tcp_look *look)
{
	*look = (struct tcp_look){ .own = file->own, .state = end->state, .is_listed = true };
	look->identity = (struct socket_identity){ file->identity[0], file->identity[1], file->identity[2] };
	memcpy(look->upper, end->protocol, sizeof look->upper);
	if (end->state == TCP_LISTEN) {
		look->waiting = end->receive_queue;
		look->backlog = end->send_queue;
	}
	look->local_size = address_of(end, end->local, end->local_port, &look->local_bytes);
	address_parse(&look->local_bytes, look->local_size, &look->local);
	if (tcp_is_synchronized(end->state) || end->state == TCP_SYN_SENT)
		look->remote_size = address_of(end, end->remote, end->remote_port, &look->remote_bytes);
	/* With scopes and flow labels. */
	if (harvest->frozen && end->family == AF_INET6 && end->state != TCP_SYN_SENT)
		ask_addresses(look);
	look->connected = look->remote_size && address_parse(&look->remote_bytes, look->remote_size, &look->remote) &&
			  end->state != TCP_SYN_SENT;
}

int tcp_look(struct harvest *harvest, struct frozen_file *file, struct tcp_look **ret_look, struct fault *fault)
{
	if (!file->note)
		file->note = ARENA_NEW(&harvest->arena, struct tcp_look);
	*ret_look = file->note;
	return look_at(file, file->note, fault);
}

/* ---- the other end ---- */

struct tcp_place {
	struct inet_address local, remote;
	struct frozen_file *file;
};

static int place_compare(const void *a, const void *b)
{
	const struct tcp_place *x = a, *y = b;
	int order = address_compare(&x->local, &y->local);
	return order ? order : address_compare(&x->remote, &y->remote);
}

static const struct tcp_end *listed(struct harvest *harvest, const struct frozen_file *file)
{
	const struct socket_scene *scene = socket_scene(harvest);
	const struct socket_asked *asked = socket_asked(scene, file);
	if (!scene->has_tcp_ends || !file->is_identified || (harvest->frozen && !asked))
		return NULL;
	return tcp_ends_of(&scene->tcp_ends, (uint32_t)file->stat.st_ino, asked ? asked->cookie : 0);
}

static void look_at_one(void *context, unsigned worker, size_t item)
{
	struct harvest *harvest = context;
	struct frozen_file *file = harvest->files.at[item];
	(void)worker;
	if (file->kind != &kind_tcp_socket)
		return;
	const struct tcp_end *end = listed(harvest, file);
	if (end) {
		look_up(harvest, file, end, file->note);
		return;
	}
	look_at(file, file->note, NULL);
	frozen_file_put(file);
}

/* Errors and urgent bytes, by one call. */
static void poll_all(struct harvest *harvest)
{
	_free_ struct pollfd *all = memory_new((harvest->files.count + 1) * sizeof *all);
	_free_ struct tcp_look **looks = memory_new((harvest->files.count + 1) * sizeof *looks);
	size_t count = 0;
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		if (file->kind != &kind_tcp_socket || !file->keeps_own || file->own < 0)
			continue;
		all[count] = (struct pollfd){ .fd = file->own, .events = POLLERR | POLLPRI };
		looks[count++] = file->note;
	}
	if (!count || poll(all, count, 0) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		looks[i]->failed |= (all[i].revents & POLLERR) != 0;
		looks[i]->urgent |= (all[i].revents & POLLPRI) != 0;
	}
}

/* All connected ones of the tree, by their addresses; known after one walk. */
static void index_tree(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	size_t all = 0;
	if (scene->tcp_seen == harvest->files.count)
		return;
	scene->tcp_seen = harvest->files.count;
	scene->tcp_count = 0;
	scene->tcp = ARENA_ARRAY(&harvest->arena, struct tcp_place, harvest->files.count);
	for (size_t i = 0; i < harvest->files.count; i++) {
		if (harvest->files.at[i]->kind != &kind_tcp_socket)
			continue;
		if (!harvest->files.at[i]->note)
			harvest->files.at[i]->note = ARENA_NEW(&harvest->arena, struct tcp_look);
		all++;
	}
	if (all >= SOCKETS_MANY)
		socket_scene_tcp(harvest);
	crew_run(harvest->files.count, CREW_FILES, look_at_one, harvest);
	if (harvest->frozen)
		poll_all(harvest);
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		const struct tcp_look *look = file->kind == &kind_tcp_socket ? file->note : NULL;
		if (look && look->connected)
			scene->tcp[scene->tcp_count++] = (struct tcp_place){ look->local, look->remote, file };
	}
	if (scene->tcp_count)
		qsort(scene->tcp, scene->tcp_count, sizeof *scene->tcp, place_compare);
}

struct frozen_file *tcp_inside(struct harvest *harvest, struct frozen_file *file, const struct tcp_look *look)
{
	struct tcp_place key = { look->remote, look->local, NULL };
	const struct socket_scene *scene = socket_scene(harvest);
	index_tree(harvest);
	const struct tcp_place *found = look->connected && scene->tcp_count ?
		bsearch(&key, scene->tcp, scene->tcp_count, sizeof key, place_compare) : NULL;
	return found && found->file != file ? found->file : NULL;
}

const struct tcp_end *tcp_other_end(struct harvest *harvest, const struct tcp_look *look)
{
	struct tcp_end key = { .local_port = look->remote.port, .remote_port = look->local.port };
	memcpy(key.local, &look->remote.ip, 16);
	memcpy(key.remote, &look->local.ip, 16);
	return tcp_ends_find(socket_scene_tcp(harvest), &key);
}

/* The other end is on this host, closed, and belongs to nobody any more: nothing that speaks is lost with it. */
static bool is_deserted(struct harvest *harvest, const struct tcp_look *look)
{
	if (look->state != TCP_CLOSE_WAIT && look->state != TCP_LAST_ACK && look->state != TCP_CLOSING)
		return false;
	const struct tcp_end *end = tcp_other_end(harvest, look);
	return end && !end->inode;
}

static bool listens_inside(struct harvest *harvest, const struct inet_address *address)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		const struct frozen_file *file = harvest->files.at[i];
		const struct tcp_look *look = file->kind == &kind_tcp_socket ? file->note : NULL;
		if (look && look->state == TCP_LISTEN && look->local.port == address->port &&
		    (address_is_any(&look->local) || address_same(&look->local, address)))
			return true;
	}
	return false;
}

/* The tree's own listening socket has not accepted it yet. */
static bool is_unaccepted(struct harvest *harvest, const struct tcp_look *look)
{
	const struct tcp_end *end = tcp_other_end(harvest, look);
	return end && !end->inode && end->state != TCP_TIME_WAIT && listens_inside(harvest, &look->remote);
}

/* ---- what cannot be carried ---- */

static const char *connection_text(struct harvest *harvest, const struct tcp_look *look)
{
	char local[ADDRESS_TEXT], remote[ADDRESS_TEXT];
	return arena_format(&harvest->arena, "TCP connection %s to %s", address_text(&look->local, local),
			    address_text(&look->remote, remote));
}

static bool can_repair(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	if (!scene->has_asked_repair)
		scene->can_repair = tcp_can_repair();
	scene->has_asked_repair = true;
	return scene->can_repair;
}

static int refuse_outside(struct harvest *harvest, const struct tcp_look *look, struct fault *fault)
{
	if (harvest->policy.tcp == TCP_POLICY_CLOSE)
		return 0;
	const char *text = connection_text(harvest, look);
	if (harvest->policy.tcp == TCP_POLICY_KEEP && !harvest->policy.ends)
		return fault_set(fault, FAULT_USAGE, EINVAL, "%s: is stale at once if the program runs on; try --tcp established "
				 "together with --kill or --stop", text);
	if (harvest->policy.tcp == TCP_POLICY_KEEP && can_repair(harvest))
		return 0;
	if (harvest->policy.tcp == TCP_POLICY_KEEP)
		return fault_set(fault, FAULT_PERMISSION, EPERM, "%s: cannot be kept without CAP_NET_ADMIN; try as root, in a network "
				 "namespace of its own (cairn run --net), or --tcp close", text);
	const struct tcp_end *end = tcp_other_end(harvest, look);
	pid_t pid = 0;
	const char *holder = end ? socket_holder(harvest, end->inode, &pid) : "another host or network namespace";
	const char *remedy = can_repair(harvest) ? "--tcp established (with --kill or --stop)" : "it in a network namespace of its own (cairn run --net)";
	int rc = fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: its other end is held by %s, outside the tree; try %s, or --tcp close", text,
			   holder, remedy);
	/* One end of two that the tree has just made may have been seen, and the other not. */
	bool is_local = !memcmp(&look->local.ip, &look->remote.ip, sizeof look->local.ip);
	fault->transient = (end || is_local) && !socket_is_outsider(harvest, pid);
	return rc;
}

static int passing(const struct harvest *harvest, struct fault *fault, const char *what, const char *remedy)
{
	if (harvest->policy.losing)
		return 0;
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "TCP: %s; try again %s, or --in-flight lose", what, remedy);
}

static int refuse_frozen(struct harvest *harvest, const struct tcp_look *look, bool inside, struct fault *fault)
{
	int queued = 0;
	if (look->state == TCP_LISTEN)
		return !look->waiting ? 0 : passing(harvest, fault, "a connection waits to be accepted",
						    "when the program has accepted it");
	if (look->failed)
		return passing(harvest, fault, "an error waits to be read", "when the program has read it");
	if (look->urgent)
		return passing(harvest, fault, "an urgent byte waits to be read", "when the program has read it");
	if (look->state == TCP_SYN_RECV)
		return passing(harvest, fault, "a connection is just being made", "when it is made");
	if (!inside || !tcp_is_synchronized(look->state) || can_repair(harvest))
		return 0;
	if (ioctl(look->own, SIOCOUTQ, &queued) == 0 && queued > 0)
		return fault_set_transient(fault, FAULT_PERMISSION, EAGAIN,
					   "%s: data in its send queue cannot be read without CAP_NET_ADMIN; try as root, or in a network "
					   "namespace of its own (cairn run --net)", connection_text(harvest, look));
	return 0;
}

/* Keys of MD5 or TCP-AO, which belong to addresses and can be read only in part. */
static bool is_signed(struct harvest *harvest, const struct frozen_file *file, const struct tcp_look *look)
{
	uint8_t state[128] = { 0 }; /* struct tcp_ao_info_opt */
	socklen_t size = sizeof state;
	const struct tcp_end *end = tcp_ends_of(socket_scene_tcp(harvest), (uint32_t)file->stat.st_ino, 0);
	if (end && end->is_signed)
		return true;
	struct socket_scene *scene = socket_scene(harvest);
	if (!scene->has_asked_keys) { /* 6.7: a socket without any says so, other kernels know no such option */
		_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		scene->can_have_keys = fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_AO_INFO_, state, &size) < 0 && errno == ENOENT;
		scene->has_asked_keys = true;
	}
	return scene->can_have_keys && look->own >= 0 && getsockopt(look->own, IPPROTO_TCP, TCP_AO_INFO_, state, &size) == 0;
}

static int refuse_kind(struct harvest *harvest, const struct frozen_file *file, const struct tcp_look *look, struct fault *fault)
{
	if (is_signed(harvest, file, look))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "TCP: its segments are signed (TCP_MD5SIG, TCP-AO), and the keys cannot be read; "
				 "try to checkpoint when the program has closed it");
	char protocol[TCP_ULP_MOST] = "";
	socklen_t size = sizeof protocol - 1;
	/* Before 6.15 the list says it only to those who have CAP_NET_ADMIN (net/ipv4/tcp_diag.c tcp_diag_get_aux). */
	if (look->is_listed && (look->upper[0] || look->own < 0 || can_repair(harvest)))
		memcpy(protocol, look->upper, sizeof protocol);
	else if (getsockopt(look->own, IPPROTO_TCP, TCP_ULP, protocol, &size) < 0)
		protocol[0] = 0;
	/* Subflows of MPTCP have a ULP as well. */
	if (protocol[0] && strcmp(protocol, "mptcp"))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: the kernel does its %s, whose state cannot be read; try to "
				 "let the program do it itself (without kTLS)", connection_text(harvest, look), protocol);
	bool is_mptcp = look->identity.protocol == IPPROTO_MPTCP || !strcmp(protocol, "mptcp");
	if (is_mptcp && look->connected && harvest->policy.tcp != TCP_POLICY_CLOSE)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: is MPTCP, which cannot be repaired; try plain TCP (Go: "
				 "GODEBUG=multipathtcp=0), or --tcp close", connection_text(harvest, look));
	return 0;
}

static int refuse_file(const struct harvest *const_harvest, struct frozen_file *file, struct fault *fault)
{
	struct harvest *harvest = (struct harvest *)(uintptr_t)const_harvest; /* what is learnt is kept in it */
	index_tree(harvest);
	struct tcp_look *look = file->note; /* index_tree has just looked */
	int rc = look->is_listed && !harvest->frozen ? 0 : frozen_file_own(file, &look->own, fault);
	if (rc == 0)
		rc = socket_refuse(harvest, file, fault);
	if (rc == 0)
		rc = refuse_kind(harvest, file, look, fault);
	bool inside = rc == 0 && tcp_inside(harvest, file, look);
	bool outside = rc == 0 && look->connected && tcp_is_synchronized(look->state) && !inside;
	/* The end that is not accepted yet waits in a listening socket, which says so when all stands still. */
	outside = outside && !is_deserted(harvest, look);
	bool is_between = outside && is_unaccepted(harvest, look);
	if (is_between && harvest->frozen)
		rc = passing(harvest, fault, "a connection of the tree's own waits to be accepted", "when the program has accepted it");
	else if (outside && !is_between)
		rc = refuse_outside(harvest, look, fault);
	if (rc == 0 && harvest->frozen)
		rc = refuse_frozen(harvest, look, inside, fault);
	frozen_file_put(file);
	return rc;
}

/* ---- capture ---- */

/* Once, before the first queue is read: packets of all connections to the outside that are kept. */
static int hold_outside(struct harvest *harvest, struct fault *fault)
{
	struct socket_scene *scene = socket_scene(harvest);
	if (scene->has_hold || harvest->policy.tcp != TCP_POLICY_KEEP)
		return 0;
	scene->has_hold = true;
	scene->held = ARENA_ARRAY(&harvest->arena, struct tcp_pair, scene->tcp_count);
	for (size_t i = 0; i < scene->tcp_count; i++) {
		struct frozen_file *file = scene->tcp[i].file;
		struct tcp_look look = { .connected = true, .local = scene->tcp[i].local, .remote = scene->tcp[i].remote };
		if (!tcp_inside(harvest, file, &look))
			scene->held[scene->held_count++] = (struct tcp_pair){ look.local, look.remote };
	}
	return scene->held_count ? lock_hold(harvest, scene->held, scene->held_count, fault) : 0;
}

static bool before_equal(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

/* What @receiver has of the stream @sender must still have, from there on: otherwise the kernel moved data between the two looks. */
static bool fits(const Cairn__TcpQueues *sender, const Cairn__TcpQueues *receiver)
{
	uint32_t received = receiver->receive_sequence + (uint32_t)receiver->receive.len;
	return before_equal(sender->send_sequence, received) &&
	       before_equal(received, sender->send_sequence + (uint32_t)sender->send.len + 1);
}

/* What the receiver has was sent, also when the sender was read a moment earlier. A sender that took it for unsent would throw the
 * acknowledgement away, for ever (net/ipv4/tcp_input.c tcp_ack: after snd_nxt). */
static void settle_unsent(Cairn__TcpQueues *sender, const Cairn__TcpQueues *receiver)
{
	uint32_t received = receiver->receive_sequence + (uint32_t)receiver->receive.len;
	uint32_t end = sender->send_sequence + (uint32_t)sender->send.len, left = before_equal(received, end) ? end - received : 0;
	if (left < sender->unsent)
		sender->unsent = left;
}

static bool pair_fits(Cairn__TcpQueues *a, Cairn__TcpQueues *b)
{
	settle_unsent(a, b);
	settle_unsent(b, a);
	return fits(a, b) && fits(b, a);
}

/* What was on its way between them when the one was read and not when the other was is there a moment later. */
static int check_pair(struct harvest *harvest, const struct frozen_file *other, struct tcp_look *look, Cairn__TcpSocket *message,
		      struct fault *fault)
{
	enum { TRIES = 5, PAUSE_NS = 1000000 };
	struct tcp_look *first = other->note;
	int rc = 0;
	if (!first->message || !first->message->queues || !first->message->queues->exact || !message->queues->exact)
		return 0;
	for (int i = 0; rc == 0 && i < TRIES && !pair_fits(first->message->queues, message->queues); i++) {
		int own;
		clock_sleep_ns(PAUSE_NS);
		rc = frozen_file_own((struct frozen_file *)(uintptr_t)other, &own, fault);
		first->own = own;
		if (rc == 0)
			rc = tcp_queues_capture(harvest, first, first->message->socket, first->message->queues, fault);
		frozen_file_put((struct frozen_file *)(uintptr_t)other);
		if (rc == 0)
			rc = tcp_queues_capture(harvest, look, message->socket, message->queues, fault);
	}
	if (rc < 0 || pair_fits(first->message->queues, message->queues))
		return rc;
	return fault_set_transient(fault, FAULT_FAILED, EAGAIN, "TCP: data moved between both ends while they were read; try again");
}

static int take_queues(struct harvest *harvest, struct tcp_look *look, Cairn__TcpSocket *message, struct fault *fault)
{
	message->queues = look->queues;
	if (look->queues)
		return 0;
	message->queues = HARVEST_MESSAGE(harvest, Cairn__TcpQueues, cairn__tcp_queues__init);
	return tcp_queues_capture(harvest, look, message->socket, message->queues, fault);
}

static int capture_connection(struct harvest *harvest, struct frozen_file *file, struct tcp_look *look,
			      Cairn__TcpSocket *message, struct fault *fault)
{
	struct frozen_file *other = tcp_inside(harvest, file, look);
	bool is_left = !other && is_deserted(harvest, look), is_lost = !other && !is_left && is_unaccepted(harvest, look);
	message->remote = address_keep(&harvest->arena, &look->remote_bytes, look->remote_size);
	message->peer = other ? other->id : 0;
	message->ended = is_left;
	message->reset = look->identity.protocol == IPPROTO_MPTCP || is_lost || (!other && !is_left && harvest->policy.tcp == TCP_POLICY_CLOSE);
	int rc = take_queues(harvest, look, message, fault);
	if (rc == 0 && !other && !is_left && !message->reset && !message->queues->exact)
		rc = fault_set(fault, FAULT_PERMISSION, EPERM, "TCP: cannot be kept without CAP_NET_ADMIN; try --tcp close");
	if (rc == 0 && other)
		rc = check_pair(harvest, other, look, message, fault);
	return rc;
}

/* What these say of a connection is not what was set, but what the kernel has made of it since. */
static void drop_findings(Cairn__Socket *message)
{
	options_drop(message, IPPROTO_TCP, TCP_MAXSEG);
	options_drop(message, IPPROTO_TCP, TCP_WINDOW_CLAMP);
	options_drop(message, SOL_SOCKET, SO_INCOMING_CPU);
}

/* Of many: their queues, and what has come since the refusals to those that listen, and what errors and urgent bytes. */
static void read_ahead(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	struct tcp_ends listening;
	_free_ struct frozen_file **connected = memory_new((harvest->files.count + 1) * sizeof *connected);
	if (scene->has_tcp_queues || !scene->asked)
		return;
	scene->has_tcp_queues = true;
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		struct tcp_look *look = file->kind == &kind_tcp_socket ? file->note : NULL;
		connected[i] = look && look->is_listed && tcp_is_synchronized(look->state) ? file : NULL;
	}
	tcp_queues_ahead(harvest, connected, harvest->files.count);
	poll_all(harvest);
	if (sockdiag_tcp(&harvest->arena, TCP_STATES_LISTENING, &listening, NULL) < 0)
		return;
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		struct tcp_look *look = file->kind == &kind_tcp_socket ? file->note : NULL;
		const struct socket_asked *asked = look && look->is_listed && look->state == TCP_LISTEN ? socket_asked(scene, file) : NULL;
		const struct tcp_end *end = asked ? tcp_ends_of(&listening, (uint32_t)file->stat.st_ino, asked->cookie) : NULL;
		look = asked ? look : NULL;
		if (look && end)
			look->waiting = end->receive_queue, look->is_fresh = true;
	}
}

/* The kernel goes on working: what was seen at the refusals may not be so any more. */
static int look_again(struct harvest *harvest, struct frozen_file *file, struct tcp_look **ret_look, struct fault *fault)
{
	struct tcp_look *look = file->note;
	read_ahead(harvest);
	if (!look || (!look->queues && !look->is_fresh)) {
		int rc = tcp_look(harvest, file, &look, fault);
		if (rc < 0)
			return rc;
	}
	assert(look); /* tcp_look */
	*ret_look = look;
	if (look->state != TCP_SYN_SENT || look->remote_size)
		return 0;
	/* getpeername(2) does not tell yet (net/ipv4/af_inet.c inet_getname). */
	const struct tcp_end *end = tcp_ends_of(socket_scene_tcp(harvest), (uint32_t)file->stat.st_ino, 0);
	if (!end || end->state != TCP_SYN_SENT)
		return passing(harvest, fault, "a connection is just being made", "when it is made");
	look->remote_size = address_of(end, end->remote, end->remote_port, &look->remote_bytes);
	return 0;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct tcp_look *look = NULL;
	index_tree(harvest);
	int rc = hold_outside(harvest, fault);
	if (rc == 0)
		rc = look_again(harvest, file, &look, fault);
	if (rc < 0)
		return rc;
	assert(look); /* look_again */
	/* A connection may have come since the refusals. */
	rc = refuse_frozen(harvest, look, tcp_inside(harvest, file, look), fault);
	if (rc < 0)
		return rc;
	Cairn__TcpSocket *message = HARVEST_MESSAGE(harvest, Cairn__TcpSocket, cairn__tcp_socket__init);
	message->open = open_file_capture(harvest, file);
	message->socket = socket_capture(harvest, file, &look->identity, look->own);
	message->local = address_keep(&harvest->arena, &look->local_bytes, look->local_size);
	if (look->state != TCP_LISTEN && (look->state != TCP_CLOSE || look->ended || look->failed))
		drop_findings(message->socket);
	message->state = look->state;
	message->backlog = look->backlog;
	if (tcp_is_synchronized(look->state)) {
		rc = capture_connection(harvest, file, look, message, fault);
	} else if (look->ended || look->failed) {
		message->ended = look->ended;
		message->reset = look->failed;
		rc = take_queues(harvest, look, message, fault);
	} else if (look->state == TCP_SYN_SENT) {
		message->remote = address_keep(&harvest->arena, &look->remote_bytes, look->remote_size);
	}
	look->message = message;
	if (rc == 0)
		harvest_add(harvest, &kind_tcp_socket, &message->base);
	frozen_file_put(file);
	return rc;
}

/* The program ends, and its connections must not: no FIN, no RST, no TIME_WAIT. One that goes on stopped is only locked. */
static int depart(struct harvest *harvest, struct frozen_file *file, bool ends, struct fault *fault)
{
	struct socket_scene *scene = socket_scene(harvest);
	const struct linger at_once = { 1, 0 };
	const struct tcp_look *look = file->note;
	int own;
	if (scene->held_count && !scene->is_kept) {
		int rc = lock_keep(harvest->policy.image_id, scene->held, scene->held_count, fault);
		if (rc < 0)
			return rc;
		scene->is_kept = true;
		if (!ends)
			log_warn("packets of %zu TCP connections to the outside are dropped until the image is restored; before SIGCONT lets the program "
				 "go on here instead, run cairn check --repair", scene->held_count);
	}
	const Cairn__TcpSocket *message = look ? look->message : NULL;
	if (!ends || !message || !message->queues || !message->remote.len || message->reset || frozen_file_own(file, &own, NULL) < 0)
		return 0;
	/* Own copies are closed after the processes: the last close is silent in repair mode (tcp_close), and leaves no TIME_WAIT by a reset. */
	guard_watch(scene->guard, own, look->reuse);
	if (setsockopt(own, IPPROTO_TCP, TCP_REPAIR, &(int){ 1 }, sizeof(int)) < 0 && message->peer)
		setsockopt(own, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	return 0;
}

/* ---- image ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__TcpSocket *message = (const Cairn__TcpSocket *)base;
	int domain = message->socket && message->socket->domain == AF_INET6 ? AF_INET6 : AF_INET;
	int rc = socket_check(message->open, message->socket, domain, fault);
	if (rc == 0 && message->queues)
		rc = tcp_queues_check(message->queues, fault);
	if (rc < 0)
		return rc;
	assert(message->socket); /* socket_check */
	uint32_t protocol = message->socket->protocol;
	bool is_connected = message->state < 256 && tcp_is_synchronized((uint8_t)message->state);
	if (message->socket->type != SOCK_STREAM || (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) ||
	    message->state > TCP_CLOSING || !address_is_good(&message->local, message->socket->domain) ||
	    !address_is_good(&message->remote, message->socket->domain) ||
	    (is_connected && (!message->local.len || !message->remote.len || !message->queues)) ||
	    ((message->ended || message->reset) && !message->queues) ||
	    (message->queues && message->queues->exact && !is_connected) || (message->peer && !is_connected) ||
	    (message->state == TCP_SYN_SENT && !message->remote.len) || (message->state == TCP_LISTEN && !message->local.len) ||
	    (is_connected && !message->peer && !message->ended && !message->reset && !message->queues->exact))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "TCP socket %llu has impossible values",
				 (unsigned long long)message->socket->inode);
	return 0;
}

static int check_network(const ProtobufCMessage *base, bool closing, struct fault *fault)
{
	const Cairn__TcpSocket *message = (const Cairn__TcpSocket *)base;
	if (tcp_is_over(message, closing))
		return 0;
	return socket_check_address(message->socket, &message->local, tcp_is_over(message, true) ? "--tcp close" : NULL, fault);
}

static const char *const address_fields[] = { "local", "remote", NULL };

const struct kind kind_tcp_socket = {
	.name = "TCP socket",
	.tag = 71,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__tcp_socket__descriptor,
	.owner_field = "open",
	.address_fields = address_fields,
	.before_births = true,
	.probe = probe,
	.refuse_file = refuse_file,
	.by_deputy = true, /* TCP_REPAIR, in which recv(2) and send(2) fail */
	.capture_file = capture_file,
	.depart = depart,
	.check = check,
	.check_network = check_network,
	.is_unique = tcp_is_unique,
	.make = tcp_make,
	.join = tcp_join,
	.settle = tcp_settle,
	.commit = tcp_commit,
};
