/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Messages to the person who runs Cairn. error: the operation fails (cmd prints it once, from the fault);
 * warn: the result differs from what was asked; info: a line per phase with count and time; debug:
 * decisions with the values that decided. The sink is the one writable global of the program. */
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

typedef void (*log_sink_fn)(void *context, enum log_level level, const char *line);

/* Level and sink for the whole process; a NULL sink is stderr, a line each with "cairn: " in front. */
void log_to(enum log_level highest, log_sink_fn sink, void *context);
int log_wants(enum log_level level);
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *format, ...);

#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                    \
	do {                                              \
		if (log_wants(LOG_DEBUG))                 \
			log_line(LOG_DEBUG, __VA_ARGS__); \
	} while (0)
