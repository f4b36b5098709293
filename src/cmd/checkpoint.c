/* SPDX-License-Identifier: Apache-2.0 */
/* cairn checkpoint */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/key.h"
#include "base/fd.h"
#include "base/memory.h"
#include "cairn.h"
#include "cmd/bar.h"
#include "cmd/bound.h"
#include "cmd/cmd.h"
#include "cmd/target.h"
#include "job/control.h"
#include "kernel/procfs.h"

struct checkpoint_options {
	const char *output;
	bool kill, stop;
	uint64_t threads;
	int outside, in_flight, tcp, save_files;
	struct cmd_list devices;
	const char *parent;
	bool no_live, track;
	uint64_t max_extra_memory;
	const char *compress, *key;
};

static const struct cmd_option options[] = {
	{ "output", 'o', CMD_STRING, "FILE", "write the image to FILE, \"-\" is standard output (default: COMM-PID.cairn)",
	  offsetof(struct checkpoint_options, output) },
	{ "kill", 0, CMD_FLAG, NULL, "end the program once the image is safely on disk",
	  offsetof(struct checkpoint_options, kill) },
	{ "stop", 0, CMD_FLAG, NULL, "leave the program stopped (SIGCONT lets it go on)",
	  offsetof(struct checkpoint_options, stop) },
	{ "threads", 0, CMD_NUMBER, "N", "read memory with N threads (default: one per processor)",
	  offsetof(struct checkpoint_options, threads) },
	{ "outside", 0, CMD_CHOICE, "refuse|close|reconnect",
	  "what to do about pipes and Unix sockets whose other end is held outside the tree",
	  offsetof(struct checkpoint_options, outside) },
	{ "tcp", 0, CMD_CHOICE, "refuse|established|close",
	  "what to do about TCP connections to the outside; established: only with --kill or --stop",
	  offsetof(struct checkpoint_options, tcp) },
	{ "in-flight", 0, CMD_CHOICE, "refuse|lose", "what to do about what only reading away could show: queued inotify "
	  "events, connections not yet accepted", offsetof(struct checkpoint_options, in_flight) },
	{ "save-files", 0, CMD_CHOICE, "none|append|all", "take along the contents of files that are open for appending, or for writing at all", offsetof(struct checkpoint_options, save_files) },
	{ "device-reopen", 0, CMD_LIST, "PATH", "opening the device PATH again is enough to bring it back; repeatable",
	  offsetof(struct checkpoint_options, devices) },
	{ "incremental", 0, CMD_STRING, "PARENT-IMAGE", "store only what PARENT-IMAGE does not have, which is needed for a restore then",
	  offsetof(struct checkpoint_options, parent) },
	{ "track", 0, CMD_FLAG, NULL, "note what the program writes from now on, for an --incremental save with this image as its parent",
	  offsetof(struct checkpoint_options, track) },
	{ "no-live", 0, CMD_FLAG, NULL, "copy all memory while the program stands still",
	  offsetof(struct checkpoint_options, no_live) },
	{ "max-extra-memory", 0, CMD_SIZE, "SIZE", "memory that a save of a program that runs on may hold back (default: 256M)",
	  offsetof(struct checkpoint_options, max_extra_memory) },
	{ "compress", 0, CMD_STRING, "none|lz4|zstd[:LEVEL]", "how memory is stored (default: lz4)",
	  offsetof(struct checkpoint_options, compress) },
	{ "encrypt-key", 0, CMD_STRING, "FILE", "encrypt the image with the key in FILE (head -c 32 /dev/urandom >FILE makes one)",
	  offsetof(struct checkpoint_options, key) },
	{ NULL },
};

static const struct cmd_syntax syntax = {
	"checkpoint", "TARGET", "save TARGET, a PID with its descendants or a job's name, into one file", options, 1, 1,
};

/* "none", "lz4", "zstd", "zstd:19" */
static int take_compression(const char *word, struct cairn_checkpoint_options *checkpoint, struct fault *fault)
{
	char *end = NULL;
	checkpoint->codec = CAIRN_CODEC_LZ4;
	if (!word || !strcmp(word, "lz4"))
		return 0;
	checkpoint->codec = strcmp(word, "none") ? CAIRN_CODEC_ZSTD : CAIRN_CODEC_NONE;
	if (!strcmp(word, "none") || !strcmp(word, "zstd"))
		return 0;
	long level = strncmp(word, "zstd:", 5) ? 0 : strtol(word + 5, &end, 10);
	if (level < 1 || level > 19 || *end)
		return fault_set(fault, FAULT_USAGE, EINVAL,
				 "--compress %s: no such way; try none, lz4, zstd, or zstd:LEVEL with a level from 1 to 19", word);
	checkpoint->codec_level = (int)level;
	return 0;
}

static char *default_output(pid_t pid)
{
	struct proc_stat stat;
	if (proc_stat_read(pid, 0, &stat, NULL) < 0)
		return memory_format("%d.cairn", pid);
	for (char *c = stat.command; *c; c++)
		if (*c == '/' || (unsigned char)*c < ' ')
			*c = '_';
	return memory_format("%s%s-%d.cairn", stat.command[0] == '-' || stat.command[0] == '.' ? "_" : "", stat.command, pid);
}

/* ^Z, or a word to a terminal that stops those who write from the background, would come while the program stands still, and with it Cairn. */
static void block_stops(void)
{
	sigset_t stops;
	sigemptyset(&stops);
	sigaddset(&stops, SIGTSTP);
	sigaddset(&stops, SIGTTOU);
	sigprocmask(SIG_BLOCK, &stops, NULL);
}

int cmd_signal_fd(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int cmd_report_error(const struct cmd_common *common, enum cairn_status status, const struct cairn_error *error)
{
	struct fault_list list = { 0 };
	for (size_t i = 0; i < error->count; i++) {
		struct fault fault;
		fault_set(&fault, (enum fault_class)status, 0, "%s", error->lines[i]);
		fault_list_add(&list, &fault);
	}
	int exit_status = cmd_report_list(common, &list);
	fault_list_finish(&list);
	return exit_status;
}

static void print_result(const struct cmd_common *common, const char *path,
			 const struct cairn_checkpoint_result *result)
{
	assert(path); /* a job's init says where */
	if (common->json) {
		cmd_json(json_pack("{s:s, s:o, s:I, s:I, s:i, s:i, s:f, s:f, s:{s:I, s:I, s:I}}", "event", "checkpoint", "image", cmd_text(path),
				   "bytes", (json_int_t)result->bytes, "pages", (json_int_t)result->pages, "processes",
				   (int)result->processes, "threads", (int)result->threads, "frozen_ms",
				   (double)result->frozen_ns / 1e6, "total_ms", (double)result->total_ns / 1e6, "copied", "tracked",
				   (json_int_t)result->tracked_bytes, "forked", (json_int_t)result->forked_bytes, "frozen",
				   (json_int_t)result->frozen_bytes));
		return;
	}
	if (!common->quiet)
		fprintf(strcmp(path, "-") ? stdout : stderr,
			"%s: %" PRIu32 " processes, %" PRIu32 " threads, %.1f MiB; frozen %.1f ms of %.1f ms\n", path,
			result->processes, result->threads, (double)result->bytes / 1048576,
			(double)result->frozen_ns / 1e6, (double)result->total_ns / 1e6);
}

/* A job's init makes the image, in its own working directory: paths are whole. */
static enum cairn_status checkpoint_job(const struct target *target, const struct cairn_checkpoint_options *checkpoint,
					const char *output, char **ret_image, struct cairn_checkpoint_result *result,
					struct cairn_error *error)
{
	_free_ char *here = output && output[0] != '/' && strcmp(output, "-") ? getcwd(NULL, 0) : NULL;
	json_t *answer, *request = json_pack("{s:s, s:i, s:i, s:i, s:f, s:i, s:b, s:b, s:I, s:i, s:i, s:i}", "op", "checkpoint", "pid",
					     (int)target->pid, "after", (int)checkpoint->after, "threads", (int)checkpoint->threads,
					     "timeout", checkpoint->timeout_s, "outside", (int)checkpoint->outside, "lose_in_flight",
					     checkpoint->lose_in_flight, "no_live", checkpoint->no_live, "max_extra_memory",
					     (json_int_t)checkpoint->max_extra_memory, "codec", (int)checkpoint->codec, "codec_level",
					     checkpoint->codec_level, "tcp", (int)checkpoint->tcp);
	json_object_set_new(request, "track", json_boolean(checkpoint->track));
	json_object_set_new(request, "save_files", json_integer(checkpoint->save_files));
	_free_ char *parent = checkpoint->parent ? realpath(checkpoint->parent, NULL) : NULL;
	if (checkpoint->parent)
		json_object_set_new(request, "parent", json_string(parent ? parent : checkpoint->parent));
	json_t *devices = json_array();
	for (size_t i = 0; i < checkpoint->reopen_device_count; i++)
		json_array_append_new(devices, json_string(checkpoint->reopen_devices[i]));
	json_object_set_new(request, "reopen_devices", devices);
	if (output)
		json_object_set_new(request, "output", here ? json_sprintf("%s/%s", here, output) : json_string(output));
	struct fault fault;
	_close_ int key = checkpoint->key ? key_give(checkpoint->key) : -1;
	const struct control_fds fds = { output && !strcmp(output, "-") ? 1 : -1, key };
	int rc = checkpoint->key && key < 0 ? fault_set(&fault, FAULT_FAILED, -key, "pipe: %s", strerror(-key)) :
					      control_call(target->job, request, &fds, &answer, &fault);
	json_decref(request);
	if (rc < 0)
		answer = control_refused((enum cairn_status)fault.class, fault.text);
	enum cairn_status status = control_status(answer, error);
	const json_t *copied = json_object_get(answer, "copied");
	*result = (struct cairn_checkpoint_result){
		.bytes = (uint64_t)json_integer_value(json_object_get(answer, "bytes")),
		.pages = (uint64_t)json_integer_value(json_object_get(answer, "pages")),
		.processes = (uint32_t)json_integer_value(json_object_get(answer, "processes")),
		.threads = (uint32_t)json_integer_value(json_object_get(answer, "threads")),
		.frozen_ns = (uint64_t)(json_number_value(json_object_get(answer, "frozen_ms")) * 1e6),
		.total_ns = (uint64_t)(json_number_value(json_object_get(answer, "total_ms")) * 1e6),
		.tracked_bytes = (uint64_t)json_integer_value(json_object_get(copied, "tracked")),
		.forked_bytes = (uint64_t)json_integer_value(json_object_get(copied, "forked")),
		.frozen_bytes = (uint64_t)json_integer_value(json_object_get(copied, "frozen")),
	};
	*ret_image = memory_string(output ? output : control_text(answer, "image", ""));
	json_decref(answer);
	return status;
}

/* Where an image goes if nobody says: a job's own place, or a name made from the program's. */
static char *choose_output(const char *given, const struct target *target)
{
	if (given)
		return memory_string(given);
	if (target->job < 0)
		return default_output(target->pid);
	struct fault fault;
	json_t *answer, *request = json_pack("{s:s}", "op", "status");
	bool own = control_call(target->job, request, NULL, &answer, &fault) == 0;
	json_decref(request);
	if (!own)
		return NULL;
	char *chosen = json_object_get(answer, "image") ? NULL : memory_format("%s.cairn", control_text(answer, "name", "job"));
	json_decref(answer);
	return chosen;
}

int cmd_checkpoint(int argc, char **argv)
{
	struct checkpoint_options given = { 0 };
	struct cmd_common common;
	struct fault fault;
	struct target target;
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	if (rc > 0)
		return 0;
	if (rc == 0 && given.kill && given.stop)
		rc = fault_set(&fault, FAULT_USAGE, EINVAL, "--kill and --stop exclude each other; try one of them");
	if (rc == 0 && given.track && (given.kill || given.stop || given.no_live))
		rc = fault_set(&fault, FAULT_USAGE, EINVAL, "--track is for a live save of a program that runs on; try it without --kill, --stop and "
			       "--no-live");
	if (rc == 0 && given.tcp == CAIRN_TCP_ESTABLISHED && !given.kill && !given.stop)
		rc = fault_set(&fault, FAULT_USAGE, EINVAL, "--tcp established: a connection saved from a program that runs on is "
			       "stale at once; try it with --kill or --stop");
	struct cairn_checkpoint_options checkpoint = { .no_live = given.no_live, .track = given.track, .max_extra_memory = given.max_extra_memory };
	if (rc == 0)
		rc = take_compression(given.compress, &checkpoint, &fault);
	uint8_t *key = NULL;
	if (rc == 0 && given.key)
		rc = key_read(given.key, &key, &fault);
	if (rc == 0)
		rc = target_find(common.operands[0], &target, &fault);
	if (rc < 0) {
		key_free(key);
		return cmd_report(&common, &fault);
	}
	_free_ char *output = choose_output(given.output, &target);
	_free_ char *image = NULL;
	if (target.job < 0 && output && strcmp(output, "-"))
		cmd_bound(&common, output);
	checkpoint.output = output;
	checkpoint.parent = given.parent;
	checkpoint.key = key;
	checkpoint.after = given.kill ? CAIRN_KILL : given.stop ? CAIRN_STOP : CAIRN_RUN_ON;
	checkpoint.threads = (unsigned)given.threads;
	checkpoint.timeout_s = common.timeout_s;
	checkpoint.outside = (enum cairn_outside)given.outside;
	checkpoint.tcp = (enum cairn_tcp)given.tcp;
	checkpoint.save_files = (enum cairn_save_files)given.save_files;
	checkpoint.lose_in_flight = given.in_flight == 1;
	checkpoint.reopen_devices = (const char *const *)given.devices.at;
	checkpoint.reopen_device_count = given.devices.count;
	checkpoint.signal_fd = target.job < 0 ? cmd_signal_fd() : -1;
	if (target.job < 0)
		block_stops();
	struct cairn_checkpoint_result result;
	struct cairn_error error = { 0 };
	struct bar bar = bar_begin(&common, "checkpoint");
	checkpoint.progress = bar_show;
	checkpoint.progress_context = &bar;
	enum cairn_status status;
	if (target.job >= 0)
		status = checkpoint_job(&target, &checkpoint, output, &image, &result, &error);
	else
		status = cairn_checkpoint(target.pid, &checkpoint, &result, &error);
	bar_end(&bar);
	key_free(key);
	if (status != CAIRN_DONE)
		cmd_report_error(&common, status, &error);
	else
		print_result(&common, image ? image : output, &result);
	cairn_error_free(&error);
	target_finish(&target);
	cmd_list_finish(&given.devices);
	return (int)status;
}
