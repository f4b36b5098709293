/* SPDX-License-Identifier: Apache-2.0 */
/* probe: the main stack keeps its contents and still grows */
#include "probe.h"

__attribute__((noinline)) static uint64_t deeper(int depth)
{
	volatile unsigned char here[4096];
	for (size_t i = 0; i < sizeof here; i += 512)
		here[i] = (unsigned char)depth;
	uint64_t sum = depth ? deeper(depth - 1) : 0;
	for (size_t i = 0; i < sizeof here; i += 512)
		sum += here[i];
	return sum;
}

int main(void)
{
	unsigned char kept[40000];
	probe_fill(kept, sizeof kept, 6);
	uint64_t wanted = deeper(3);
	PROBE_TRUE(strstr(probe_proc("maps", ""), "-") != NULL, "set-up: maps");

	probe_save();

	probe_filled(kept, sizeof kept, 6, "stack");
	PROBE_SAME(deeper(3), wanted, "a sum");
	uint64_t sum = deeper(1200); /* about 5 MiB: far below what was touched before */
	uint64_t expected = 0;
	for (int i = 0; i <= 1200; i++)
		expected += 8u * (unsigned char)i;
	PROBE_SAME(sum, expected, "a sum over a stack that had to grow");
	return probe_end();
}
