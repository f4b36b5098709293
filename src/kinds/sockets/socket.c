/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/fd.h"
#include "kinds/sockets/address.h"
#include "kinds/sockets/option.h"

struct socket_scene *socket_scene(struct harvest *harvest)
{
	if (!harvest->sockets)
		harvest->sockets = ARENA_NEW(&harvest->arena, struct socket_scene);
	return harvest->sockets;
}

int socket_scene_unix(struct harvest *harvest, struct unix_sockets **ret_sockets, struct fault *fault)
{
	struct socket_scene *scene = socket_scene(harvest);
	int rc = scene->has_unix ? 0 : sockdiag_unix(&harvest->arena, &scene->unix_sockets, fault);
	scene->has_unix = rc == 0;
	*ret_sockets = &scene->unix_sockets;
	return rc;
}

const struct tcp_ends *socket_scene_tcp(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	if (!scene->has_tcp_ends && sockdiag_tcp(&harvest->arena, (uint32_t)TCP_STATES_ALL, &scene->tcp_ends, NULL) < 0)
		scene->tcp_ends = (struct tcp_ends){ 0 };
	scene->has_tcp_ends = true;
	return &scene->tcp_ends;
}

bool socket_is(const struct frozen_file *file)
{
	return S_ISSOCK(file->stat.st_mode) && !(file->info.flags & O_PATH);
}

static int by_inode(const void *a, const void *b)
{
	ino_t x = (*(struct frozen_file *const *)a)->stat.st_ino, y = (*(struct frozen_file *const *)b)->stat.st_ino;
	return (x > y) - (x < y);
}

struct frozen_file *socket_inside(struct harvest *harvest, uint64_t inode)
{
	struct socket_scene *scene = socket_scene(harvest);
	if (scene->files_seen != harvest->files.count) {
		scene->files_seen = harvest->files.count;
		scene->by_inode = ARENA_ARRAY(&harvest->arena, struct frozen_file *, harvest->files.count);
		scene->by_inode_count = 0;
		for (size_t i = 0; i < harvest->files.count; i++)
			if (socket_is(harvest->files.at[i]))
				scene->by_inode[scene->by_inode_count++] = harvest->files.at[i];
		if (scene->by_inode_count)
			qsort(scene->by_inode, scene->by_inode_count, sizeof *scene->by_inode, by_inode);
	}
	struct frozen_file key = { .stat.st_ino = inode }, *wanted = &key;
	struct frozen_file **found = inode && scene->by_inode_count ?
		bsearch(&wanted, scene->by_inode, scene->by_inode_count, sizeof *scene->by_inode, by_inode) : NULL;
	return found ? *found : NULL;
}

int socket_identify(struct frozen_file *file, struct socket_identity *ret_identity, int *ret_own, struct fault *fault)
{
	int own = -1, rc = ret_own || !file->is_identified ? frozen_file_own(file, &own, fault) : 0;
	if (rc < 0)
		return rc;
	static const int names[] = { SO_DOMAIN, SO_TYPE, SO_PROTOCOL };
	socklen_t size = sizeof(int);
	for (size_t i = 0; i < 3 && !file->is_identified; i++)
		if (getsockopt(own, SOL_SOCKET, names[i], &file->identity[i], &size) < 0)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: does not say what it is: %s; try to checkpoint when the "
				 "program has closed it", file->link, strerror(errno));
	file->is_identified = true;
	*ret_identity = (struct socket_identity){ file->identity[0], file->identity[1], file->identity[2] };
	if (ret_own)
		*ret_own = own;
	return 0;
}

int socket_refuse(const struct harvest *const_harvest, struct frozen_file *file, struct fault *fault)
{
	struct harvest *harvest = (struct harvest *)(uintptr_t)const_harvest; /* what is learnt is kept in it */
	const struct socket_scene *scene = socket_scene(harvest);
	const struct socket_asked *asked = socket_asked(scene, file);
	socklen_t none = 0;
	int own;
	/* Many are asked when they stand still. */
	if (!asked && scene->are_many && !harvest->frozen)
		return 0;
	int rc = asked ? 0 : frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	/* The kernel shows classic filters only (net/core/filter.c sk_get_filter). */
	bool has_program = asked ? asked->has_program : getsockopt(own, SOL_SOCKET, SO_GET_FILTER, NULL, &none) < 0 && errno == EACCES;
	return !has_program ? 0 : fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: has an eBPF program as its filter (SO_ATTACH_BPF), which cannot be "
					    "read; try to let the program use a classic filter, or checkpoint when it has detached it", file->link);
}

Cairn__Socket *socket_capture(struct harvest *harvest, const struct frozen_file *file,
			      const struct socket_identity *identity, int own)
{
	Cairn__Socket *message = HARVEST_MESSAGE(harvest, Cairn__Socket, cairn__socket__init);
	message->domain = (uint32_t)identity->domain;
	message->type = (uint32_t)identity->type;
	message->protocol = (uint32_t)identity->protocol;
	message->inode = file->stat.st_ino;
	message->uid = file->stat.st_uid;
	message->gid = file->stat.st_gid;
	options_capture(harvest, file, own, message);
	return message;
}

const char *socket_holder(struct harvest *harvest, uint64_t inode, pid_t *ret_pid)
{
	struct pid_list list = { 0 };
	struct proc_stat stat;
	const char *text = NULL;
	char wanted[64];
	snprintf(wanted, sizeof wanted, "socket:[%llu]", (unsigned long long)inode);
	if (ret_pid)
		*ret_pid = 0;
	if (inode && proc_processes(&list, NULL) == 0)
		for (size_t i = 0; i < list.pids.count && !text; i++) {
			pid_t pid = list.pids.at[i];
			if (pid == getpid() || policy_is_cairn(&harvest->policy, pid) || !proc_has_link(pid, wanted, 0) || proc_stat_read(pid, 0, &stat, NULL) < 0)
				continue;
			text = arena_format(&harvest->arena, "process %d (%s)", pid, stat.command);
			if (ret_pid)
				*ret_pid = pid;
		}
	vec_finish(&list.pids);
	return text ? text : "a process that cannot be seen from here";
}

bool socket_is_outsider(const struct harvest *harvest, pid_t pid)
{
	struct proc_stat stat;
	if (harvest->frozen || !pid)
		return harvest->frozen;
	for (; pid > 0; pid = stat.parent)
		if (harvest_has_process(harvest, pid) || pid == harvest->policy.adopter || proc_stat_read(pid, 0, &stat, NULL) < 0)
			return false;
	return true;
}

int socket_check(const Cairn__OpenFile *open_, const Cairn__Socket *socket, int domain, struct fault *fault)
{
	if (!open_ || !open_->file || !socket || (int)socket->domain != domain)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a socket has impossible values");
	return options_check(socket, fault);
}

static bool is_everywhere(const struct inet_address *address)
{
	return address_is_any(address) || (address->family == AF_INET ? address->ip.s6_addr[12] == 127 : IN6_IS_ADDR_LOOPBACK(&address->ip));
}

/* Of one that may have any address. */
static bool is_free(const Cairn__Socket *socket)
{
	static const int names[][2] = { { IPPROTO_IP, IP_FREEBIND }, { IPPROTO_IP, IP_TRANSPARENT }, { IPPROTO_IPV6, IPV6_FREEBIND },
					{ IPPROTO_IPV6, IPV6_TRANSPARENT } };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (options_int(socket, names[i][0], names[i][1], 0))
			return true;
	return false;
}

/* A datagram socket may have any address that another one may, and multicast ones too; of which port does not matter. */
int socket_check_address(const Cairn__Socket *message, const ProtobufCBinaryData *local, const char *remedy, struct fault *fault)
{
	char text[ADDRESS_TEXT];
	struct inet_address address;
	struct sockaddr_storage bytes = { 0 };
	if (local->len > sizeof bytes || !address_parse(local->data, local->len, &address) || is_everywhere(&address) || is_free(message))
		return 0;
	memcpy(&bytes, local->data, local->len);
	memset((char *)&bytes + offsetof(struct sockaddr_in, sin_port), 0, sizeof(in_port_t)); /* the same place in both families */
	_close_ int fd = socket((int)message->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&bytes, (socklen_t)local->len) == 0 || (errno != EADDRNOTAVAIL && errno != ENODEV))
		return 0;
	return fault_set(fault, FAULT_FAILED, EADDRNOTAVAIL, "sockets of the program have the address %s, and no interface here has it; try --map-address "
			 "%s=NEW, %s%sor a host that has it", address_host(&address, text), text, remedy ? remedy : "", remedy ? ", " : "");
}

int socket_make(const Cairn__Socket *message, int *ret_fd, struct fault *fault)
{
	_close_ int fd = socket((int)message->domain, (int)message->type | SOCK_CLOEXEC, (int)message->protocol);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "socket %llu (domain %u, type %u, protocol %u): %s",
				 (unsigned long long)message->inode, message->domain, message->type, message->protocol,
				 strerror(errno));
	int rc = options_set(fd, message, OPTION_FIRST, fault);
	if (rc < 0)
		return rc;
	*ret_fd = fd_steal(&fd);
	return 0;
}

int socket_finish(struct workshop *workshop, const Cairn__OpenFile *open_, const Cairn__Socket *socket, struct fault *fault)
{
	int fd = workshop_fd(workshop, open_->file);
	if (fd < 0)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: socket %llu is not made by what says it would",
				 (unsigned long long)socket->inode);
	int rc = options_set(fd, socket, OPTION_LAST, fault);
	if (rc < 0)
		return rc;
	int flags = fcntl(fd, F_GETFL), want = (flags & ~O_NONBLOCK) | ((int)open_->flags & O_NONBLOCK);
	if ((flags != want && fcntl(fd, F_SETFL, want) < 0) ||
	    (open_->owner_signal && fcntl(fd, F_SETSIG, (int)open_->owner_signal) < 0))
		return fault_set(fault, fault_class_of(errno), errno, "socket %llu: flags 0%o: %s",
				 (unsigned long long)socket->inode, open_->flags, strerror(errno));
	/* Only what fstat(2) and ss(8) show; an ordinary user's are his own already. */
	if ((socket->uid != geteuid() || socket->gid != getegid()) && fchown(fd, socket->uid, socket->gid) < 0) {
	}
	return 0;
}
