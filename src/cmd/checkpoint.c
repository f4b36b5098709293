/* SPDX-License-Identifier: Apache-2.0 */
/* cairn checkpoint */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>

#include "base/memory.h"
#include "cairn.h"
#include "cmd/cmd.h"
#include "cmd/target.h"
#include "kernel/procfs.h"

struct checkpoint_options {
	const char *output;
	bool kill, stop;
	uint64_t threads;
	int outside;
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
	{ "outside", 0, CMD_CHOICE, "refuse|close", "what to do about pipes whose other end is held outside the tree",
	  offsetof(struct checkpoint_options, outside) },
	{ NULL },
};

static const struct cmd_syntax syntax = {
	"checkpoint", "TARGET", "save the process TARGET (a PID) and its descendants into one file", options, 1, 1,
};

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
	if (common->json) {
		cmd_json(json_pack("{s:s, s:o, s:I, s:I, s:i, s:i, s:f, s:f}", "event", "checkpoint", "image", cmd_text(path),
				   "bytes", (json_int_t)result->bytes, "pages", (json_int_t)result->pages, "processes",
				   (int)result->processes, "threads", (int)result->threads, "frozen_ms",
				   (double)result->frozen_ns / 1e6, "total_ms", (double)result->total_ns / 1e6));
		return;
	}
	if (!common->quiet)
		fprintf(strcmp(path, "-") ? stdout : stderr,
			"%s: %" PRIu32 " processes, %" PRIu32 " threads, %.1f MiB; frozen %.1f ms of %.1f ms\n", path,
			result->processes, result->threads, (double)result->bytes / 1048576,
			(double)result->frozen_ns / 1e6, (double)result->total_ns / 1e6);
}

int cmd_checkpoint(int argc, char **argv)
{
	struct checkpoint_options given = { 0 };
	struct cmd_common common;
	struct fault fault;
	pid_t pid;
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	if (rc > 0)
		return 0;
	if (rc == 0 && given.kill && given.stop)
		rc = fault_set(&fault, FAULT_USAGE, EINVAL, "--kill and --stop exclude each other; try one of them");
	if (rc == 0)
		rc = target_pid(common.operands[0], &pid, &fault);
	if (rc < 0)
		return cmd_report(&common, &fault);
	_free_ char *named = given.output ? NULL : default_output(pid);
	const struct cairn_checkpoint_options checkpoint = {
		.output = given.output ? given.output : named,
		.after = given.kill ? CAIRN_KILL : given.stop ? CAIRN_STOP : CAIRN_RUN_ON,
		.threads = (unsigned)given.threads,
		.timeout_s = common.timeout_s,
		.close_outside = given.outside == 1,
		.signal_fd = cmd_signal_fd(),
	};
	struct cairn_checkpoint_result result;
	struct cairn_error error = { 0 };
	enum cairn_status status = cairn_checkpoint(pid, &checkpoint, &result, &error);
	if (status != CAIRN_DONE)
		cmd_report_error(&common, status, &error);
	else
		print_result(&common, checkpoint.output, &result);
	cairn_error_free(&error);
	return (int)status;
}
