/* SPDX-License-Identifier: Apache-2.0 */
/* variant clocks: POSIX timers of the clocks of processor time, atomic time and another thread go on with what was left */
/* variant fire: a timer of processor time fires when that time is used, after the restore */
/* variant itimers: ITIMER_VIRTUAL and ITIMER_PROF go on with what was left */
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

static timer_t create(clockid_t clock, int signal_)
{
	timer_t timer;
	struct sigevent event = { .sigev_notify = signal_ ? SIGEV_SIGNAL : SIGEV_NONE, .sigev_signo = signal_ };
	PROBE(timer_create(clock, &event, &timer));
	return timer;
}

static void arm(timer_t timer, time_t seconds, time_t interval)
{
	PROBE(timer_settime(timer, 0, &(struct itimerspec){ .it_value = { seconds, 5 }, .it_interval = { interval, 7 } }, NULL));
}

static volatile int over;

static void *other(void *argument)
{
	probe_wait();
	while (!over)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return argument;
}

static void clocks(void)
{
	pthread_t id;
	clockid_t of_thread;
	pthread_create(&id, NULL, other, NULL);
	PROBE_SAME(pthread_getcpuclockid(id, &of_thread), 0, "pthread_getcpuclockid");
	const struct { clockid_t clock; const char *name; } all[] = {
		{ CLOCK_PROCESS_CPUTIME_ID, "time of the process" }, { CLOCK_THREAD_CPUTIME_ID, "time of the thread" },
		{ of_thread, "time of another thread" }, { CLOCK_TAI, "atomic time" },
	};
	enum { COUNT = sizeof all / sizeof *all };
	timer_t timers[COUNT];
	for (int i = 0; i < COUNT; i++) {
		timers[i] = create(all[i].clock, SIGRTMIN + i);
		arm(timers[i], 1000 + i, 50 + i);
	}
	timer_t idle = create(CLOCK_PROCESS_CPUTIME_ID, 0);

	probe_save();

	for (int i = 0; i < COUNT; i++) {
		struct itimerspec now;
		PROBE_SAME(timer_gettime(timers[i], &now), 0, all[i].name);
		if (now.it_value.tv_sec < 1000 + i - 120 || now.it_value.tv_sec > 1000 + i)
			probe_differs("%s: %ld s left", all[i].name, (long)now.it_value.tv_sec);
		PROBE_SAME(now.it_interval.tv_sec, 50 + i, all[i].name);
		PROBE_SAME(now.it_interval.tv_nsec, 7, all[i].name);
	}
	struct itimerspec none;
	PROBE(timer_gettime(idle, &none));
	PROBE_SAME(none.it_value.tv_sec + none.it_value.tv_nsec, 0, "a timer that is not armed");
	over = 1;
	pthread_join(id, NULL);
}

static volatile sig_atomic_t fired;

static void count(int signal_)
{
	(void)signal_;
	fired++;
}

static void fire(void)
{
	signal(SIGRTMIN + 1, count);
	timer_t timer = create(CLOCK_PROCESS_CPUTIME_ID, SIGRTMIN + 1);
	PROBE(timer_settime(timer, 0, &(struct itimerspec){ .it_value = { 0, 400000000 } }, NULL));

	probe_save();

	uint64_t begin = probe_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	PROBE_SAME(fired, 0, "fired before its time");
	while (!fired && probe_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin < 5000000000u)
		;
	PROBE_SAME(fired, 1, "times fired");
}

static void itimers(void)
{
	signal(SIGVTALRM, SIG_IGN);
	signal(SIGPROF, SIG_IGN);
	PROBE(setitimer(ITIMER_VIRTUAL, &(struct itimerval){ { 3, 30000 }, { 500, 0 } }, NULL));
	PROBE(setitimer(ITIMER_PROF, &(struct itimerval){ { 4, 40000 }, { 600, 0 } }, NULL));

	probe_save();

	struct itimerval now;
	PROBE(getitimer(ITIMER_VIRTUAL, &now));
	PROBE_TRUE(now.it_value.tv_sec > 400 && now.it_value.tv_sec <= 500, "ITIMER_VIRTUAL");
	PROBE_SAME(now.it_interval.tv_sec, 3, "interval of ITIMER_VIRTUAL");
	PROBE(getitimer(ITIMER_PROF, &now));
	PROBE_TRUE(now.it_value.tv_sec > 500 && now.it_value.tv_sec <= 600, "ITIMER_PROF");
	PROBE_SAME(now.it_interval.tv_usec, 40000, "interval of ITIMER_PROF");
}

int main(int argc, char **argv)
{
	const struct { const char *name; void (*run)(void); } variants[] = { { "clocks", clocks }, { "fire", fire }, { "itimers", itimers } };
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
		if (argc > 1 && !strcmp(argv[1], variants[i].name))
			variants[i].run();
	return probe_end();
}
