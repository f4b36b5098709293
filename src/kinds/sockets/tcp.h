/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* TCP: the halves of its kind. */
#include <netinet/tcp.h>

#include "kinds/sockets/address.h"
#include "kinds/sockets/lock.h"
#include "kinds/sockets/socket.h"

/* A connection of the tree, as far as it is known. */
struct tcp_look {
	struct socket_identity identity;
	int own;
	uint8_t state;
	uint32_t backlog, waiting; /* of one that listens */
	bool connected;
	struct inet_address local, remote; /* connected */
	struct sockaddr_storage local_bytes, remote_bytes;
	socklen_t local_size, remote_size; /* 0: none */
	bool is_listed;       /* from the kernel's list, with the next */
	bool is_fresh;        /* of one that listens: looked at after the refusals */
	char upper[TCP_ULP_MOST];
	bool ended;    /* both directions are closed */
	bool failed;   /* an error waits */
	bool urgent;
	Cairn__TcpQueues *queues;  /* read ahead; NULL: not, or in vain */
	int reuse;                 /* SO_REUSEADDR, of one whose queues are read */
	Cairn__TcpSocket *message; /* once it is captured */
};
int tcp_look(struct harvest *harvest, struct frozen_file *file, struct tcp_look **ret_look, struct fault *fault);
/* The other end's file, NULL: it is not in the tree. */
struct frozen_file *tcp_inside(struct harvest *harvest, struct frozen_file *file, const struct tcp_look *look);
/* The other end on this host, NULL: there is none. */
const struct tcp_end *tcp_other_end(struct harvest *harvest, const struct tcp_look *look);
bool tcp_is_synchronized(uint8_t state); /* connected, or half closed */

/* ---- tcp_queues.c: one socket's queues and numbers, by TCP_REPAIR ---- */

/* Is it permitted here (CAP_NET_ADMIN in the user namespace of the network namespace)? */
bool tcp_can_repair(void);
/* Reads them from a frozen socket that has these options, and which is as before afterwards. -EAGAIN: it changes meanwhile (transient). */
int tcp_queues_capture(struct harvest *harvest, struct tcp_look *look, const Cairn__Socket *options, Cairn__TcpQueues *ret_queues,
		       struct fault *fault);
/* Of all connections in @files (@count of them, some NULL), by several threads; leaves them in their looks. */
void tcp_queues_ahead(struct harvest *harvest, struct frozen_file *const files[], size_t count);
int tcp_queues_check(const Cairn__TcpQueues *message, struct fault *fault);
/* Connects a fresh socket in repair mode, in which it stays, silent: everything but what was not sent yet. */
int tcp_queues_connect(int fd, const Cairn__TcpSocket *message, struct fault *fault);
/* It speaks again: sends what was not sent yet. @to_nobody: the other end may not be there yet, and a word too early would be answered with a reset. */
int tcp_queues_release(int fd, const Cairn__TcpSocket *message, bool to_nobody, struct fault *fault);
/* Has it seen the peer's end of stream, has it sent its own? */
bool tcp_has_received_fin(uint32_t state);
bool tcp_has_sent_fin(uint32_t state);

/* ---- tcp_make.c ---- */
/* Does it come back as closed by its peer, in one way or the other? @closing: connections to the outside are to. */
bool tcp_is_over(const Cairn__TcpSocket *message, bool closing);
bool tcp_is_unique(const ProtobufCMessage *base); /* connected to somebody outside of the tree */
int tcp_make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
int tcp_join(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
int tcp_settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
int tcp_commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
