/* SPDX-License-Identifier: Apache-2.0 */
/* What the user gets to see: faults as lines and exit statuses, results as JSON lines. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "cmd/cmd.h"

static const char *class_name(enum fault_class class)
{
	switch (class) {
	case FAULT_FAILED:
		return "failed";
	case FAULT_USAGE:
		return "usage";
	case FAULT_UNSUPPORTED:
		return "unsupported";
	case FAULT_PERMISSION:
		return "permission";
	case FAULT_VANISHED:
		return "vanished";
	case FAULT_IMAGE:
		return "image";
	case FAULT_TIMEOUT:
		return "timeout";
	}
	return "failed";
}

int cmd_report(const struct cmd_common *common, const struct fault *fault)
{
	int status = fault->class >= FAULT_FAILED && fault->class <= FAULT_TIMEOUT ? (int)fault->class : 1;
	fflush(stdout);
	fprintf(stderr, "cairn: %s\n", fault->text);
	if (common && common->json)
		cmd_json(json_pack("{s:s, s:s, s:o, s:i, s:i}", "event", "fault", "class",
				   class_name(fault->class), "message", cmd_text(fault->text), "errno",
				   fault->error, "status", status));
	return status;
}

int cmd_report_list(const struct cmd_common *common, const struct fault_list *list)
{
	int status = FAULT_FAILED;
	for (size_t i = 0; i < list->count; i++) {
		int one = cmd_report(common, &list->at[i]);
		if (!i)
			status = one;
	}
	return status;
}

json_t *cmd_text(const char *text)
{
	json_t *string = json_string(text);
	if (string)
		return string;
	_free_ char *plain = memory_string(text);
	for (char *c = plain; *c; c++)
		if (*c & 0x80)
			*c = '?';
	return json_string(plain);
}

void cmd_json(json_t *object)
{
	if (!object)
		return;
	json_dumpf(object, stdout, JSON_COMPACT);
	json_decref(object);
	putchar('\n');
	fflush(stdout);
}

bool cmd_wants_progress(const struct cmd_common *common)
{
	if (common->progress != CMD_PROGRESS_AUTO)
		return common->progress == CMD_PROGRESS_ALWAYS;
	return !common->quiet && isatty(STDERR_FILENO);
}

struct deadline cmd_deadline(const struct cmd_common *common)
{
	struct deadline deadline = { .signal_fd = -1 };
	enum { LONGEST_S = 1000000000 }; /* 30 years: keeps the product below in range */
	double seconds = common->timeout_s < LONGEST_S ? common->timeout_s : LONGEST_S;
	if (seconds > 0)
		deadline.at_ns = clock_now_ns() + (uint64_t)(seconds * 1e9);
	return deadline;
}

int cmd_flush(struct fault *fault)
{
	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	int error = errno ? errno : EIO;
	return fault_set(fault, FAULT_FAILED, error, "writing to stdout: %s; try another place for the output",
			 strerror(error));
}
