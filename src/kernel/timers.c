/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/timers, fs/proc/base.c show_timer:
 *
 *	ID: 0
 *	signal: 10/0000000000000000
 *	notify: signal/pid.1234
 *	ClockID: 0
 *
 * "ID" starts a timer; unknown keys of later kernels are passed over. */
#include <signal.h>
#include <string.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

static bool id_take(const char *at, struct proc_timer *timer)
{
	uint64_t id;
	if (!token_number(&at, 10, &id) || id > UINT32_MAX || !token_at_end(at))
		return false;
	timer->id = (uint32_t)id;
	return true;
}

/* The value is printed by %px: hexadecimal, without a prefix today. */
static bool signal_take(const char *at, struct proc_timer *timer)
{
	uint64_t signal;
	if (!token_number(&at, 10, &signal) || signal > UINT32_MAX || *at++ != '/')
		return false;
	timer->signal = (uint32_t)signal;
	token_word(&at, "0x");
	return token_number(&at, 16, &timer->value) && token_at_end(at);
}

static bool notify_take(const char *at, struct proc_timer *timer)
{
	uint64_t id;
	at = token_skip_blanks(at);
	if (token_word(&at, "signal/"))
		timer->notify = SIGEV_SIGNAL;
	else if (token_word(&at, "none/"))
		timer->notify = SIGEV_NONE;
	else if (token_word(&at, "thread/"))
		timer->notify = SIGEV_THREAD;
	else
		return false;
	if (token_word(&at, "tid."))
		timer->notify |= SIGEV_THREAD_ID;
	else if (!token_word(&at, "pid."))
		return false;
	if (!token_number(&at, 10, &id) || id > INT32_MAX || !token_at_end(at))
		return false;
	timer->notify_id = (pid_t)id;
	return true;
}

/* CPU clocks of processes and threads are negative. */
static bool clock_take(const char *at, struct proc_timer *timer)
{
	int64_t clock;
	if (!token_signed(&at, &clock) || clock < INT32_MIN || clock > INT32_MAX || !token_at_end(at))
		return false;
	timer->clock = (int)clock;
	return true;
}

static bool line_take(const char *line, struct proc_timer *timer)
{
	static const struct {
		const char *key;
		bool (*take)(const char *at, struct proc_timer *timer);
	} keys[] = { { "signal:", signal_take }, { "notify:", notify_take }, { "ClockID:", clock_take } };
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		const char *at = line;
		if (token_word(&at, keys[i].key))
			return keys[i].take(at, timer);
	}
	return true;
}

int proc_timers_parse(const char *text, struct proc_timers *ret_timers, struct fault *fault)
{
	struct proc_timers timers = { 0 };
	for (const char *line = text; *line; line = token_next_line(line)) {
		const char *at = line;
		bool good;
		if (token_word(&at, "ID:"))
			good = id_take(at, vec_add(&timers.timers));
		else
			good = !timers.timers.count || line_take(line, &timers.timers.at[timers.timers.count - 1]);
		if (!good) {
			vec_finish(&timers.timers);
			return token_malformed(fault, "timers", "a line", line);
		}
	}
	*ret_timers = timers;
	return 0;
}
