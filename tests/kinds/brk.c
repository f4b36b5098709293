/* SPDX-License-Identifier: Apache-2.0 */
/* probe: the heap of brk keeps its contents, grows and shrinks */
#include "probe.h"

int main(void)
{
	unsigned char *start = PROBE((unsigned char *)sbrk(300000));
	probe_fill(start, 300000, 13);
	unsigned char *end = sbrk(0);

	probe_save();

	PROBE_SAME((long)sbrk(0), (long)end, "end of the heap");
	probe_filled(start, 300000, 13, "heap");
	PROBE_SAME((long)sbrk(5000000), (long)end, "growth");
	probe_fill(end, 5000000, 14);
	probe_filled(end, 5000000, 14, "new part");
	probe_filled(start, 300000, 13, "heap after growth");
	PROBE_SAME((long)sbrk(-5200000), (long)end + 5000000, "shrinking");
	probe_filled(start, 90000, 13, "rest of the heap");
	PROBE_TRUE(strstr(probe_proc("stat", ""), "(brk)") != NULL, "stat");
	return probe_end();
}
