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

/* TCP sockets of both families that are bound or connected (linux/inet_diag.h). Addresses as IPv6, IPv4 mapped; ports in host order. */
enum { TCP_ULP_MOST = 16 };
struct tcp_end {
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port;
	uint32_t inode;  /* 0: no process has it */
	uint32_t device; /* index of the interface that it is bound to, 0: none */
	uint32_t receive_queue, send_queue; /* bytes; of a listening one: connections that wait, and the most that may */
	uint64_t cookie; /* SO_COOKIE: never used again */
	uint8_t family, state;
	char protocol[TCP_ULP_MOST]; /* what the kernel does on top of it (TCP_ULP); empty: nothing */
	bool is_signed;  /* has keys of TCP_MD5SIG; CAP_NET_ADMIN sees it */
	bool has_congestion, has_service, has_class, has_flags;
	char congestion[TCP_ULP_MOST]; /* TCP_CONGESTION */
	uint8_t service, class;        /* IP_TOS, IPV6_TCLASS */
	struct tcp_flags {
		bool recverr, recverr_rfc4884, freebind, transparent, bind_address_no_port;
	} flags; /* options of those names, of both families alike where both have it */
};
struct tcp_ends {
	struct tcp_end *at;        /* in the arena; ascending by addresses: local, then remote */
	struct tcp_end **by_inode; /* those that a process has, ascending; two sockets may be one process's (MPTCP and its subflow) */
	size_t count, inode_count;
};
enum { TCP_STATES_ALL = -1, TCP_STATES_LISTENING = 1 << 10 }; /* 1 << state */
int sockdiag_tcp(struct arena *arena, uint32_t states, struct tcp_ends *ret_ends, struct fault *fault);
/* NULL: none. By the inode: NULL if it does not tell one socket from another; @cookie 0: not known. */
const struct tcp_end *tcp_ends_find(const struct tcp_ends *ends, const struct tcp_end *addresses);
const struct tcp_end *tcp_ends_of(const struct tcp_ends *ends, uint32_t inode, uint64_t cookie);

/* Who a datagram socket's inode stands for. */
struct udp_socket {
	uint32_t inode;
	uint8_t family;
};
struct udp_sockets {
	struct udp_socket *at; /* ascending by inode; in the arena */
	size_t count;
};
int sockdiag_udp(struct arena *arena, struct udp_sockets *ret_sockets, struct fault *fault);
/* Ends a connection that no process has, like one in TIME_WAIT. Needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY. */
int sockdiag_tcp_destroy(int family, const struct tcp_end *end);
