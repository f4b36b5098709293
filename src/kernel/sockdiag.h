/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Sockets of this network namespace as sock_diag(7) lists them: one request for all, however many there are. */
#include "base/fault.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

/* linux/unix_diag.h. */
struct unix_socket {
	uint32_t inode;
	uint8_t type, state; /* TCP_ESTABLISHED: connected, TCP_LISTEN, TCP_CLOSE */
	uint8_t shutdown;    /* RCV_SHUTDOWN 1, SEND_SHUTDOWN 2 */
	bool has_peer, has_file;
	uint32_t peer;       /* inode of the other end; 0: it is gone, or was not accepted yet */
	uint32_t file_inode; /* of the file that its name made */
	uint64_t file_device;
	uint32_t receive_queue, send_queue; /* of a listening one: connections that wait, and the most that may */
	uint8_t *name;       /* sun_path */
	uint32_t name_size;
	uint32_t *waiting;   /* of a listening one: inodes of the sockets that connected; 0: closed again */
	uint32_t waiting_count;
};

struct unix_sockets {
	struct unix_socket *at; /* ascending by inode; in the arena */
	size_t count;
};

int sockdiag_unix(struct arena *arena, struct unix_sockets *ret_sockets, struct fault *fault);
const struct unix_socket *unix_sockets_find(const struct unix_sockets *sockets, uint32_t inode); /* NULL: none */

/* linux/packet_diag.h. */
enum { PACKET_ADDRESS_MOST = 32 };
struct packet_membership {
	uint32_t index, count;
	uint16_t type, size;
	uint8_t address[PACKET_ADDRESS_MOST];
};
struct packet_socket {
	uint32_t inode, copy_threshold;
	bool has_ring;
	struct packet_membership *memberships; /* in the arena */
	size_t membership_count;
};
struct packet_sockets {
	struct packet_socket *at; /* in the arena */
	size_t count;
};
int sockdiag_packet(struct arena *arena, struct packet_sockets *ret_sockets, struct fault *fault);

/* TCP sockets of both families that are connected (linux/inet_diag.h). Addresses as IPv6, IPv4 mapped; ports in host order. */
struct tcp_end {
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port;
	uint32_t inode; /* 0: no process has it */
	uint8_t state;
};
struct tcp_ends {
	struct tcp_end *at; /* in the arena */
	size_t count;
};
int sockdiag_tcp(struct arena *arena, struct tcp_ends *ret_ends, struct fault *fault);
/* Ends a connection that no process has, like one in TIME_WAIT. Needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY. */
int sockdiag_tcp_destroy(int family, const struct tcp_end *end);
