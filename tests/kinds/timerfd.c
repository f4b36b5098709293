/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a timerfd keeps its clock, interval, time left and expirations, or is refused by name */
/* refusable: timerfd */
#include "probe.h"

#include <poll.h>
#include <sys/timerfd.h>

int main(void)
{
	int slow = PROBE(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)), off = PROBE(timerfd_create(CLOCK_REALTIME, 0));
	int fired = PROBE(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct itimerspec value = { { 11, 13 }, { 2000, 17 } }, once = { { 0, 0 }, { 0, 1 } }, seen;
	PROBE(timerfd_settime(slow, 0, &value, NULL));
	PROBE(timerfd_settime(fired, 0, &once, NULL));
	int absolute = PROBE(timerfd_create(CLOCK_REALTIME, 0)), monotonic = PROBE(timerfd_create(CLOCK_BOOTTIME, 0));
	uint64_t wall = probe_clock_ns(CLOCK_REALTIME) + 1000000000000u, boot = probe_clock_ns(CLOCK_BOOTTIME) + 500000000000u;
	struct itimerspec at = { { 0, 0 }, { (time_t)(wall / 1000000000u), (long)(wall % 1000000000u) } };
	PROBE(timerfd_settime(absolute, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &at, NULL));
	at = (struct itimerspec){ { 7, 0 }, { (time_t)(boot / 1000000000u), (long)(boot % 1000000000u) } };
	PROBE(timerfd_settime(monotonic, TFD_TIMER_ABSTIME, &at, NULL));
	/* Nobody reads it: it stands still, and what it has missed is counted when somebody does. */
	int ticking = PROBE(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct itimerspec often = { { 0, 7000000 }, { 0, 7000000 } };
	const uint64_t begin_ns = probe_clock_ns(CLOCK_MONOTONIC);
	PROBE(timerfd_settime(ticking, 0, &often, NULL));
	while (probe_clock_ns(CLOCK_MONOTONIC) - begin_ns < 200000000)
		;
	/* So it does when its next moment passes while the program is not there. */
	enum { EVERY_NS = 20000000 };
	int away = PROBE(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
	const uint64_t first_ns = probe_clock_ns(CLOCK_REALTIME) - 1;
	at = (struct itimerspec){ { 0, EVERY_NS }, { (time_t)(first_ns / 1000000000u), (long)(first_ns % 1000000000u) } };
	PROBE(timerfd_settime(away, TFD_TIMER_ABSTIME, &at, NULL));
	struct pollfd poll_fired = { .fd = fired, .events = POLLIN };
	PROBE(poll(&poll_fired, 1, 1000));

	probe_save();

	uint64_t ticks = 0;
	PROBE_SAME(timerfd_gettime(slow, &seen), 0, "timerfd_gettime");
	PROBE_SAME(seen.it_interval.tv_sec * 1000 + seen.it_interval.tv_nsec, 11013, "interval");
	PROBE_TRUE(seen.it_value.tv_sec >= 1900 && seen.it_value.tv_sec <= 2000, "time left");
	PROBE_SAME(timerfd_gettime(off, &seen), 0, "timerfd_gettime of a disarmed one");
	PROBE_SAME(seen.it_value.tv_sec + seen.it_value.tv_nsec, 0, "time left of a disarmed one");
	PROBE_SAME(read(fired, &ticks, sizeof ticks), 8, "read of one that expired");
	PROBE_SAME(ticks, 1, "its expirations");
	PROBE_SAME(timerfd_gettime(absolute, &seen), 0, "timerfd_gettime of one for a moment of the wall clock");
	int64_t off_by = (int64_t)(probe_clock_ns(CLOCK_REALTIME) + (uint64_t)seen.it_value.tv_sec * 1000000000u +
				   (uint64_t)seen.it_value.tv_nsec - wall);
	PROBE_TRUE(off_by > -20000000 && off_by < 20000000, "the moment of the wall clock");
	PROBE_SAME(timerfd_gettime(monotonic, &seen), 0, "timerfd_gettime of one for a moment of the boot clock");
	off_by = (int64_t)(probe_clock_ns(CLOCK_BOOTTIME) + (uint64_t)seen.it_value.tv_sec * 1000000000u +
			   (uint64_t)seen.it_value.tv_nsec - boot);
	PROBE_TRUE(off_by > -20000000 && off_by < 20000000, "the moment of the boot clock");
	char path[64];
	snprintf(path, sizeof path, "fdinfo/%d", absolute);
	PROBE_SAME(strtol(probe_proc(path, "settime flags:"), NULL, 8), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, "how it was set");
	uint64_t before_ns = probe_clock_ns(CLOCK_REALTIME);
	PROBE_SAME(read(away, &ticks, sizeof ticks), 8, "read of one that expired meanwhile");
	uint64_t after_ns = probe_clock_ns(CLOCK_REALTIME);
	PROBE_TRUE(ticks >= (before_ns - first_ns) / EVERY_NS + 1 && ticks <= (after_ns - first_ns) / EVERY_NS + 1, "how often it has expired by the wall clock");
	PROBE_SAME(read(ticking, &ticks, sizeof ticks), 8, "read of one that nobody had read");
	PROBE_TRUE(ticks >= 200 / 7 && ticks < 1000000, "how often it would have expired");
	struct pollfd poll_ticking = { .fd = ticking, .events = POLLIN };
	for (int i = 0; i < 3; i++) {
		PROBE_SAME(poll(&poll_ticking, 1, 5000), 1, "it goes on expiring");
		PROBE_SAME(read(ticking, &ticks, sizeof ticks), 8, "read when it has");
	}
	PROBE_SAME(timerfd_gettime(ticking, &seen), 0, "timerfd_gettime of it");
	PROBE_TRUE(seen.it_value.tv_nsec > 0 && seen.it_value.tv_nsec <= 7000000, "its time left");
	PROBE_SAME(timerfd_settime(off, 0, &once, NULL), 0, "timerfd_settime");
	PROBE_SAME(read(off, &ticks, sizeof ticks), 8, "read of one armed after the restore");
	return probe_end();
}
