/* SPDX-License-Identifier: Apache-2.0 */
/* Packet sockets: the protocol and the interface they are bound to (getsockname), what they are members of and whether they have a ring
 * (sock_diag: getsockopt tells neither), their fanout group (PACKET_FANOUT), options and filter by the table. Interfaces are known by
 * name in the image. A new one has no protocol and so receives nothing until the last step, when filter and fanout are there.
 *
 * Not carried: rings (PACKET_RX_RING, PACKET_TX_RING), in which the kernel writes; fanout by a program of its own
 * (PACKET_FANOUT_CBPF, _EBPF), which cannot be read. A packet that waits is waited for until the program has read it, then --in-flight. */
#include <assert.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "kinds/sockets/option.h"
#include "kinds/table.h"

enum { MEMBERSHIPS_MOST = 1024, FANOUT_PROGRAMS = 6 /* PACKET_FANOUT_CBPF and up */ };

static bool probe(const struct frozen_file *file)
{
	struct socket_identity identity;
	return socket_is(file) && socket_identify((struct frozen_file *)(uintptr_t)file, &identity, NULL, NULL) == 0 &&
	       identity.domain == AF_PACKET;
}

static int find(const struct harvest *const_harvest, const struct frozen_file *file, const struct packet_socket **ret_socket,
		struct fault *fault)
{
	struct harvest *harvest = (struct harvest *)(uintptr_t)const_harvest; /* what is learnt is kept in it */
	struct socket_scene *scene = socket_scene(harvest);
	int rc = scene->has_packets ? 0 : sockdiag_packet(&harvest->arena, &scene->packets, fault);
	scene->has_packets = rc == 0;
	for (size_t i = 0; rc == 0 && i < scene->packets.count; i++)
		if (scene->packets.at[i].inode == file->stat.st_ino) {
			*ret_socket = &scene->packets.at[i];
			return 0;
		}
	return rc < 0 ? rc : fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "packet socket: is not in this network namespace; try "
				       "to run Cairn in the program's");
}

static uint32_t fanout_of(int own)
{
	uint32_t fanout = 0;
	socklen_t size = sizeof fanout;
	getsockopt(own, SOL_PACKET, PACKET_FANOUT, &fanout, &size);
	return fanout;
}

static int refuse_waiting(int own, struct fault *fault)
{
	struct pollfd pollfd = { .fd = own, .events = POLLIN };
	if (poll(&pollfd, 1, 0) <= 0 || !(pollfd.revents & (POLLIN | POLLERR)))
		return 0;
	return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "packet socket: %s; try again when the program has read it, or "
				   "--in-flight lose", pollfd.revents & POLLERR ? "an error waits to be read" : "packets wait in it");
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	const struct packet_socket *socket = NULL;
	int own, rc = find(harvest, file, &socket, fault);
	if (rc == 0)
		rc = socket_refuse(harvest, file, fault);
	if (rc == 0)
		rc = frozen_file_own(file, &own, fault);
	if (rc == 0 && socket->has_ring)
		rc = fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "packet socket: has a ring (PACKET_RX_RING, PACKET_TX_RING), in which the "
			       "kernel writes; try to let the program read packets without one");
	else if (rc == 0 && (fanout_of(own) >> 16 & 0xff) >= FANOUT_PROGRAMS)
		rc = fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "packet socket: its fanout group is shared out by a program that cannot be "
			       "read; try another way of fanout");
	else if (rc == 0 && harvest->frozen && !harvest->policy.losing)
		rc = refuse_waiting(own, fault);
	frozen_file_put(file);
	return rc;
}

static int interface_name(struct harvest *harvest, uint32_t index, char **ret_name, struct fault *fault)
{
	char name[IF_NAMESIZE] = "";
	if (index && !if_indextoname(index, name))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "packet socket: its interface is gone; try to checkpoint when the program has "
				 "closed it");
	*ret_name = arena_string(&harvest->arena, name);
	return 0;
}

static int capture_memberships(struct harvest *harvest, const struct packet_socket *socket, Cairn__PacketSocket *message,
			       struct fault *fault)
{
	int rc = 0;
	message->memberships = ARENA_ARRAY(&harvest->arena, Cairn__PacketMembership *, socket->membership_count);
	for (size_t i = 0; rc == 0 && i < socket->membership_count; i++) {
		const struct packet_membership *one = &socket->memberships[i];
		Cairn__PacketMembership *record = HARVEST_MESSAGE(harvest, Cairn__PacketMembership, cairn__packet_membership__init);
		record->type = one->type;
		record->count = one->count;
		record->address = (ProtobufCBinaryData){ one->size, arena_copy(&harvest->arena, one->address, one->size) };
		rc = interface_name(harvest, one->index, &record->interface, fault);
		message->memberships[message->n_memberships++] = record;
	}
	return rc;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct socket_identity identity;
	struct sockaddr_ll address = { 0 };
	socklen_t size = sizeof address;
	const struct packet_socket *socket = NULL;
	int own, rc = socket_identify(file, &identity, &own, fault);
	if (rc == 0)
		rc = find(harvest, file, &socket, fault);
	if (rc < 0)
		return rc;
	assert(socket); /* find */
	Cairn__PacketSocket *message = HARVEST_MESSAGE(harvest, Cairn__PacketSocket, cairn__packet_socket__init);
	message->open = open_file_capture(harvest, file);
	message->socket = socket_capture(harvest, file, &identity, own);
	if (getsockname(own, (struct sockaddr *)&address, &size) == 0)
		message->protocol = ntohs(address.sll_protocol);
	message->fanout = fanout_of(own);
	message->copy_threshold = socket->copy_threshold;
	rc = interface_name(harvest, (uint32_t)address.sll_ifindex, &message->interface, fault);
	if (rc == 0)
		rc = capture_memberships(harvest, socket, message, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_packet_socket, &message->base);
	frozen_file_put(file);
	return rc;
}

/* ---- image ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PacketSocket *message = (const Cairn__PacketSocket *)base;
	int rc = socket_check(message->open, message->socket, AF_PACKET, fault);
	if (rc < 0)
		return rc;
	assert(message->socket); /* socket_check */
	bool is_good = (message->socket->type == SOCK_RAW || message->socket->type == SOCK_DGRAM) && !message->socket->protocol &&
		       message->protocol <= 0xffff && strlen(message->interface) < IF_NAMESIZE &&
		       (message->fanout >> 16 & 0xff) < FANOUT_PROGRAMS && message->copy_threshold <= INT32_MAX &&
		       message->n_memberships <= MEMBERSHIPS_MOST;
	for (size_t i = 0; is_good && i < message->n_memberships; i++) {
		const Cairn__PacketMembership *one = message->memberships[i];
		is_good = one->type <= PACKET_MR_UNICAST && one->address.len <= PACKET_ADDRESS_MOST && one->count &&
			  one->count <= MEMBERSHIPS_MOST && one->interface[0] && strlen(one->interface) < IF_NAMESIZE;
	}
	return is_good ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "packet socket %llu has impossible values",
				       (unsigned long long)message->socket->inode);
}

/* ---- newborn ---- */

static int at(const Cairn__PacketSocket *message, int rc, struct fault *fault)
{
	return fault_at(fault, rc, "packet socket %llu", (unsigned long long)message->socket->inode);
}

static int interface_index(const char *name, int *ret_index, struct fault *fault)
{
	*ret_index = name[0] ? (int)if_nametoindex(name) : 0;
	return !name[0] || *ret_index ? 0 :
	       fault_set(fault, fault_class_of(errno), errno, "interface %s: %s; try on a host with an interface of that name", name,
			 strerror(errno));
}

/* struct packet_mreq with room for any address (net/packet/internal.h). */
struct membership {
	int index;
	unsigned short type, size;
	uint8_t address[PACKET_ADDRESS_MOST];
};

static int join_all(int fd, const Cairn__PacketSocket *message, struct fault *fault)
{
	for (size_t i = 0; i < message->n_memberships; i++) {
		const Cairn__PacketMembership *one = message->memberships[i];
		struct membership ask = { .type = (unsigned short)one->type, .size = (unsigned short)one->address.len };
		int rc = interface_index(one->interface, &ask.index, fault);
		if (rc < 0)
			return rc;
		if (one->address.len)
			memcpy(ask.address, one->address.data, one->address.len);
		for (uint32_t n = 0; n < one->count; n++)
			if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &ask, sizeof ask) < 0)
				return fault_set(fault, fault_class_of(errno), errno, "membership %u at %s: %s; try on a host with such an "
						 "interface", one->type, one->interface, strerror(errno));
	}
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PacketSocket *message = (const Cairn__PacketSocket *)base;
	int fd, index, threshold = (int)message->copy_threshold;
	int rc = interface_index(message->interface, &index, fault); /* early: it is bound at the end */
	if (rc == 0)
		rc = socket_make(message->socket, &fd, fault);
	if (rc < 0)
		return at(message, rc, fault);
	workshop_put(workshop, message->open->file, fd);
	rc = join_all(fd, message, fault);
	if (rc == 0)
		rc = options_set(fd, message->socket, OPTION_MADE, fault);
	if (rc == 0 && threshold && setsockopt(fd, SOL_PACKET, PACKET_COPY_THRESH, &threshold, sizeof threshold) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "PACKET_COPY_THRESH: %s", strerror(errno));
	return rc < 0 ? at(message, rc, fault) : 0;
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PacketSocket *message = (const Cairn__PacketSocket *)base;
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)message->protocol) };
	int rc = socket_finish(workshop, message->open, message->socket, fault);
	int fd = workshop_fd(workshop, message->open->file);
	if (rc == 0)
		rc = interface_index(message->interface, &address.sll_ifindex, fault);
	if (rc == 0 && (message->protocol || address.sll_ifindex) && bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "bind to %s: %s", message->interface, strerror(errno));
	/* Of one that is bound only (net/packet/af_packet.c fanout_add). */
	if (rc == 0 && message->fanout && setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &message->fanout, sizeof message->fanout) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "PACKET_FANOUT 0x%x: %s; try when no other program has a group of that number",
			       message->fanout, strerror(errno));
	return rc < 0 ? at(message, rc, fault) : 0;
}

const struct kind kind_packet_socket = {
	.name = "packet socket",
	.tag = 75,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__packet_socket__descriptor,
	.owner_field = "open",
	.before_births = true,
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check,
	.make = make,
	.commit = commit,
};
