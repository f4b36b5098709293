/* SPDX-License-Identifier: Apache-2.0 */
#include "job/job.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/key.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/memory.h"
#include "job/control.h"
#include "job/namespace.h"
#include "job/network.h"
#include "kernel/procfs.h"

pid_t job_outer_pid(pid_t init, pid_t inner)
{
	struct pid_list children = { 0 };
	struct arena arena = { 0 };
	pid_t found = 0;
	if (proc_children(init, &children, NULL) == 0) {
		for (size_t i = 0; i < children.pids.count && !found; i++) {
			struct proc_status status;
			if (proc_status_read(children.pids.at[i], 0, &arena, &status, NULL) == 0 && status.ns_pid == inner)
				found = children.pids.at[i];
		}
	}
	vec_finish(&children.pids);
	arena_finish(&arena);
	return found;
}

int job_spool_input(int *ret_fd, char **ret_path, struct fault *fault)
{
	_close_ int fd = memfd_create("cairn-image", 0);
	if (fd >= 0)
		fchmod(fd, 0600); /* nobody else's, should memory be mapped from it (--lazy=mapped) */
	_free_ char *buffer = memory_new(1 << 20);
	for (ssize_t got = 1; fd >= 0 && got != 0;) {
		got = read(0, buffer, 1 << 20);
		if ((got < 0 && errno != EINTR) || (got > 0 && fd_write_full(fd, buffer, (size_t)got) < 0))
			return fault_set(fault, FAULT_FAILED, errno, "read the image from standard input: %s", strerror(errno));
	}
	if (fd < 0)
		return fault_set(fault, FAULT_FAILED, errno, "memory for the image: %s", strerror(errno));
	*ret_path = memory_format("/proc/self/fd/%d", fd);
	*ret_fd = fd_steal(&fd);
	return 0;
}

static enum cairn_status failed(const struct fault *fault, struct cairn_error *error)
{
	json_t *answer = control_refused((enum cairn_status)fault->class, fault->text);
	enum cairn_status status = control_status(answer, error);
	json_decref(answer);
	return status;
}

/* Hands the spec over and waits until the tree runs. */
static enum cairn_status await_running(struct job *job, const json_t *spec, const uint8_t *key, struct cairn_error *error)
{
	struct fault fault;
	_close_ int pipe = key ? key_give(key) : -1;
	const struct control_fds fds = { .output = -1, .key = pipe, .channel = -1 };
	int rc = key && pipe < 0 ? fault_set(&fault, FAULT_FAILED, -pipe, "pipe: %s", strerror(-pipe)) :
				   control_call(job->channel, spec, &fds, &job->state, &fault);
	if (rc < 0)
		return failed(&fault, error);
	enum cairn_status status = control_status(job->state, error);
	if (status != CAIRN_DONE)
		return status;
	job->root = job_outer_pid(job->init, (pid_t)json_integer_value(json_object_get(job->state, "root")));
	return CAIRN_DONE;
}

/* Of the library: the cairn beside it, as in a build folder, or in the bin of its prefix, or where this one was to be installed. */
static char *find_program(void)
{
	static const char *const ways[] = { "cairn", "../bin/cairn", "../../bin/cairn" };
	Dl_info self;
	const char *slash = dladdr((const void *)(uintptr_t)&find_program, &self) && self.dli_fname ? strrchr(self.dli_fname, '/') : NULL;
	for (size_t i = 0; slash && i < sizeof ways / sizeof *ways; i++) {
		char *path = memory_format("%.*s/%s", (int)(slash - self.dli_fname), self.dli_fname, ways[i]);
		if (access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return memory_string(CAIRN_PROGRAM);
}

struct namespace_wish job_wish(const json_t *spec)
{
	return (struct namespace_wish){
		.network = json_is_true(json_object_get(spec, "network")),
		.clocks = json_object_get(spec, "monotonic_ns") != NULL,
		.monotonic_ns = json_integer_value(json_object_get(spec, "monotonic_ns")),
		.boottime_ns = json_integer_value(json_object_get(spec, "boottime_ns")),
	};
}

int job_execute(const char *program, const struct namespace_wish *wish, char *const command[], pid_t *ret_init, int *ret_channel, struct fault *fault)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "socketpair: %s", strerror(errno));
	_close_ int here = ends[0], there = ends[1];
	char number[16];
	snprintf(number, sizeof number, "%d", there);
	VEC(char *) argv = { 0 };
	*vec_add(&argv) = "cairn";
	*vec_add(&argv) = "init";
	*vec_add(&argv) = number;
	for (size_t i = 0; command && command[i]; i++)
		*vec_add(&argv) = command[i];
	vec_add(&argv);
	fcntl(there, F_SETFD, 0);
	_free_ char *found = program ? memory_string(program) : find_program();
	int rc = namespace_start(found, argv.at, wish, ret_init, fault);
	vec_finish(&argv);
	if (rc == 0)
		*ret_channel = fd_steal(&here);
	return rc;
}

enum cairn_status job_start(const char *program, const json_t *spec, const uint8_t *key, char *const command[], struct job *ret_job,
			    struct cairn_error *error)
{
	struct fault fault;
	const struct namespace_wish wish = job_wish(spec);
	*ret_job = (struct job){ .channel = -1 };
	if (job_execute(program, &wish, command, &ret_job->init, &ret_job->channel, &fault) < 0)
		return failed(&fault, error);
	if (wish.network && network_connect(ret_job->init, &fault) < 0)
		log_warn("the job's network has no way out: %s; continuing without it", fault.text);
	enum cairn_status status = await_running(ret_job, spec, key, error);
	if (status != CAIRN_DONE) {
		kill(ret_job->init, SIGKILL);
		waitpid(ret_job->init, NULL, 0);
		job_finish(ret_job);
	}
	return status;
}

void job_finish(struct job *job)
{
	if (job->channel >= 0)
		close(job->channel);
	json_decref(job->state);
	*job = (struct job){ .channel = -1 };
}
