/* SPDX-License-Identifier: Apache-2.0 */
/* cairn restore */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/key.h"
#include "base/fd.h"
#include "base/memory.h"
#include "cairn.h"
#include "cmd/check.h"
#include "cmd/bar.h"
#include "cmd/clones.h"
#include "cmd/cmd.h"
#include "cmd/foreground.h"
#include "cmd/target.h"
#include "job/restore.h"

#define NO_CLONES UINT64_MAX

struct restore_options {
	bool detach, leave_stopped, force_cpu, trust_image, once, eager;
	int lazy; /* -1: not given */
	const char *pidfile, *key;
	struct cmd_list maps, fds, addresses;
	int pids, file_changed, clock, tcp;
	uint64_t threads, status_fd, clones;
};

static const struct cmd_option options[] = {
	{ "detach", 'd', CMD_FLAG, NULL, "return once it runs, and print the root's PID",
	  offsetof(struct restore_options, detach) },
	{ "pidfile", 0, CMD_STRING, "FILE", "write the root's PID, as seen from here, to FILE",
	  offsetof(struct restore_options, pidfile) },
	{ "pids", 0, CMD_CHOICE, "auto|same|private|any",
	  "same: the old PIDs here; private: in a PID namespace of their own; auto: same if they are free; any: whatever comes",
	  offsetof(struct restore_options, pids) },
	{ "file-changed", 0, CMD_CHOICE, "refuse|ignore|rollback", FILE_CHANGED_HELP,
	  offsetof(struct restore_options, file_changed) },
	{ "clock", 0, CMD_CHOICE, "auto|continue|advance",
	  "its monotonic clock goes on where it stood, or is the host's; auto: continue after another boot", offsetof(struct restore_options, clock) },
	{ "tcp", 0, CMD_CHOICE, "established|close", "TCP connections to the outside: go on, or come back as reset by the peer",
	  offsetof(struct restore_options, tcp) },
	{ "decrypt-key", 0, CMD_STRING, "FILE", DECRYPT_KEY_HELP, offsetof(struct restore_options, key) },
	{ "map-path", 0, CMD_LIST, "OLD=NEW", MAP_PATH_HELP, offsetof(struct restore_options, maps) },
	{ "map-address", 0, CMD_LIST, "OLD=NEW", MAP_ADDRESS_HELP,
	  offsetof(struct restore_options, addresses) },
	{ "fd", 0, CMD_LIST, "N=FILE", "another file for descriptor N, say the new job's log", offsetof(struct restore_options, fds) },
	{ "once", 0, CMD_FLAG, NULL, "an image that was restored once with this option is not restored again", offsetof(struct restore_options, once) },
	{ "clones", 0, CMD_NUMBER, "N", "N of it, each in a PID namespace of its own, which share its memory copy-on-write",
	  offsetof(struct restore_options, clones) },
	{ "leave-stopped", 0, CMD_FLAG, NULL, "restore it stopped (SIGCONT lets it go on)",
	  offsetof(struct restore_options, leave_stopped) },
	{ "lazy", 0, CMD_CHOICE, "anonymous|mapped", "let it run at once and load memory behind it; mapped: map it from the image",
	  offsetof(struct restore_options, lazy), true },
	{ "eager", 0, CMD_FLAG, NULL, "load all memory first (the default)", offsetof(struct restore_options, eager) },
	{ "force-cpu", 0, CMD_FLAG, NULL, FORCE_CPU_HELP, offsetof(struct restore_options, force_cpu) },
	{ "trust-image", 0, CMD_FLAG, NULL, "as root: restore an image that others could have written",
	  offsetof(struct restore_options, trust_image) },
	{ "threads", 0, CMD_NUMBER, "N", "write memory with N threads (default: one per processor)",
	  offsetof(struct restore_options, threads) },
	{ "status-fd", 0, CMD_NUMBER, "N", "write the outcome as one JSON line to descriptor N",
	  offsetof(struct restore_options, status_fd) },
	{ NULL },
};

static const struct cmd_syntax syntax = {
	"restore", "IMAGE", "bring the program in IMAGE (\"-\": standard input) back", options, 1, 1,
};

/* ---- the terminal of a job in the foreground ---- */

struct ready {
	struct terminal *terminal;
	bool foreground;
	struct bar *bar;
};

/* Everything is made and nothing runs: the job's group comes to the foreground. */
static int on_ready(void *context, pid_t root, pid_t foreground_group)
{
	struct ready *ready = context;
	(void)root;
	bar_end(ready->bar); /* from here on the terminal is the program's */
	if (ready->foreground && foreground_group && getpgid(root) != getpgrp()) {
		ready->terminal->group = foreground_group;
		terminal_give(ready->terminal, foreground_group);
	}
	return 0;
}

/* ---- after it runs ---- */

static int write_pidfile(const char *path, pid_t pid, struct fault *fault)
{
	_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || dprintf(fd, "%d\n", pid) < 0)
		return fault_set(fault, fault_class_of(errno), errno,
				 "%s: %s; the program runs as process %d; try another --pidfile", path, strerror(errno), pid);
	return 0;
}

static void print_result(const struct cmd_common *common, const struct restore_options *given, const char *image,
			 const struct cairn_restore_result *result)
{
	json_t *object = json_pack("{s:s, s:o, s:i, s:b, s:i, s:i, s:I, s:f}", "event", "restore", "image", cmd_text(image),
				   "pid", (int)result->root, "private", result->init != 0, "processes",
				   (int)result->processes, "threads", (int)result->threads, "pages",
				   (json_int_t)result->pages, "total_ms", (double)result->total_ns / 1e6);
	if (given->status_fd) {
		char *line = json_dumps(object, JSON_COMPACT);
		dprintf((int)given->status_fd, "%s\n", line);
		free(line);
	}
	if (common->json)
		cmd_json(json_incref(object));
	else if (given->detach)
		printf("%d\n", result->root);
	json_decref(object);
	if (common->verbosity && !common->json)
		fprintf(stderr, "cairn: %s: process %d%s, %" PRIu32 " processes, %" PRIu32 " threads, %.1f MiB, %.1f ms\n", image,
			result->root, result->init ? " in a private PID namespace" : "", result->processes, result->threads,
			(double)result->pages * 4096 / 1048576, (double)result->total_ns / 1e6);
	fflush(stdout);
}

static void report_status(const struct restore_options *given, enum cairn_status status,
			  const struct cairn_error *error)
{
	if (!given->status_fd)
		return;
	json_t *object = json_pack("{s:s, s:i, s:o}", "event", "fault", "status", (int)status, "message",
				   cmd_text(error->count ? error->lines[0] : ""));
	char *line = json_dumps(object, JSON_COMPACT);
	dprintf((int)given->status_fd, "%s\n", line);
	free(line);
	json_decref(object);
}

/* N=FILE. The result is heap; its paths are argv's. */
static int redirects_of(const struct cmd_list *words, struct cairn_redirect **ret_list, struct fault *fault)
{
	struct cairn_redirect *list = memory_new(words->count * sizeof *list);
	for (size_t i = 0; i < words->count; i++) {
		char *rest;
		unsigned long fd = strtoul(words->at[i], &rest, 10);
		if (rest == words->at[i] || *rest != '=' || !rest[1] || fd > 1 << 20) {
			free(list);
			return fault_set(fault, FAULT_USAGE, 0, "--fd: '%s' is not understood; try N=FILE", words->at[i]);
		}
		list[i] = (struct cairn_redirect){ (int)fd, rest + 1 };
	}
	*ret_list = list;
	return 0;
}

/* Frees @key. */
static int restore_as_told(const struct restore_options *given, uint8_t *key, const struct path_words *maps,
			   const struct cairn_redirect *redirects, const struct cmd_common *common)
{
	struct terminal terminal;
	struct fault fault;
	terminal_open(&terminal);
	struct bar bar = bar_begin(common, "restore");
	struct ready ready = { &terminal, !given->detach, &bar };
	const struct cairn_restore_options restore = {
		.image = common->operands[0],
		.key = key,
		.pids = (enum cairn_pids)given->pids,
		.clock = (enum cairn_clock)given->clock,
		.threads = (unsigned)given->threads,
		.timeout_s = common->timeout_s,
		.leave_stopped = given->leave_stopped,
		.ignore_changed_files = given->file_changed == 1,
		.roll_back_files = given->file_changed == 2,
		.lazy = given->lazy == 0,
		.mapped = given->lazy == 1,
		.force_cpu = given->force_cpu,
		.close_tcp = given->tcp == 1,
		.trust_image = given->trust_image,
		.redirects = redirects,
		.redirect_count = given->fds.count,
		.once = given->once,
		.path_maps = maps->maps,
		.path_map_count = maps->count,
		.address_maps = (const char *const *)given->addresses.at,
		.address_map_count = given->addresses.count,
		.terminal = terminal.path[0] ? terminal.path : NULL,
		.signal_fd = cmd_signal_fd(),
		.ready = on_ready,
		.context = &ready,
		.progress = bar_show,
		.progress_context = &bar,
	};
	if (given->clones != NO_CLONES) {
		bar_end(&bar);
		const struct clones_wish wish = { given->clones > UINT16_MAX ? UINT16_MAX : (unsigned)given->clones, given->detach, given->pidfile,
						  (int)given->status_fd, key };
		return clones_run(&restore, &wish, common);
	}
	const struct restore_way way = {
		.program = "/proc/self/exe", .detached = given->detach, .terminal_ours = terminal.ours && !given->detach,
	};
	struct cairn_restore_result result;
	struct cairn_error error = { 0 };
	struct job job;
	enum cairn_status status = restore_image(&restore, &way, &result, &job, &error);
	bar_end(&bar);
	key_free(key); /* it may be a long time until the program ends */
	if (status != CAIRN_DONE) {
		terminal_give(&terminal, getpgrp());
		cmd_report_error(common, status, &error);
		report_status(given, status, &error);
		cairn_error_free(&error);
		/* A wrong command line is one wherever it is found out. */
		return given->detach || status == CAIRN_USAGE ? (int)status : OWN_FAILURE;
	}
	print_result(common, given, restore.image, &result);
	if (given->pidfile && write_pidfile(given->pidfile, result.root, &fault) < 0)
		cmd_report(common, &fault);
	if (given->detach)
		return 0;
	struct foreground foreground = { .terminal = &terminal, .job = job, .common = common };
	if (!job.init)
		foreground.job = (struct job){ .root = result.root, .channel = -1 };
	return foreground_wait(&foreground);
}

int cmd_restore(int argc, char **argv)
{
	struct restore_options given = { .lazy = -1, .clones = NO_CLONES };
	struct path_words maps = { 0 };
	struct cmd_common common;
	struct fault fault;
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	if (rc == 0 && given.lazy >= 0 && given.eager)
		rc = fault_set(&fault, FAULT_USAGE, EINVAL, "--lazy and --eager exclude each other; try one of them");
	if (rc == 0)
		rc = path_words_of(&given.maps, &maps, &fault);
	_free_ struct cairn_redirect *redirects = NULL;
	if (rc == 0)
		rc = redirects_of(&given.fds, &redirects, &fault);
	uint8_t *key = NULL;
	if (rc == 0 && given.key)
		rc = key_read(given.key, &key, &fault);
	int status = rc < 0 ? cmd_report(&common, &fault) : rc > 0 ? 0 : restore_as_told(&given, key, &maps, redirects, &common);
	cmd_list_finish(&given.fds);
	cmd_list_finish(&given.addresses);
	path_words_finish(&maps);
	cmd_list_finish(&given.maps);
	return status;
}
