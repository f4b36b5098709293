/* SPDX-License-Identifier: Apache-2.0 */
/* probe: POSIX timers keep their ids, clocks, signals, values and overruns */
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static int create(clockid_t clock, int notify, int number, void *value)
{
	struct sigevent event = { .sigev_notify = notify, .sigev_signo = number, .sigev_value.sival_ptr = value };
	if (notify == SIGEV_THREAD_ID)
		event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	int id = -1;
	PROBE(syscall(SYS_timer_create, clock, &event, &id));
	return id;
}

int main(void)
{
	sigset_t set;
	sigemptyset(&set);
	for (int i = 0; i < 8; i++)
		sigaddset(&set, SIGRTMIN + i);
	PROBE(sigprocmask(SIG_BLOCK, &set, NULL));
	int thrown[5], ids[4];
	for (int i = 0; i < 5; i++)
		thrown[i] = create(CLOCK_REALTIME, SIGEV_NONE, 0, NULL);
	ids[0] = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 1, (void *)0x1234567890);
	for (int i = 0; i < 5; i++)
		PROBE(syscall(SYS_timer_delete, thrown[i]));
	ids[1] = create(CLOCK_REALTIME, SIGEV_THREAD_ID, SIGRTMIN + 2, (void *)2);
	ids[2] = create(CLOCK_BOOTTIME, SIGEV_NONE, 0, (void *)3);
	ids[3] = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 4, (void *)4);
	struct itimerspec slow = { { 100, 7 }, { 3000, 5 } }, fast = { { 0, 2000000 }, { 0, 1000000 } }, seen;
	PROBE(syscall(SYS_timer_settime, ids[0], 0, &slow, NULL));
	slow.it_interval.tv_nsec = 0;
	PROBE(syscall(SYS_timer_settime, ids[2], 0, &slow, NULL));
	PROBE(syscall(SYS_timer_settime, ids[3], 0, &fast, NULL));
	enum { RESTORE_IDS = 77, ON = 1, GET = 2 }; /* PR_TIMER_CREATE_RESTORE_IDS, 6.15 */
	bool by_ids = prctl(RESTORE_IDS, ON, 0, 0, 0) == 0;
	siginfo_t info;
	while (!sigpending(&set) && !sigismember(&set, SIGRTMIN + 4))
		;

	probe_save();

	if (by_ids)
		PROBE_SAME(prctl(RESTORE_IDS, GET, 0, 0, 0), ON, "PR_TIMER_CREATE_RESTORE_IDS");
	PROBE_SAME(syscall(SYS_timer_gettime, ids[0], &seen), 0, "timer_gettime");
	PROBE_SAME(seen.it_interval.tv_sec * 1000 + seen.it_interval.tv_nsec, 100007, "interval");
	PROBE_TRUE(seen.it_value.tv_sec >= 2940 && seen.it_value.tv_sec <= 3000, "time left");
	PROBE_SAME(syscall(SYS_timer_gettime, ids[1], &seen), 0, "timer_gettime of a disarmed timer");
	PROBE_SAME(seen.it_value.tv_sec + seen.it_value.tv_nsec, 0, "value of a disarmed timer");
	PROBE_SAME(syscall(SYS_timer_gettime, ids[2], &seen), 0, "timer_gettime of the boot-time timer");
	PROBE_TRUE(seen.it_value.tv_sec >= 2940 && seen.it_value.tv_sec <= 3000, "time left of the boot-time timer");
	for (int i = 0; i < 5; i++)
		PROBE_SAME(syscall(SYS_timer_gettime, thrown[i], &seen), -1, "timer_gettime of a deleted timer");

	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 4);
	for (int i = 0; i < 3; i++) {
		PROBE_SAME(sigtimedwait(&one, &info, &(struct timespec){ 5, 0 }), SIGRTMIN + 4, "the fast timer fires");
		PROBE_SAME(info.si_code, SI_TIMER, "its code");
		PROBE_SAME((long)info.si_value.sival_ptr, 4, "its value");
	}
	struct itimerspec soon = { { 0, 0 }, { 0, 1000000 } };
	PROBE_SAME(syscall(SYS_timer_settime, ids[1], 0, &soon, NULL), 0, "timer_settime");
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 2);
	PROBE_SAME(sigtimedwait(&one, &info, &(struct timespec){ 5, 0 }), SIGRTMIN + 2, "the thread's timer fires");
	PROBE_SAME((long)info.si_value.sival_ptr, 2, "its value");
	PROBE_SAME(syscall(SYS_timer_settime, ids[0], 0, &soon, NULL), 0, "timer_settime");
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 1);
	PROBE_SAME(sigtimedwait(&one, &info, &(struct timespec){ 5, 0 }), SIGRTMIN + 1, "the first timer fires");
	PROBE_SAME((long)info.si_value.sival_ptr, 0x1234567890, "its value");
	return probe_end();
}
