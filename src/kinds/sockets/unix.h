/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The newborn half of unix.c. */
#include "kinds/sockets/socket.h"

/* Can its name's file be made here? */
int unix_check_path(const Cairn__UnixSocket *message, struct fault *fault);
int unix_make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
int unix_join(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
int unix_settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
int unix_commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault);
