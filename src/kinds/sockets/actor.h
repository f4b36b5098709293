/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Who made a Unix socket's connection is recorded in it for ever (SO_PEERCRED): the kernel takes it from the process that calls
 * socketpair(2), connect(2) or listen(2). An actor is such a process for a moment: it has the PID, ids and groups that are wanted and
 * shares Cairn's descriptors. Actors are born before the tree is, and gone when the tree's own processes take their PIDs.
 *
 * The stage is an actor with a root directory of its own, a tmpfs that nobody else sees: there a name can be bound whose file does
 * not exist any more, or is another socket's by now. */
#include <sys/socket.h>
#include <sys/un.h>

#include "kinds/sockets/socket.h"

struct actor;

/* The actor with these credentials (NULL: Cairn's own); the same one for equal credentials. Where the PID cannot be had, it has another. */
int actor_get(struct workshop *workshop, const Cairn__SocketCredentials *credentials, struct actor **ret_actor, struct fault *fault);
int actor_stage(struct workshop *workshop, struct actor **ret_actor, struct fault *fault);

pid_t actor_pid(const struct actor *actor);
int actor_pair(struct actor *actor, int type, int ret_fds[2], struct fault *fault);
int actor_listen(struct actor *actor, int fd, int backlog, struct fault *fault);
int actor_connect(struct actor *actor, int fd, const struct sockaddr_un *address, socklen_t size, struct fault *fault);
/* On the stage: makes the directories of the name, binds it, opens its directory (O_PATH) and takes its file away from there only with
 * actor_unlink. */
int actor_bind(struct actor *stage, int fd, const struct sockaddr_un *address, socklen_t size, int *ret_directory,
	       struct fault *fault);

/* sendmsg(2) of Cairn's @fd by a process with the PID @pid that lives for this only. What was sent or a negative errno; -ESRCH: the PID cannot be had. */
ssize_t actor_send_as(const struct workshop *workshop, pid_t pid, int fd, const struct msghdr *header);

/* Sockets that speak for senders of datagrams which are not in the tree any more, by their address; -1: there is none. */
int bench_feeder(struct workshop *workshop, const ProtobufCBinaryData *source);
void bench_put_feeder(struct workshop *workshop, const ProtobufCBinaryData *source, int fd);

/* The Unix sockets of this host, asked once per restore. */
int bench_unix_sockets(struct workshop *workshop, const struct unix_sockets **ret_sockets, struct fault *fault);
