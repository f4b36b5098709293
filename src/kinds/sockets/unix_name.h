/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Names of Unix sockets in the newborn world: bound again, and found by those that connect. */
#include "kinds/sockets/actor.h"

/* The address as it was bound. */
socklen_t unix_address(const ProtobufCBinaryData *name, struct sockaddr_un *ret_address);
/* Binds @fd to the record's name: its file is made anew (a stale one goes), or lies where nobody sees it if there is none any more. */
int unix_bind(struct workshop *workshop, const Cairn__UnixSocket *message, int fd, struct fault *fault);
/* As the last, and never where others see it; *ret_directory: in which its file lies, -1: it has none. */
int unix_bind_unseen(struct workshop *workshop, const ProtobufCBinaryData *name, int fd, int *ret_directory, struct fault *fault);
/* An address under which a bound socket can be reached: its own, or by its directory. */
int unix_reach(const struct workshop *workshop, const Cairn__UnixSocket *message, struct sockaddr_un *ret_address,
	       socklen_t *ret_size, struct fault *fault);
/* The same for a file's path, of any length: *ret_directory is to be closed later. */
int unix_reach_path(const char *path, struct sockaddr_un *ret_address, socklen_t *ret_size, int *ret_directory,
		    struct fault *fault);
/* The file @name, without its directories, in a directory of Cairn's own. */
socklen_t unix_reach_in(int directory, const ProtobufCBinaryData *name, struct sockaddr_un *ret_address);
