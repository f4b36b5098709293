/* SPDX-License-Identifier: Apache-2.0 */
/* cairn ps and cairn kill: the user's jobs, each asked at its control socket. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "cmd/target.h"
#include "job/control.h"
#include "job/job.h"
#include "job/registry.h"

static const struct cmd_syntax ps_syntax = { "ps", "", "list the jobs of this user and their checkpoints", NULL, 0, 0 };
static const struct cmd_syntax kill_syntax = { "kill", "NAME", "end the job NAME, all its processes", NULL, 1, 1 };

static json_t *ask_status(const char *name)
{
	_close_ int socket = -1;
	pid_t init;
	struct fault fault;
	json_t *answer = NULL, *request = json_pack("{s:s}", "op", "status");
	if (registry_connect(getuid(), name, &socket, &init, &fault) == 0 &&
	    control_call(socket, request, NULL, &answer, &fault) == 0) {
		/* Who only keeps write tracking lives where the process does. */
		pid_t root = (pid_t)json_integer_value(json_object_get(answer, "root"));
		root = json_is_true(json_object_get(answer, "tracking")) ? root : job_outer_pid(init, root);
		json_object_set_new(answer, "pid", json_integer(root));
		json_object_set_new(answer, "init", json_integer(init));
	}
	json_decref(request);
	return answer;
}

static void print_time(char *text, size_t size, double when)
{
	time_t seconds = (time_t)when;
	struct tm local;
	if (when <= 0 || !localtime_r(&seconds, &local) || !strftime(text, size, "%Y-%m-%d %H:%M:%S", &local))
		snprintf(text, size, "-");
}

static void print_job(const json_t *job)
{
	char saved[32];
	print_time(saved, sizeof saved, json_number_value(json_object_get(job, "saved_at")));
	printf("%-20s %8lld %5lld %8.0f %5lld  %-19s  %s\n", control_text(job, "name", "?"),
	       (long long)json_integer_value(json_object_get(job, "pid")),
	       (long long)json_integer_value(json_object_get(job, "processes")),
	       json_number_value(json_object_get(job, "running_s")), (long long)json_integer_value(json_object_get(job, "saves")), saved,
	       control_text(job, "image", "-"));
}

int cmd_ps(int argc, char **argv)
{
	struct cmd_common common;
	struct fault fault;
	struct registry_names list;
	int rc = cmd_parse(&ps_syntax, argc, argv, NULL, &common, &fault);
	if (rc != 0)
		return rc > 0 ? 0 : cmd_report(&common, &fault);
	registry_list(getuid(), &list);
	if (!common.json && !common.quiet)
		printf("%-20s %8s %5s %8s %5s  %-19s  %s\n", "NAME", "PID", "PROCS", "SECONDS", "SAVES", "SAVED", "IMAGE");
	for (size_t i = 0; i < list.names.count; i++) {
		json_t *job = ask_status(list.names.at[i]);
		if (!job)
			continue; /* ended meanwhile, or its socket was left by a killed one */
		if (common.json) {
			json_object_set_new(job, "event", json_string("job"));
			cmd_json(json_incref(job));
		} else {
			print_job(job);
		}
		json_decref(job);
	}
	registry_names_finish(&list);
	return cmd_flush(&fault) ? cmd_report(&common, &fault) : 0;
}

int cmd_kill(int argc, char **argv)
{
	struct cmd_common common;
	struct fault fault;
	_close_ int socket = -1;
	pid_t init;
	int rc = cmd_parse(&kill_syntax, argc, argv, NULL, &common, &fault);
	if (rc > 0)
		return 0;
	if (rc == 0)
		rc = registry_connect(getuid(), common.operands[0], &socket, &init, &fault);
	if (rc < 0)
		return cmd_report(&common, &fault);
	json_t *answer = NULL, *request = json_pack("{s:s, s:i}", "op", "kill", "signal", SIGKILL);
	rc = control_call(socket, request, NULL, &answer, &fault);
	json_decref(request);
	json_decref(answer);
	return rc < 0 ? cmd_report(&common, &fault) : 0;
}
