/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink sockets: port, groups (NETLINK_LIST_MEMBERSHIPS), the address they are connected to, options. A message that waits was made for this
 * moment: it is waited for until the program has read it, then --in-flight. A dump that is half read cannot be seen. */
#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "kinds/sockets/option.h"
#include "kinds/table.h"

enum { GROUP_WORDS = 64, PROTOCOL_MOST = 32 };

static bool probe(const struct frozen_file *file)
{
	struct socket_identity identity;
	return socket_is(file) && socket_identify((struct frozen_file *)(uintptr_t)file, &identity, NULL, NULL) == 0 &&
	       identity.domain == AF_NETLINK;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	int own, rc = socket_refuse(harvest, file, fault);
	if (rc == 0 && harvest->frozen)
		rc = frozen_file_own(file, &own, fault);
	struct pollfd pollfd = { .fd = rc == 0 && harvest->frozen ? own : -1, .events = POLLIN };
	if (rc == 0 && !harvest->policy.losing && poll(&pollfd, 1, 0) > 0 && (pollfd.revents & (POLLIN | POLLERR)))
		rc = fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY,
					 "netlink socket: a message of the kernel's waits in it; try again when the program has read it, or "
					 "--in-flight lose");
	frozen_file_put(file);
	return rc;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct socket_identity identity;
	struct sockaddr_nl address = { 0 };
	socklen_t size = sizeof address;
	int own, rc = socket_identify(file, &identity, &own, fault);
	if (rc < 0)
		return rc;
	Cairn__NetlinkSocket *message = HARVEST_MESSAGE(harvest, Cairn__NetlinkSocket, cairn__netlink_socket__init);
	message->open = open_file_capture(harvest, file);
	message->socket = socket_capture(harvest, file, &identity, own);
	if (getsockname(own, (struct sockaddr *)&address, &size) == 0)
		message->port = address.nl_pid;
	address = (struct sockaddr_nl){ 0 };
	size = sizeof address;
	if (getpeername(own, (struct sockaddr *)&address, &size) == 0 && (address.nl_pid || address.nl_groups)) {
		message->connected = true;
		message->remote_port = address.nl_pid;
		message->remote_groups = address.nl_groups;
	}
	uint32_t words[GROUP_WORDS] = { 0 };
	size = sizeof words;
	if (getsockopt(own, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words, &size) == 0 && size <= sizeof words) {
		message->groups = arena_copy(&harvest->arena, words, size);
		message->n_groups = size / sizeof *words;
	}
	harvest_add(harvest, &kind_netlink_socket, &message->base);
	frozen_file_put(file);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__NetlinkSocket *message = (const Cairn__NetlinkSocket *)base;
	int rc = socket_check(message->open, message->socket, AF_NETLINK, fault);
	if (rc == 0 && ((message->socket->type != SOCK_RAW && message->socket->type != SOCK_DGRAM) ||
			message->socket->protocol >= PROTOCOL_MOST || message->n_groups > GROUP_WORDS))
		rc = fault_set(fault, FAULT_IMAGE, EINVAL, "a netlink socket has impossible values");
	return rc;
}

static int join_groups(int fd, const Cairn__NetlinkSocket *message, struct fault *fault)
{
	for (uint32_t bit = 0; bit < message->n_groups * 32; bit++) {
		int group = (int)bit + 1;
		if (!(message->groups[bit / 32] & 1u << bit % 32))
			continue;
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
			return fault_set(fault, fault_class_of(errno), errno, "netlink socket of protocol %u, group %d: %s; try as root",
					 message->socket->protocol, group, strerror(errno));
	}
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__NetlinkSocket *message = (const Cairn__NetlinkSocket *)base;
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = message->port };
	int fd, rc = socket_make(message->socket, &fd, fault);
	if (rc < 0)
		return rc;
	workshop_put(workshop, message->open->file, fd);
	if (message->port && bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		log_warn("netlink socket %llu: port %u: %s; continuing without it (it has another)",
			 (unsigned long long)message->socket->inode, message->port, strerror(errno));
		address.nl_pid = 0;
		if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
			return fault_set(fault, fault_class_of(errno), errno, "netlink socket: bind: %s", strerror(errno));
	}
	rc = join_groups(fd, message, fault);
	if (rc == 0)
		rc = options_set(fd, message->socket, OPTION_MADE, fault);
	address = (struct sockaddr_nl){ .nl_family = AF_NETLINK, .nl_pid = message->remote_port, .nl_groups = message->remote_groups };
	if (rc == 0 && message->connected && connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "netlink socket: connect: %s", strerror(errno));
	return rc;
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__NetlinkSocket *message = (const Cairn__NetlinkSocket *)base;
	return socket_finish(workshop, message->open, message->socket, fault);
}

const struct kind kind_netlink_socket = {
	.name = "netlink socket",
	.tag = 73,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__netlink_socket__descriptor,
	.owner_field = "open",
	.before_births = true,
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check,
	.make = make,
	.commit = commit,
};
