/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Where a user's jobs are found: a directory with one socket for each, NAME.sock. The socket is the whole truth: whoever
 * listens there is the job's init; one that nobody listens at is left from a killed one. */
#include <stdbool.h>
#include <sys/types.h>

#include "base/fault.h"
#include "base/memory.h"

enum { JOB_NAME_MAX = 64 };

/* Letters, digits, "._-+", no leading "." or "-", not digits alone (a PID), at most JOB_NAME_MAX. */
bool registry_name_valid(const char *name);
/* Listens as @name. -EADDRINUSE: such a job runs. *ret_path (heap) is the socket's. */
int registry_listen(const char *name, int *ret_socket, char **ret_path, struct fault *fault);
/* Connects to the job @name of @uid; *ret_init: its init, as a PID here. */
int registry_connect(uid_t uid, const char *name, int *ret_socket, pid_t *ret_init, struct fault *fault);
/* Names of the user's sockets, sorted; the strings are heap, see registry_names_finish. */
struct registry_names {
	VEC(char *) names;
};
void registry_list(uid_t uid, struct registry_names *ret_names);
void registry_names_finish(struct registry_names *names);
