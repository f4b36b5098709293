/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A job: a tree in a PID namespace of its own whose PID 1 is a process of Cairn's (init.h), with a name and a control socket
 * (registry.h). It is started with a command, or from an image. This is the side of the Cairn that starts it. */
#include <jansson.h>
#include <sys/types.h>

#include "base/fault.h"
#include "cairn.h"
#include "job/namespace.h"

struct job {
	pid_t init;    /* PID 1 of the namespace, as seen from here; a child of the caller's that ends as the root does */
	pid_t root;    /* the command, or the image's root, as seen from here */
	int channel;   /* the init says here how the root stops and ends (init.h), and takes requests */
	json_t *state; /* what the init said when the tree ran */
};

/* @spec (init.h) is kept by the caller. @key: of its images, NULL: they are not encrypted. @command: NULL for a restore. @program: the cairn to execute, NULL: the one that is
 * installed. When it returns CAIRN_DONE the tree runs. */
enum cairn_status job_start(const char *program, const json_t *spec, const uint8_t *key, char *const command[], struct job *ret_job,
			    struct cairn_error *error);
void job_finish(struct job *job); /* the job runs on */
/* The namespaces that @spec wants. */
struct namespace_wish job_wish(const json_t *spec);
/* Its first step: `cairn init` in these namespaces, which waits on *ret_channel for its spec. */
int job_execute(const char *program, const struct namespace_wish *wish, char *const command[], pid_t *ret_init, int *ret_channel, struct fault *fault);

/* The process with PID @inner of the namespace whose init is @init, as seen from here; 0: none. */
pid_t job_outer_pid(pid_t init, pid_t inner);

/* An image "-": what standard input holds, in memory; *ret_path is a path for it in this process and those it executes. */
int job_spool_input(int *ret_fd, char **ret_path, struct fault *fault);
