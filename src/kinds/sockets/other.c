/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that are not carried, by name: no record of this kind is ever written, and one that is read is damaged. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "kinds/sockets/socket.h"
#include "kinds/table.h"

static const struct {
	int domain, protocol; /* protocol 0: any */
	const char *name, *remedy;
} refused[] = {
	{ AF_INET, IPPROTO_SCTP, "SCTP socket", "try to checkpoint when the program has closed it" },
	{ AF_INET6, IPPROTO_SCTP, "SCTP socket", "try to checkpoint when the program has closed it" },
	{ AF_VSOCK, 0, "vsock socket", "try to checkpoint when the program has closed it" },
	{ 44 /* AF_XDP */, 0, "XDP socket", "try to let the program use ordinary sockets" },
	{ AF_BLUETOOTH, 0, "Bluetooth socket", "try to checkpoint when the program has closed it" },
	{ AF_ALG, 0, "socket of the kernel's cryptography (AF_ALG)", "try to let the program use a library" },
	{ AF_CAN, 0, "CAN socket", "try to checkpoint when the program has closed it" },
};

static bool probe(const struct frozen_file *file)
{
	return socket_is(file);
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct socket_identity identity;
	int rc = socket_identify(file, &identity, NULL, fault);
	(void)harvest;
	frozen_file_put(file);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		if (refused[i].domain == identity.domain && (!refused[i].protocol || refused[i].protocol == identity.protocol))
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s (%s): cannot be carried by this version; %s",
					 refused[i].name, file->link, refused[i].remedy);
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "%s: a socket of domain %d, type %d, protocol %d cannot be carried by this version; try to checkpoint when the "
			 "program has closed it", file->link, identity.domain, identity.type, identity.protocol);
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	(void)base;
	return fault_set(fault, FAULT_IMAGE, EINVAL, "holds a socket that no Cairn writes");
}

const struct kind kind_other_socket = {
	.name = "socket that is not carried",
	.tag = 74,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__socket__descriptor,
	.census = sockets_census,
	.probe = probe,
	.refuse_file = refuse_file,
	.check = check,
};
