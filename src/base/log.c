/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static struct log_state {
	enum log_level highest;
	log_sink_fn sink;
	void *context;
} log_state = { .highest = LOG_WARN };

void log_to(enum log_level highest, log_sink_fn sink, void *context)
{
	log_state = (struct log_state){ highest, sink, context };
}

int log_wants(enum log_level level)
{
	return level <= log_state.highest;
}

void log_line(enum log_level level, const char *format, ...)
{
	if (!log_wants(level))
		return;
	char line[2048];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (log_state.sink)
		log_state.sink(log_state.context, level, line);
	else
		fprintf(stderr, "cairn: %s%s\n", level == LOG_WARN ? "warning: " : "", line);
}
