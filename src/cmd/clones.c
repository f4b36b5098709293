/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/clones.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/key.h"
#include "base/fd.h"
#include "base/memory.h"
#include "cmd/foreground.h"
#include "cmd/target.h"
#include "job/clones.h"
#include "job/control.h"

struct clones {
	unsigned count, left; /* left: that run */
	struct job *jobs;
	struct cairn_restore_result *results;
	int *statuses;
	const struct cmd_common *common;
};

/* ---- when they run ---- */

static int write_pidfile(const char *path, const struct clones *clones, struct fault *fault)
{
	_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int rc = fd < 0 ? -1 : 0;
	for (unsigned i = 0; rc >= 0 && i < clones->count; i++)
		rc = dprintf(fd, "%d\n", clones->results[i].root);
	return rc < 0 ? fault_set(fault, fault_class_of(errno), errno, "%s: %s; the clones run all the same; try another --pidfile", path, strerror(errno)) : 0;
}

static void print_line(int fd, const json_t *object)
{
	_free_ char *line = json_dumps(object, JSON_COMPACT);
	if (fd)
		dprintf(fd, "%s\n", line);
}

static void print_results(const struct clones *clones, const char *image, const struct clones_wish *wish)
{
	for (unsigned i = 0; i < clones->count; i++) {
		const struct cairn_restore_result *result = &clones->results[i];
		const char *name = control_text(clones->jobs[i].state, "name", "");
		json_t *object = json_pack("{s:s, s:o, s:i, s:s, s:i, s:b, s:i, s:i, s:I, s:f}", "event", "restore", "image", cmd_text(image), "clone",
					   (int)i + 1, "name", name, "pid", (int)result->root, "private", true, "processes", (int)result->processes,
					   "threads", (int)result->threads, "pages", (json_int_t)result->pages, "total_ms", (double)result->total_ns / 1e6);
		print_line(wish->status_fd, object);
		if (clones->common->json)
			cmd_json(json_incref(object));
		else if (wish->detached)
			printf("%d\n", result->root);
		if (clones->common->verbosity && !clones->common->json)
			fprintf(stderr, "cairn: %s: clone %u: process %d, job %s\n", image, i + 1, result->root, name);
		json_decref(object);
	}
	if (clones->common->verbosity && !clones->common->json)
		fprintf(stderr, "cairn: %s: %u clones of %" PRIu32 " processes, %.1f ms\n", image, clones->count, clones->results[0].processes,
			(double)clones->results[0].total_ns / 1e6);
	fflush(stdout);
}

static void report(const struct cmd_common *common, const struct clones_wish *wish, enum cairn_status status, struct cairn_error *error)
{
	json_t *object = json_pack("{s:s, s:i, s:o}", "event", "fault", "status", (int)status, "message", cmd_text(error->count ? error->lines[0] : ""));
	print_line(wish->status_fd, object);
	json_decref(object);
	cmd_report_error(common, status, error);
	cairn_error_free(error);
}

/* ---- until they have ended ---- */

static void ended(struct clones *clones, unsigned index, int status)
{
	struct job *job = &clones->jobs[index];
	clones->statuses[index] = status;
	clones->left--;
	if (clones->common->json)
		cmd_json(json_pack("{s:s, s:i, s:i, s:i}", "event", "ended", "clone", (int)index + 1, "pid", (int)job->root, "status", status));
	else if (status && !clones->common->quiet)
		fprintf(stderr, "cairn: clone %u, process %d: ended with status %d\n", index + 1, job->root, status);
	while (waitpid(job->init, NULL, 0) < 0 && errno == EINTR)
		;
	job_finish(job);
}

static int status_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void hear(struct clones *clones, unsigned index)
{
	json_t *event;
	if (control_receive(clones->jobs[index].channel, &event, NULL) <= 0) {
		/* Its init was killed, and everything with it. */
		ended(clones, index, 128 + SIGKILL);
		return;
	}
	const char *what = control_text(event, "event", "");
	if (!strcmp(what, "message"))
		fprintf(stderr, "cairn: clone %u: %s\n", index + 1, control_text(event, "line", ""));
	else if (!strcmp(what, "ended"))
		ended(clones, index, status_of((int)json_integer_value(json_object_get(event, "wait"))));
	json_decref(event);
}

/* What comes to this Cairn is for all of them. */
static void pass_signals(const struct clones *clones, int signals)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == sizeof info)
		for (unsigned i = 0; i < clones->count; i++)
			if (info.ssi_signo != SIGCHLD && info.ssi_signo != SIGCONT && clones->jobs[i].channel >= 0)
				kill(clones->jobs[i].root, (int)info.ssi_signo);
}

/* The status of the first, by number, that did not end with 0. */
static int wait_for_all(struct clones *clones)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	_close_ int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	_free_ struct pollfd *watched = memory_new((clones->count + 1) * sizeof *watched);
	while (clones->left) {
		for (unsigned i = 0; i < clones->count; i++)
			watched[i] = (struct pollfd){ clones->jobs[i].channel, POLLIN, 0 };
		watched[clones->count] = (struct pollfd){ signals, POLLIN, 0 };
		if (poll(watched, clones->count + 1, -1) < 0)
			continue;
		if (watched[clones->count].revents)
			pass_signals(clones, signals);
		for (unsigned i = 0; i < clones->count; i++)
			if (watched[i].fd >= 0 && watched[i].revents)
				hear(clones, i);
	}
	int status = 0;
	for (unsigned i = 0; !status && i < clones->count; i++)
		status = clones->statuses[i];
	return status;
}

int clones_run(const struct cairn_restore_options *options, const struct clones_wish *wish, const struct cmd_common *common)
{
	const struct restore_way way = { .program = "/proc/self/exe", .detached = wish->detached };
	_free_ struct job *jobs = memory_new(wish->count * sizeof *jobs);
	_free_ struct cairn_restore_result *results = memory_new(wish->count * sizeof *results);
	_free_ int *statuses = memory_new(wish->count * sizeof *statuses);
	struct clones clones = { wish->count, wish->count, jobs, results, statuses, common };
	struct cairn_error error = { 0 };
	struct fault fault;
	enum cairn_status status = restore_clones(options, &way, wish->count, results, jobs, &error);
	key_free(wish->key);
	if (status != CAIRN_DONE) {
		report(common, wish, status, &error);
		return wish->detached || status == CAIRN_USAGE ? (int)status : OWN_FAILURE;
	}
	print_results(&clones, options->image, wish);
	if (wish->pidfile && write_pidfile(wish->pidfile, &clones, &fault) < 0)
		cmd_report(common, &fault);
	if (!wish->detached)
		return wait_for_all(&clones);
	for (unsigned i = 0; i < clones.count; i++)
		job_finish(&jobs[i]);
	return 0;
}
