/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/stat (proc(5), fs/proc/array.c do_task_stat), the two numbers of /proc/PID/sched that are needed, and /proc/PID/syscall. */
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

/* Numbers of the fields as proc(5) counts them. */
enum {
	FIELD_PARENT = 4, FIELD_GROUP = 5, FIELD_SESSION = 6, FIELD_TERMINAL = 7, FIELD_FOREGROUND = 8,
	FIELD_FLAGS = 9, FIELD_NICE = 19, FIELD_THREADS = 20, FIELD_START_TIME = 22, FIELD_START_CODE = 26,
	FIELD_END_CODE = 27, FIELD_START_STACK = 28, FIELD_EXIT_SIGNAL = 38, FIELD_PROCESSOR = 39, FIELD_RT_PRIORITY = 40,
	FIELD_POLICY = 41, FIELD_START_DATA = 45, FIELD_END_DATA = 46, FIELD_START_BRK = 47, FIELD_ARG_START = 48,
	FIELD_ARG_END = 49, FIELD_ENV_START = 50, FIELD_ENV_END = 51, FIELD_EXIT_CODE = 52, FIELDS = 53,
};

/* new_encode_dev() of include/linux/kdev_t.h undone. */
static uint64_t device_of(uint32_t encoded)
{
	uint32_t major = (encoded & 0xfff00) >> 8, minor = (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
	return encoded ? makedev(major, minor) : 0;
}

static void stat_assign(const int64_t *field, struct proc_stat *stat)
{
	stat->parent = (pid_t)field[FIELD_PARENT];
	stat->group = (pid_t)field[FIELD_GROUP];
	stat->session = (pid_t)field[FIELD_SESSION];
	stat->terminal = device_of((uint32_t)field[FIELD_TERMINAL]);
	stat->foreground = (pid_t)field[FIELD_FOREGROUND];
	stat->flags = (uint32_t)field[FIELD_FLAGS];
	stat->nice = (int)field[FIELD_NICE];
	stat->threads = (uint32_t)field[FIELD_THREADS];
	stat->start_time = (uint64_t)field[FIELD_START_TIME];
	stat->start_code = (uint64_t)field[FIELD_START_CODE];
	stat->end_code = (uint64_t)field[FIELD_END_CODE];
	stat->start_stack = (uint64_t)field[FIELD_START_STACK];
	stat->exit_signal = (uint32_t)field[FIELD_EXIT_SIGNAL];
	stat->processor = (uint32_t)field[FIELD_PROCESSOR];
	stat->rt_priority = (uint32_t)field[FIELD_RT_PRIORITY];
	stat->policy = (uint32_t)field[FIELD_POLICY];
	stat->start_data = (uint64_t)field[FIELD_START_DATA];
	stat->end_data = (uint64_t)field[FIELD_END_DATA];
	stat->start_brk = (uint64_t)field[FIELD_START_BRK];
	stat->arg_start = (uint64_t)field[FIELD_ARG_START];
	stat->arg_end = (uint64_t)field[FIELD_ARG_END];
	stat->env_start = (uint64_t)field[FIELD_ENV_START];
	stat->env_end = (uint64_t)field[FIELD_ENV_END];
	stat->exit_code = (int32_t)field[FIELD_EXIT_CODE];
}

/* Some fields are printed signed, some use all 64 bits (rsslim); both go into one bit pattern. */
static bool field_read(const char **at, int64_t *ret_value)
{
	uint64_t value;
	if (token_signed(at, ret_value))
		return true;
	if (!token_number(at, 10, &value))
		return false;
	*ret_value = (int64_t)value;
	return true;
}

/* The command may hold anything, ") " and newlines among it (it is not escaped here, unlike in status), so its
 * end is the last parenthesis: no later field has one. */
int proc_stat_parse(const char *text, struct proc_stat *ret_stat, struct fault *fault)
{
	struct proc_stat stat = { 0 };
	int64_t field[FIELDS] = { 0 };
	const char *at = text, *open = strchr(text, '('), *close = strrchr(text, ')');
	uint64_t pid;
	if (!token_number(&at, 10, &pid) || !open || !close || close < open || close[1] != ' ' || !close[2])
		return token_malformed(fault, "stat", "the start", text);
	stat.pid = (pid_t)pid;
	size_t length = (size_t)(close - open - 1);
	if (length >= sizeof stat.command)
		length = sizeof stat.command - 1;
	memcpy(stat.command, open + 1, length);
	stat.state = close[2];
	at = close + 3;
	for (int i = FIELD_PARENT; i < FIELDS; i++)
		if (!field_read(&at, &field[i]))
			return token_malformed(fault, "stat", "a number", *at ? at : close);
	stat_assign(field, &stat);
	*ret_stat = stat;
	return 0;
}

int proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *ret_stat, struct fault *fault)
{
	struct text text = { 0 };
	int rc = proc_read_record(pid, tid, "stat", &text, fault);
	if (rc == 0)
		rc = proc_stat_parse(text.at, ret_stat, fault);
	text_finish(&text);
	return rc;
}

/* "se.exec_start   :   3221674.143483": milliseconds with six digits of nanoseconds; "nr_voluntary_switches   :   12" (kernel/sched/debug.c
 * proc_sched_show_task, PN and __P). */
static int sched_parse(const char *text, struct proc_sched *ret_sched, struct fault *fault)
{
	/* The first line has the command, unescaped, and 15 bytes are enough to look like a line that is wanted; the
	 * rule under it has more dashes than that. */
	const char *rule = strstr(text, "\n-----------------");
	const char *ran = rule ? strstr(rule, "\nse.exec_start") : NULL, *switches = rule ? strstr(rule, "\nnr_voluntary_switches") : NULL;
	struct proc_sched sched = { 0 };
	*ret_sched = sched;
	if (!ran || !switches)
		return 0;
	const char *at = strchrnul(++ran, ':');
	uint64_t ms, ns;
	at += *at == ':';
	if (!token_number(&at, 10, &ms) || *at != '.' || ms > UINT64_MAX / 1000000 - 1)
		return token_malformed(fault, "sched", "se.exec_start", ran);
	const char *fraction = ++at;
	if (!token_number(&at, 10, &ns) || at - fraction != 6)
		return token_malformed(fault, "sched", "se.exec_start", ran);
	at = strchrnul(++switches, ':');
	at += *at == ':';
	if (!token_number(&at, 10, &sched.switches))
		return token_malformed(fault, "sched", "nr_voluntary_switches", switches);
	sched.ran_ns = ms * 1000000 + ns;
	*ret_sched = sched;
	return 0;
}

int proc_sched_read(pid_t pid, pid_t tid, struct proc_sched *ret_sched, struct fault *fault)
{
	struct text text = { 0 };
	int rc = proc_read_record(pid, tid, "sched", &text, fault);
	if (rc == -ENOENT) { /* CONFIG_SCHED_DEBUG is not set */
		*ret_sched = (struct proc_sched){ 0 };
		rc = 0;
	} else if (rc == 0) {
		rc = sched_parse(text.at, ret_sched, fault);
	}
	text_finish(&text);
	return rc;
}

/* "202 0x7f0c 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd 0x7f0c": call, arguments, stack and instruction pointers; "-1 0x7ffd 0x7f0c"; "running" (fs/proc/base.c
 * proc_pid_syscall). */
int proc_call_parse(const char *text, struct proc_call *ret_call, struct fault *fault)
{
	struct proc_call call = { .number = -1 };
	const char *at = text;
	int64_t number = -1;
	if (!token_word(&at, "running") && !token_signed(&at, &number))
		return token_malformed(fault, "syscall", "the number", text);
	for (int i = 0; number >= 0 && i < 6; i++) {
		at = token_skip_blanks(at);
		if (!token_word(&at, "0x") || !token_number(&at, 16, &call.args[i]))
			return token_malformed(fault, "syscall", "an argument", at);
	}
	at = token_skip_blanks(at);
	if (token_word(&at, "0x") && !token_number(&at, 16, &call.stack))
		return token_malformed(fault, "syscall", "the stack", at);
	call.number = (long)number;
	*ret_call = call;
	return 0;
}

int proc_call_read(pid_t pid, pid_t tid, struct proc_call *ret_call, struct fault *fault)
{
	struct text text = { 0 };
	int rc = proc_read_record(pid, tid, "syscall", &text, fault);
	if (rc == 0)
		rc = proc_call_parse(text.at, ret_call, fault);
	text_finish(&text);
	return rc;
}
