/* SPDX-License-Identifier: Apache-2.0 */
/* cairn run, and cairn init, which is what it executes as PID 1 of the job's namespace (job/init.h). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/key.h"
#include "api/operations.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "cmd/foreground.h"
#include "cmd/target.h"
#include "job/init.h"
#include "job/registry.h"
#include "job/restore.h"
#include "job/save.h"
#include "kernel/features.h"

struct run_options {
	const char *name, *image, *on_signal;
	double every;
	uint64_t keep;
	bool resume, network;
	int file_changed; /* index in the option's words */
	int exit_after; /* -1: not given; 0: after a checkpoint by signal, or by time if there is none; 1: after any */
	struct cmd_list maps, addresses;
	int outside, in_flight, tcp, save_files;
	const char *key;
};

static const struct cmd_option options[] = {
	{ "name", 0, CMD_STRING, "NAME", "the job's name (default: made from the command)", offsetof(struct run_options, name) },
	{ "image", 0, CMD_STRING, "FILE", "where its checkpoints go", offsetof(struct run_options, image) },
	{ "every", 0, CMD_DURATION, "TIME", "checkpoint it every TIME (90, 10m, 2h), to --image",
	  offsetof(struct run_options, every) },
	{ "keep", 0, CMD_NUMBER, "N", "keep N generations: FILE, FILE.1, ...", offsetof(struct run_options, keep) },
	{ "on-signal", 0, CMD_STRING, "SIGNAL", "checkpoint it when this cairn gets SIGNAL (USR1, TERM ...)",
	  offsetof(struct run_options, on_signal) },
	{ "exit-after-checkpoint", 0, CMD_CHOICE, "signal|any", "end after a checkpoint by --on-signal (without that: by --every), or after any, with "
	  "status 85", offsetof(struct run_options, exit_after), true },
	{ "resume", 0, CMD_FLAG, NULL, "restore it from --image if that exists, instead of starting COMMAND",
	  offsetof(struct run_options, resume) },
	{ "encrypt-key", 0, CMD_STRING, "FILE", "its checkpoints are encrypted with the key in FILE, also the one that it is resumed from",
	  offsetof(struct run_options, key) },
	{ "net", 0, CMD_FLAG, NULL, "in a network of its own, with pasta (package passt) for the way out", offsetof(struct run_options, network) },
	{ "map-path", 0, CMD_LIST, "OLD=NEW", "when it is resumed, as with cairn restore", offsetof(struct run_options, maps) },
	{ "map-address", 0, CMD_LIST, "OLD=NEW", "when it is resumed, as with cairn restore", offsetof(struct run_options, addresses) },
	{ "outside", 0, CMD_CHOICE, "refuse|close|reconnect", "for the checkpoints that it makes, as with cairn checkpoint",
	  offsetof(struct run_options, outside) },
	{ "tcp", 0, CMD_CHOICE, "refuse|established|close", "the same; established: only if all of them end the job",
	  offsetof(struct run_options, tcp) },
	{ "in-flight", 0, CMD_CHOICE, "refuse|lose", "the same", offsetof(struct run_options, in_flight) },
	{ "save-files", 0, CMD_CHOICE, "none|append|all", "the same", offsetof(struct run_options, save_files) },
	{ "file-changed", 0, CMD_CHOICE, "refuse|ignore|rollback", "when it is resumed, as with cairn restore (default: rollback)",
	  offsetof(struct run_options, file_changed) },
	{ NULL },
};

static const struct cmd_syntax syntax = {
	"run", "-- COMMAND [ARG...]", "start COMMAND as a job that its user can checkpoint", options, 1, -1, true,
};

static int signal_number(const char *name, int *ret_number, struct fault *fault)
{
	const char *plain = strncmp(name, "SIG", 3) ? name : name + 3;
	for (int number = 1; number < NSIG; number++) {
		const char *known = sigabbrev_np(number);
		if (known && !strcmp(known, plain) && number != SIGKILL && number != SIGSTOP && number != SIGCHLD) {
			*ret_number = number;
			return 0;
		}
	}
	return fault_set(fault, FAULT_USAGE, EINVAL, "--on-signal %s: no signal that can be caught; try USR1 or TERM", name);
}

/* Outlives a change of the working directory. The directory has to exist, the file need not. */
static int absolute_path(const char *path, char **ret_path, struct fault *fault)
{
	_free_ char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
	if (path[0] != '/' && !here)
		return fault_set(fault, FAULT_FAILED, errno, "the working directory: %s; try an absolute path", strerror(errno));
	*ret_path = here ? memory_format("%s/%s", here, path) : memory_string(path);
	return 0;
}

static int check_options(const struct run_options *given, int *ret_signal, struct fault *fault)
{
	if ((given->every > 0 || given->on_signal || given->resume || given->keep) && !given->image)
		return fault_set(fault, FAULT_USAGE, EINVAL, "--every, --keep, --on-signal and --resume need a place; try --image FILE");
	if (given->exit_after >= 0 && !given->on_signal && given->every <= 0)
		return fault_set(fault, FAULT_USAGE, EINVAL, "--exit-after-checkpoint needs --on-signal or --every");
	bool all_end = given->exit_after == 1 || (given->exit_after == 0 && given->every <= 0);
	if (given->tcp == CAIRN_TCP_ESTABLISHED && !all_end)
		return fault_set(fault, FAULT_USAGE, EINVAL, "--tcp established: a connection saved from a program that runs on is stale at once; "
				 "try it with --exit-after-checkpoint=any");
	if (given->name && !registry_name_valid(given->name))
		return fault_set(fault, FAULT_USAGE, EINVAL,
				 "--name %s: try letters, digits and ._-+, at most %d, and not digits alone", given->name, JOB_NAME_MAX);
	return given->on_signal ? signal_number(given->on_signal, ret_signal, fault) : 0;
}

static json_t *spec_of(const struct run_options *given, const char *image, const char *command, const struct terminal *terminal)
{
	uint64_t mask = 0;
	sigset_t none, all;
	sigemptyset(&none);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof mask);
	/* From here on signals are Cairn's to pass on. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	const char *base = strrchr(command, '/');
	json_t *spec = json_pack("{s:b, s:b, s:b, s:f, s:i, s:b}", "exact", given->name != NULL, "user",
				 !feature_capability(CAP_SYS_ADMIN), "ours", terminal->ours, "every", given->every, "keep",
				 (int)given->keep, "exit_after", given->exit_after == 1 || (given->exit_after == 0 && !given->on_signal));
	json_object_set_new(spec, "network", json_boolean(given->network));
	json_object_set_new(spec, "outside", json_integer(given->outside));
	json_object_set_new(spec, "tcp", json_integer(given->tcp));
	json_object_set_new(spec, "save_files", json_integer(given->save_files));
	json_object_set_new(spec, "lose_in_flight", json_boolean(given->in_flight == 1));
	json_object_set_new(spec, "mask", json_sprintf("%llx", (unsigned long long)mask));
	if (given->name)
		json_object_set_new(spec, "name", json_string(given->name));
	else
		json_object_set_new(spec, "name", json_sprintf("%s-%d", base ? base + 1 : command, getpid()));
	if (image)
		json_object_set_new(spec, "image", json_string(image));
	return spec;
}

/* The youngest image that is whole. */
static enum cairn_status resume(const char *image, const uint8_t *key, const struct run_options *given, const struct path_words *maps, const json_t *spec,
				const struct terminal *terminal, struct job *ret_job, struct cairn_error *error)
{
	enum cairn_status status = CAIRN_BAD_IMAGE;
	for (uint64_t n = 0; status == CAIRN_BAD_IMAGE; n++) {
		_free_ char *path = n ? memory_format("%s.%llu", image, (unsigned long long)n) : memory_string(image);
		if (n && !operation_is_image(path))
			break;
		const struct cairn_restore_options restore = {
			.image = path, .key = key, .pids = CAIRN_PIDS_PRIVATE, .signal_fd = -1,
			.ignore_changed_files = given->file_changed == 1, .roll_back_files = given->file_changed == 2,
			.path_maps = maps->maps, .path_map_count = maps->count,
			.address_maps = (const char *const *)given->addresses.at, .address_map_count = given->addresses.count,
			.terminal = terminal->path[0] ? terminal->path : NULL,
		};
		const struct restore_way way = { .program = "/proc/self/exe", .spec = spec, .terminal_ours = terminal->ours };
		struct cairn_restore_result result;
		struct cairn_error one = { 0 };
		status = restore_image(&restore, &way, &result, ret_job, &one);
		_free_ char *older = memory_format("%s.%llu", image, (unsigned long long)n + 1);
		if (status == CAIRN_BAD_IMAGE && operation_is_image(older))
			fprintf(stderr, "cairn: %s; its older generation is tried\n", one.lines[0]);
		cairn_error_free(error);
		*error = one;
	}
	return status;
}

static enum cairn_status begin(const struct run_options *given, const char *image, const uint8_t *key, const struct path_words *maps, const json_t *spec,
			       char *const command[], struct foreground *foreground, struct cairn_error *error)
{
	if (image && !save_rotate(image, key, (unsigned)given->keep)) {
		struct fault fault;
		fault_set(&fault, FAULT_FAILED, errno, "%s.next, the youngest checkpoint, cannot take its place: %s; try to move it there", image, strerror(errno));
		return operation_failed(NULL, &fault, NULL, error);
	}
	if (given->resume && image && access(image, F_OK) == 0)
		return resume(image, key, given, maps, spec, foreground->terminal, &foreground->job, error);
	return job_start("/proc/self/exe", spec, key, command, &foreground->job, error);
}

/* Frees @key. */
static int run_as_told(const struct run_options *given, const char *image, uint8_t *key, const struct path_words *maps, int signal,
		       const struct cmd_common *common)
{
	struct terminal terminal;
	terminal_open(&terminal);
	json_t *spec = spec_of(given, image, common->operands[0], &terminal);
	struct foreground foreground = {
		.terminal = &terminal, .common = common, .save_signal = signal, .exit_after = given->exit_after >= 0,
	};
	struct cairn_error error = { 0 };
	enum cairn_status status = begin(given, image, key, maps, spec, common->operands, &foreground, &error);
	key_free(key);
	json_decref(spec);
	if (status != CAIRN_DONE) {
		terminal_give(&terminal, getpgrp());
		cmd_report_error(common, status, &error);
		cairn_error_free(&error);
		return OWN_FAILURE;
	}
	if (common->verbosity)
		fprintf(stderr, "cairn: job %s, process %d\n",
			json_string_value(json_object_get(foreground.job.state, "name")), foreground.job.root);
	return foreground_wait(&foreground);
}

int cmd_run(int argc, char **argv)
{
	struct run_options given = { .exit_after = -1, .file_changed = 2 };
	struct path_words maps = { 0 };
	struct cmd_common common;
	struct fault fault;
	int signal = 0;
	_free_ char *image = NULL;
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	int status = 0;
	if (rc == 0)
		rc = check_options(&given, &signal, &fault);
	if (rc == 0 && given.image)
		rc = absolute_path(given.image, &image, &fault);
	if (rc == 0)
		rc = path_words_of(&given.maps, &maps, &fault);
	uint8_t *key = NULL;
	if (rc == 0 && given.key)
		rc = key_read(given.key, &key, &fault);
	if (rc == 0)
		status = run_as_told(&given, image, key, &maps, signal, &common);
	if (rc < 0) {
		cmd_report(&common, &fault);
		status = OWN_FAILURE;
	}
	path_words_finish(&maps);
	cmd_list_finish(&given.maps);
	cmd_list_finish(&given.addresses);
	return status;
}

/* A template of clones is no PID 1, but has a channel as well. */
static bool is_channel(int fd)
{
	int type = 0;
	socklen_t size = sizeof type;
	return fd >= 3 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

int cmd_init(int argc, char **argv)
{
	int channel = argc > 1 ? (int)strtol(argv[1], NULL, 10) : -1;
	if (!is_channel(channel)) {
		struct fault fault;
		fault_set(&fault, FAULT_USAGE, EINVAL, "init is what cairn run starts; try cairn run -- COMMAND");
		return cmd_report(NULL, &fault);
	}
	return init_run(channel, argc > 2 ? argv + 2 : NULL);
}
