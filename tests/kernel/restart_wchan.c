/* SPDX-License-Identifier: Apache-2.0 */
/* After ^Z and fg a thread waits in restart_syscall(2), which hides what it went on with. /proc/PID/wchan tells: a function with poll or futex in its name; for
 * nanosleep and clock_nanosleep, whose restart counts as part of the scheduler and is left out, the one that makes all system calls. */
#include "fact.h"

#include <linux/futex.h>
#include <poll.h>

static const struct timespec long_time = { 1000, 0 };

static void do_nanosleep(void)
{
	nanosleep(&long_time, NULL);
}

static void do_clock_nanosleep(void)
{
	clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, NULL);
}

static void do_poll(void)
{
	struct pollfd none = { .fd = -1 };
	syscall(SYS_poll, &none, 1, 1000000);
}

static void do_futex(void)
{
	int word = 0;
	syscall(SYS_futex, &word, FUTEX_WAIT, 0, &long_time, NULL, 0);
}

static const struct {
	void (*call)(void);
	long number;
	const char *name, *word; /* NULL: of a sleep */
} trials[] = {
	{ do_nanosleep, SYS_clock_nanosleep, "nanosleep", NULL },
	{ do_clock_nanosleep, SYS_clock_nanosleep, "clock_nanosleep", NULL },
	{ do_poll, SYS_poll, "poll", "poll" },
	{ do_futex, SYS_futex, "futex", "futex" },
};

static bool is_of_sleep(const char *where)
{
	return strstr(where, "nanosleep") || strstr(where, "restart_syscall") || !strcmp(where, "do_syscall_64") || !strcmp(where, "invoke_syscall");
}

int main(void)
{
	bool all = true;
	fact_start();
	for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
		char where[128];
		int status;
		pid_t child = fact_fork();
		if (child == 0) {
			trials[i].call();
			_exit(1);
		}
		fact_await_call(child, trials[i].number);
		fact_need(kill(child, SIGSTOP), "SIGSTOP");
		fact_need(waitpid(child, &status, WUNTRACED), "waitpid");
		fact_need(kill(child, SIGCONT), "SIGCONT");
		fact_await_call(child, SYS_restart_syscall);
		fact_file(where, sizeof where, "/proc/%d/wchan", child);
		if (!strcmp(where, "0"))
			fact_skip("/proc/PID/wchan");
		bool good = trials[i].word ? strstr(where, trials[i].word) != NULL : is_of_sleep(where);
		all &= fact(good, "%s goes on in %s", trials[i].name, where);
		fact_end(child);
	}
	return all ? FACT_HOLDS : FACT_FAILS;
}
