/* SPDX-License-Identifier: Apache-2.0 */
/* probe: interval timers keep their interval and what is left of them */
#include "probe.h"

#include <sys/time.h>

int main(void)
{
	struct itimerval real = { { 7, 300001 }, { 5000, 250000 } }, virtual = { { 0, 20000 }, { 600, 0 } };
	struct itimerval prof = { { 0, 0 }, { 900, 500000 } }, seen;
	PROBE(setitimer(ITIMER_REAL, &real, NULL));
	PROBE(setitimer(ITIMER_VIRTUAL, &virtual, NULL));
	PROBE(setitimer(ITIMER_PROF, &prof, NULL));

	probe_save();

	PROBE_SAME(getitimer(ITIMER_REAL, &seen), 0, "getitimer");
	PROBE_SAME(seen.it_interval.tv_sec * 1000000 + seen.it_interval.tv_usec, 7300001, "interval");
	PROBE_TRUE(seen.it_value.tv_sec >= 4940 && seen.it_value.tv_sec <= 5000, "time left of the real timer");
	PROBE_SAME(getitimer(ITIMER_VIRTUAL, &seen), 0, "getitimer");
	PROBE_TRUE(seen.it_interval.tv_usec >= 20000 && seen.it_interval.tv_usec <= 24000, "virtual interval");
	PROBE_TRUE(seen.it_value.tv_sec >= 598 && seen.it_value.tv_sec <= 600, "time left of the virtual timer");
	PROBE_SAME(getitimer(ITIMER_PROF, &seen), 0, "getitimer");
	PROBE_SAME(seen.it_interval.tv_usec, 0, "profiling interval");
	PROBE_TRUE(seen.it_value.tv_sec >= 898 && seen.it_value.tv_sec <= 900, "time left of the profiling timer");
	return probe_end();
}
