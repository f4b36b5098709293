/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "job/control.h"
#include "job/registry.h"
#include "job/state.h"

enum { NAMES_TRIED = 100 };

/* Listens under the wanted name or, where the user chose none, under the first free one made from it. */
static int take_name(struct init *init, const char *wanted, struct fault *fault)
{
	_free_ char *base = memory_string(wanted);
	for (char *c = base; *c; c++)
		if (!strchr("._-+", *c) && !(*c >= '0' && *c <= '9') && !(*c >= 'A' && *c <= 'Z') && !(*c >= 'a' && *c <= 'z'))
			*c = '_';
	base[strnlen(base, JOB_NAME_MAX - 4)] = 0;
	if (!registry_name_valid(base)) {
		char *named = memory_format("job-%s", base);
		free(base);
		base = named;
	}
	for (int n = 1;; n++) {
		_free_ char *name = n == 1 ? memory_string(base) : memory_format("%s-%d", base, n);
		int rc = registry_listen(name, &init->listener, &init->socket_path, fault);
		if (rc == 0) {
			init->name = memory_string(name);
			return 0;
		}
		if (rc != -EADDRINUSE || spec_true(init, "exact") || n == NAMES_TRIED)
			return rc;
	}
}

/* Beside the socket, for scripts: how often the tree has been restored. */
static char *restored_path(const struct init *init)
{
	size_t length = strlen(init->socket_path);
	return memory_format("%.*s.restored", (int)(length - strlen(".sock")), init->socket_path);
}

static void note_restored(const struct init *init)
{
	_free_ char *path = restored_path(init);
	_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || dprintf(fd, "%u\n", init->generation) < 0) {
		/* No more than a convenience: cairn ps says it as well. */
	}
}

void start_undo_name(const struct init *init)
{
	_free_ char *path = restored_path(init);
	unlink(path);
	unlink(init->socket_path);
}


/* What the command starts with is what the user's shell gave Cairn. */
__attribute__((noreturn)) static void execute(struct init *init, char *const command[], int report)
{
	uint64_t mask = strtoull(control_text(init->spec, "mask", "0"), NULL, 16);
	if (spec_true(init, "user")) {
		struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
		struct __user_cap_data_struct none[2] = { 0 };
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
		/* Also for uid 0, which exec would give all of the namespace's. */
		for (unsigned long cap = 0; geteuid() == 0 && cap < 64; cap++)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
		syscall(SYS_capset, &header, none);
	}
	setenv("CAIRN_JOB", init->socket_path, 1);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
	execvp(command[0], command);
	int error = errno;
	_exit(write(report, &error, sizeof error) == sizeof error ? 127 : 126);
}

static int start_command(struct init *init, char *const command[], struct fault *fault)
{
	int ends[2], error = 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	_close_ int from = ends[0], to = ends[1];
	init->root = fork();
	if (init->root == 0)
		execute(init, command, to);
	if (init->root < 0)
		return fault_set(fault, FAULT_FAILED, errno, "fork: %s", strerror(errno));
	close(fd_steal(&to));
	if (read(from, &error, sizeof error) == sizeof error) {
		waitpid(init->root, NULL, 0);
		return fault_set(fault, FAULT_FAILED, error, "%s: %s; try its full path, after --", command[0], strerror(error));
	}
	return 0;
}

/* A clone runs when all of them can. Not 0: they shall not. */
static int await_others(struct init *init)
{
	json_t *word;
	init_say(init, json_pack("{s:s}", "event", "ready"));
	if (control_receive(init->channel, &word, NULL) <= 0)
		return 1;
	bool goes = !strcmp(control_text(word, "op", ""), "go");
	json_decref(word);
	return !goes;
}

/* Everything is made and nothing runs: the tree's own group comes to the foreground, unless nobody wants it any more. */
static int on_ready(void *context, pid_t root, pid_t foreground_group)
{
	struct init *init = context;
	struct pollfd there = { .fd = init->channel, .events = POLLOUT };
	if (poll(&there, 1, 0) == 1 && there.revents & (POLLERR | POLLHUP))
		return 1;
	if (!spec_true(init, "detached") && foreground_group && getpgid(root) != getpgrp()) {
		init->terminal.group = foreground_group;
		terminal_give(&init->terminal, foreground_group);
	}
	return spec_number(init, "clone") ? await_others(init) : 0;
}

/* The result is heap; its strings are the spec's. */
static struct cairn_path_map *path_maps_of(const struct init *init, size_t *ret_count)
{
	const json_t *list = json_object_get(init->spec, "path_maps");
	*ret_count = json_array_size(list);
	struct cairn_path_map *maps = memory_new(*ret_count * sizeof *maps);
	for (size_t i = 0; i < *ret_count; i++)
		maps[i] = (struct cairn_path_map){
			json_string_value(json_array_get(json_array_get(list, i), 0)),
			json_string_value(json_array_get(json_array_get(list, i), 1)),
		};
	return maps;
}

static const char **address_maps_of(const struct init *init, size_t *ret_count)
{
	const json_t *list = json_object_get(init->spec, "address_maps");
	*ret_count = json_array_size(list);
	const char **maps = memory_new((*ret_count + 1) * sizeof *maps);
	for (size_t i = 0; i < *ret_count; i++)
		maps[i] = json_string_value(json_array_get(list, i));
	return maps;
}

static struct cairn_redirect *redirects_of(const struct init *init, size_t *ret_count)
{
	const json_t *list = json_object_get(init->spec, "redirects");
	*ret_count = json_array_size(list);
	struct cairn_redirect *redirects = memory_new(*ret_count * sizeof *redirects);
	for (size_t i = 0; i < *ret_count; i++)
		redirects[i] = (struct cairn_redirect){
			(int)json_integer_value(json_array_get(json_array_get(list, i), 0)),
			json_string_value(json_array_get(json_array_get(list, i), 1)),
		};
	return redirects;
}

void start_options(struct init *init, struct start_options *ret_options)
{
	size_t map_count, redirect_count, address_count;
	ret_options->addresses = address_maps_of(init, &address_count);
	ret_options->maps = path_maps_of(init, &map_count);
	ret_options->redirects = redirects_of(init, &redirect_count);
	ret_options->restore = (struct cairn_restore_options){
		.redirects = ret_options->redirects,
		.redirect_count = redirect_count,
		.once = spec_true(init, "once"),
		.lazy = spec_true(init, "lazy"),
		.mapped = spec_true(init, "mapped"),
		.path_maps = ret_options->maps,
		.path_map_count = map_count,
		.address_maps = ret_options->addresses,
		.address_map_count = address_count,
		.force_cpu = spec_true(init, "force_cpu"),
		.close_tcp = spec_true(init, "close_tcp"),
		.image = spec_text(init, "restore"),
		.key = init->key,
		.pids = CAIRN_PIDS_SAME,
		.threads = (unsigned)spec_number(init, "threads"),
		.timeout_s = json_number_value(json_object_get(init->spec, "timeout")),
		.leave_stopped = spec_true(init, "leave_stopped"),
		.ignore_changed_files = spec_true(init, "ignore_changed_files"),
		.roll_back_files = spec_true(init, "roll_back_files"),
		.trust_image = spec_true(init, "trust_image"),
		.terminal = spec_text(init, "terminal"),
		.signal_fd = -1,
		.ready = on_ready,
		.context = init,
	};
}

void start_options_finish(struct start_options *options)
{
	free(options->addresses);
	free(options->maps);
	free(options->redirects);
}

static char *base_name(const struct init *init)
{
	return init->restored.job[0] ? memory_string(init->restored.job) : memory_format("%s-%d", init->command, init->root);
}

static json_t *restore_tree(struct init *init)
{
	struct start_options options;
	start_options(init, &options);
	struct cairn_restore_result result;
	struct cairn_error error = { 0 };
	int rc;
	enum cairn_status status = operation_restore(&options.restore, init->template, &result, &init->restored, &rc, &error);
	start_options_finish(&options);
	json_t *answer;
	if (status != CAIRN_DONE) {
		answer = control_failed(status, &error);
		cairn_error_free(&error);
		return answer;
	}
	init->root = result.root;
	init->generation = init->restored.generation;
	init->command = memory_string(init->restored.command);
	if (!spec_text(init, "name")) {
		_free_ char *base = base_name(init);
		unsigned long long clone = spec_number(init, "clone");
		json_object_set_new(init->spec, "name", clone ? json_sprintf("%s-%llu", base, clone) : json_string(base));
	}
	return json_pack("{s:i, s:i, s:i, s:i, s:I}", "status", CAIRN_DONE, "root", (int)result.root, "processes",
			 (int)result.processes, "threads", (int)result.threads, "pages", (json_int_t)result.pages);
}

json_t *start_tree(struct init *init, char *const command[])
{
	struct fault fault;
	json_t *answer;
	if (command) {
		init->command = memory_string(command[0]);
		if (take_name(init, control_text(init->spec, "name", "job"), &fault) < 0 || start_command(init, command, &fault) < 0)
			return control_refused((enum cairn_status)fault.class, fault.text);
		answer = json_pack("{s:i, s:i}", "status", CAIRN_DONE, "root", (int)init->root);
	} else {
		answer = restore_tree(init);
		if (json_integer_value(json_object_get(answer, "status")) != CAIRN_DONE)
			return answer;
		if (take_name(init, spec_text(init, "name"), &fault) < 0) {
			json_decref(answer);
			return control_refused((enum cairn_status)fault.class, fault.text);
		}
	}
	note_restored(init);
	json_object_set_new(answer, "name", json_string(init->name));
	return answer;
}
