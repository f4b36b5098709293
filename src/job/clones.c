/* SPDX-License-Identifier: Apache-2.0 */
#include "job/clones.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/key.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/memory.h"
#include "job/control.h"
#include "job/network.h"

enum { MOST_CLONES = 10000, AT_ONCE = 8 /* that are being made */ };

struct clones {
	pid_t template;
	int channel;        /* to it, -1 */
	const uint8_t *key; /* of the image, NULL: none */
	const json_t *spec; /* of all of them */
	bool network;
	unsigned count, made, ready;
	struct job *jobs;
};

static enum cairn_status failed(const struct fault *fault, struct cairn_error *error)
{
	return operation_failed(NULL, fault, NULL, error);
}

static enum cairn_status ask(int channel, const json_t *request, const struct control_fds *fds, json_t **ret_answer, struct cairn_error *error)
{
	struct fault fault;
	if (control_call(channel, request, fds, ret_answer, &fault) < 0)
		return failed(&fault, error);
	return control_status(*ret_answer, error);
}

/* ---- the template ---- */

static enum cairn_status start_template(struct clones *clones, const struct restore_way *way, json_t *spec, struct cairn_error *error)
{
	const struct namespace_wish wish = { .template = true };
	struct fault fault;
	json_t *answer = NULL;
	if (job_execute(way->program, &wish, NULL, &clones->template, &clones->channel, &fault) < 0)
		return failed(&fault, error);
	json_object_set_new(spec, "template", json_true());
	_close_ int pipe = clones->key ? key_give(clones->key) : -1;
	const struct control_fds fds = { .output = -1, .key = pipe, .channel = -1 };
	enum cairn_status status = ask(clones->channel, spec, &fds, &answer, error);
	json_object_del(spec, "template");
	if (status == CAIRN_DONE)
		log_info("restore: the clones have %lld pages in common", (long long)json_integer_value(json_object_get(answer, "pages")));
	json_decref(answer);
	return status;
}

static void end_template(struct clones *clones)
{
	if (clones->channel >= 0)
		close(clones->channel);
	if (clones->template > 0)
		while (waitpid(clones->template, NULL, 0) < 0 && errno == EINTR)
			;
}

/* ---- each ---- */

/* "%n" is the number. */
static char *numbered(const char *path, unsigned number)
{
	const char *at = strstr(path, "%n");
	return at ? memory_format("%.*s%u%s", (int)(at - path), path, number, at + 2) : memory_string(path);
}

static json_t *spec_of(const struct clones *clones, unsigned number)
{
	json_t *spec = json_deep_copy(clones->spec), *redirects = json_object_get(spec, "redirects");
	json_object_set_new(spec, "clone", json_integer(number));
	json_object_set_new(spec, "once", json_false()); /* the template has taken it, for all */
	for (size_t i = 0; i < json_array_size(redirects); i++) {
		json_t *redirect = json_array_get(redirects, i);
		_free_ char *path = numbered(json_string_value(json_array_get(redirect, 1)), number);
		json_array_set_new(redirect, 1, json_string(path));
	}
	return spec;
}

static enum cairn_status make_one(struct clones *clones, struct cairn_error *error)
{
	struct fault fault;
	int ends[2];
	struct job *job = &clones->jobs[clones->made];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		fault_set(&fault, FAULT_FAILED, errno, "socketpair: %s; try fewer clones", strerror(errno));
		return failed(&fault, error);
	}
	_close_ int here = ends[0], there = ends[1];
	json_t *request = json_pack("{s:s}", "op", "clone"), *answer = NULL;
	const struct control_fds fds = { .output = -1, .key = -1, .channel = there };
	enum cairn_status status = ask(clones->channel, request, &fds, &answer, error);
	json_decref(request);
	if (status == CAIRN_DONE) {
		job->init = (pid_t)json_integer_value(json_object_get(answer, "pid"));
		job->channel = fd_steal(&here);
		clones->made++;
	}
	json_decref(answer);
	if (status != CAIRN_DONE)
		return status;
	close(fd_steal(&there));
	if (clones->network && network_connect(job->init, &fault) < 0)
		log_warn("the network of clone %u has no way out: %s; continuing without it", clones->made, fault.text);
	json_t *spec = spec_of(clones, clones->made);
	_close_ int pipe = clones->key ? key_give(clones->key) : -1;
	const struct control_fds with = { .output = -1, .key = pipe, .channel = -1 };
	int rc = control_send(job->channel, spec, &with);
	json_decref(spec);
	if (rc < 0) {
		fault_set(&fault, FAULT_FAILED, -rc, "clone %u: %s", clones->made, strerror(-rc));
		return failed(&fault, error);
	}
	return CAIRN_DONE;
}

/* The next thing that the init of the @index-th says. */
static enum cairn_status hear(struct clones *clones, unsigned index, json_t **ret_word, struct cairn_error *error)
{
	struct fault fault;
	int rc = control_receive(clones->jobs[index].channel, ret_word, NULL);
	if (rc > 0)
		return CAIRN_DONE;
	fault_set(&fault, FAULT_FAILED, rc ? -rc : ECONNRESET, "clone %u: its init has ended", index + 1);
	return failed(&fault, error);
}

/* Whose lines they are. */
static void name_lines(struct cairn_error *error, unsigned number)
{
	for (size_t i = 0; i < error->count; i++) {
		char *named = memory_format("clone %u: %s", number, error->lines[i]);
		free(error->lines[i]);
		error->lines[i] = named;
	}
}

static enum cairn_status await_ready(struct clones *clones, struct cairn_error *error)
{
	json_t *word = NULL;
	enum cairn_status status = hear(clones, clones->ready, &word, error);
	if (status == CAIRN_DONE && strcmp(control_text(word, "event", ""), "ready") != 0) {
		status = control_status(word, error);
		status = status == CAIRN_DONE ? CAIRN_FAILED : status;
		name_lines(error, clones->ready + 1);
	}
	clones->ready++;
	json_decref(word);
	return status;
}

static enum cairn_status await_running(struct clones *clones, unsigned index, struct cairn_error *error)
{
	struct job *job = &clones->jobs[index];
	enum cairn_status status = hear(clones, index, &job->state, error);
	if (status == CAIRN_DONE)
		status = control_status(job->state, error);
	if (status == CAIRN_DONE)
		job->root = job_outer_pid(job->init, (pid_t)json_integer_value(json_object_get(job->state, "root")));
	return status;
}

/* ---- all ---- */

static enum cairn_status make_all(struct clones *clones, struct cairn_error *error)
{
	enum cairn_status status = CAIRN_DONE;
	while (status == CAIRN_DONE && clones->ready < clones->count)
		status = clones->made < clones->count && clones->made - clones->ready < AT_ONCE ? make_one(clones, error) : await_ready(clones, error);
	return status;
}

/* The commit. */
static enum cairn_status let_go(struct clones *clones, struct cairn_error *error)
{
	json_t *use = json_pack("{s:s}", "op", "use"), *go = json_pack("{s:s}", "op", "go"), *answer = NULL;
	enum cairn_status status = ask(clones->channel, use, NULL, &answer, error);
	for (unsigned i = 0; status == CAIRN_DONE && i < clones->count; i++)
		control_send(clones->jobs[i].channel, go, NULL);
	for (unsigned i = 0; status == CAIRN_DONE && i < clones->count; i++)
		status = await_running(clones, i, error);
	json_decref(use);
	json_decref(go);
	json_decref(answer);
	return status;
}

static void undo(struct clones *clones)
{
	for (unsigned i = 0; i < clones->made; i++)
		kill(clones->jobs[i].init, SIGKILL);
	for (unsigned i = 0; i < clones->made; i++) {
		while (waitpid(clones->jobs[i].init, NULL, 0) < 0 && errno == EINTR)
			;
		job_finish(&clones->jobs[i]);
	}
}

static int check(const struct cairn_restore_options *options, unsigned count, struct fault *fault)
{
	const char *what = options->pids == CAIRN_PIDS_SAME || options->pids == CAIRN_PIDS_ANY ? "--pids same and any: each clone has a PID namespace of its own" :
			   options->lazy || options->mapped ? "--lazy: the clones share memory that is loaded once" :
			   options->roll_back_files ? "--file-changed rollback: the clones have the same files" :
			   count < 1 || count > MOST_CLONES ? "that number: from 1 to 10000 there may be" : NULL;
	return what ? fault_set(fault, FAULT_USAGE, EINVAL, "--clones does not go together with %s; try it without", what) : 0;
}

static enum cairn_status clone_by(const struct cairn_restore_options *options, const struct restore_way *way, struct clones *clones,
				  struct cairn_error *error)
{
	struct cairn_restore_options one = *options;
	struct operation_peek peek = { 0 };
	one.terminal = NULL; /* one terminal is no controlling terminal of many sessions */
	operation_peek(&one, &peek, NULL);
	json_t *spec = restore_spec(&one, way, &peek);
	clones->spec = spec;
	clones->network = peek.own_network;
	enum cairn_status status = start_template(clones, way, spec, error);
	if (status == CAIRN_DONE)
		status = make_all(clones, error);
	if (status == CAIRN_DONE)
		status = let_go(clones, error);
	end_template(clones);
	if (status != CAIRN_DONE)
		undo(clones);
	json_decref(spec);
	return status;
}

static void fill_result(const struct job *job, uint64_t begin_ns, struct cairn_restore_result *result)
{
	*result = (struct cairn_restore_result){
		.root = job->root,
		.init = job->init,
		.processes = (uint32_t)json_integer_value(json_object_get(job->state, "processes")),
		.threads = (uint32_t)json_integer_value(json_object_get(job->state, "threads")),
		.pages = (uint64_t)json_integer_value(json_object_get(job->state, "pages")),
		.total_ns = clock_now_ns() - begin_ns,
	};
}

enum cairn_status restore_clones(const struct cairn_restore_options *options, const struct restore_way *way, unsigned count,
				 struct cairn_restore_result *ret_results, struct job *ret_jobs, struct cairn_error *error)
{
	struct clones clones = { .channel = -1, .key = options->key, .count = count, .jobs = ret_jobs };
	struct cairn_restore_options own = *options;
	struct fault fault;
	uint64_t begin = clock_now_ns();
	_close_ int fd = -1;
	_free_ char *path = NULL;
	if (check(options, count, &fault) < 0)
		return failed(&fault, error);
	for (unsigned i = 0; i < count; i++)
		ret_jobs[i] = (struct job){ .channel = -1 };
	if (!strcmp(options->image, "-")) {
		if (job_spool_input(&fd, &path, &fault) < 0)
			return failed(&fault, error);
		own.image = path;
		own.trust_image = true;
	}
	enum cairn_status status = clone_by(&own, way, &clones, error);
	for (unsigned i = 0; status == CAIRN_DONE && i < count; i++)
		fill_result(&ret_jobs[i], begin, &ret_results[i]);
	return status;
}

enum cairn_status cairn_restore_clones(const struct cairn_restore_options *options, unsigned count, struct cairn_restore_result *ret_results,
				       struct cairn_error *error)
{
	const struct restore_way way = { .detached = true };
	struct job *jobs = memory_new((count > MOST_CLONES ? 1 : count + 1) * sizeof *jobs);
	enum cairn_status status = restore_clones(options, &way, count, ret_results, jobs, error);
	for (unsigned i = 0; status == CAIRN_DONE && i < count; i++)
		job_finish(&jobs[i]);
	free(jobs);
	return status;
}
