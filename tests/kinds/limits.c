/* SPDX-License-Identifier: Apache-2.0 */
/* probe: all resource limits keep their soft and hard values */
#include "probe.h"

#include <sys/resource.h>

int main(void)
{
	struct rlimit wanted[RLIM_NLIMITS], seen;
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		PROBE(getrlimit((unsigned)i, &wanted[i]));
		struct rlimit odd = wanted[i];
		if (i == RLIMIT_NOFILE)
			odd.rlim_cur = 317;
		else if (i == RLIMIT_CORE)
			odd = (struct rlimit){ 12345, 678901 };
		else if (i == RLIMIT_STACK)
			odd.rlim_cur = 7 * 1024 * 1024 + 4096;
		else if (i == RLIMIT_CPU)
			odd = (struct rlimit){ 1234, 5678 };
		else if (i == RLIMIT_MSGQUEUE)
			odd.rlim_cur = 0;
		if (!setrlimit((unsigned)i, &odd))
			wanted[i] = odd;
	}

	probe_save();

	for (int i = 0; i < RLIM_NLIMITS; i++) {
		char what[64];
		PROBE_SAME(getrlimit((unsigned)i, &seen), 0, "getrlimit");
		snprintf(what, sizeof what, "soft limit %d", i);
		PROBE_SAME(seen.rlim_cur, wanted[i].rlim_cur, what);
		snprintf(what, sizeof what, "hard limit %d", i);
		PROBE_SAME(seen.rlim_max, wanted[i].rlim_max, what);
	}
	return probe_end();
}
