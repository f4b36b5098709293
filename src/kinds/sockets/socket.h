/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the kinds of sockets share: what every socket has, and what is known of all of them together. */
#include "kernel/sockdiag.h"
#include "kinds/files/open_file.h"
#include "kinds/kind.h"
#include "sockets.pb-c.h"

/* ---- frozen ---- */

enum { SOCKET_DEFAULTS_MOST = 64 };
struct socket_defaults {
	int domain, type, protocol;
	ProtobufCBinaryData *values; /* one per option in the table; data NULL: it has none */
};

/* The options of a socket that differ from a fresh one's. */
struct socket_options_read {
	bool is_read;
	Cairn__SocketOption **at;
	size_t count;
};

/* What each of many sockets was asked first, all at once (census.c). */
struct socket_asked {
	bool is_known;
	bool has_program; /* an eBPF program as its filter */
	uint64_t cookie;
	int locks; /* SO_BUF_LOCK */
	uint32_t send_buffer, receive_buffer;
};

/* Learnt once per harvest. */
struct socket_scene {
	bool has_unix, has_packets;
	struct unix_sockets unix_sockets;
	struct packet_sockets packets;
	VEC(struct socket_defaults) defaults;
	struct socket_options_read *read; /* by the file's id: read ahead */
	uint32_t read_count;
	bool are_many;
	struct socket_asked *asked; /* by the file's id */
	uint32_t asked_count;
	struct multicast_groups *groups;
	struct frozen_file **by_inode; /* the tree's sockets, ascending by inode */
	size_t by_inode_count, files_seen;
	struct tcp_place *tcp; /* connections of the tree, ascending by their addresses */
	size_t tcp_count, tcp_seen;
	bool has_tcp_ends, has_tcp_queues;
	struct tcp_ends tcp_ends; /* of the whole host */
	struct tcp_pair *held; /* connections whose packets are dropped */
	size_t held_count;
	bool has_hold, is_kept;
	bool has_asked_repair, can_repair, has_asked_keys, can_have_keys;
	struct tcp_guard *guard;
	bool has_no_guard;
	bool has_waits;
	struct socket_wait *waits; /* ascending by client */
	size_t wait_count;
};
/* A client of a listening Unix socket that was not accepted yet. */
struct socket_wait {
	uint32_t client, listener; /* inodes */
};
struct socket_scene *socket_scene(struct harvest *harvest);
int socket_scene_unix(struct harvest *harvest, struct unix_sockets **ret_sockets, struct fault *fault);
/* The host's TCP sockets, listed with the first call. */
const struct tcp_ends *socket_scene_tcp(struct harvest *harvest);
/* From how many on what is asked for all of them at once costs less. */
enum { SOCKETS_MANY = 64 };
/* Before any file is probed: of many sockets, what each is. */
void sockets_census(struct harvest *harvest);
const struct socket_asked *socket_asked(const struct socket_scene *scene, const struct frozen_file *file); /* NULL: they are few */
/* The tree's own socket with that inode, NULL: there is none. */
struct frozen_file *socket_inside(struct harvest *harvest, uint64_t inode);

struct socket_identity {
	int domain, type, protocol;
};
/* SO_DOMAIN, SO_TYPE, SO_PROTOCOL of a socket, and Cairn's own copy of it (@ret_own NULL: not wanted). */
int socket_identify(struct frozen_file *file, struct socket_identity *ret_identity, int *ret_own, struct fault *fault);
bool socket_is(const struct frozen_file *file);
/* What no socket of any kind is carried with. */
int socket_refuse(const struct harvest *harvest, struct frozen_file *file, struct fault *fault);
Cairn__Socket *socket_capture(struct harvest *harvest, const struct frozen_file *file,
			      const struct socket_identity *identity, int own);

/* "process 12 (sshd)" that has the socket with that inode, as text in the arena; "a process that cannot be seen". @ret_pid may be NULL. */
const char *socket_holder(struct harvest *harvest, uint64_t inode, pid_t *ret_pid);
/* Is the holder of a socket that was not found in the tree certainly outside? A running tree may have made it since it was looked at. */
bool socket_is_outsider(const struct harvest *harvest, pid_t pid);

/* ---- image, newborn ---- */

int socket_check(const Cairn__OpenFile *open, const Cairn__Socket *socket, int domain, struct fault *fault);
/* Has this network the address @local of an IP socket? @remedy: one more, NULL: none. */
int socket_check_address(const Cairn__Socket *socket, const ProtobufCBinaryData *local, const char *remedy, struct fault *fault);
/* A fresh one, with the options that go before bind(2). */
int socket_make(const Cairn__Socket *socket, int *ret_fd, struct fault *fault);
/* Status flags, SIGIO's signal, owner and remaining options: the last step of making one. Given to the workshop by its file's id already. */
int socket_finish(struct workshop *workshop, const Cairn__OpenFile *open, const Cairn__Socket *socket, struct fault *fault);
