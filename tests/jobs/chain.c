/* SPDX-License-Identifier: Apache-2.0 */
/* A computation whose every step needs the one before: argv[1] rounds, a line each. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	uint64_t state = 88172645463325252u;
	long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 100;
	setvbuf(stdout, NULL, _IOLBF, 4096);
	for (long round = 0; round < rounds; round++) {
		for (int i = 0; i < 2000000; i++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
		}
		printf("%ld %016llx\n", round, (unsigned long long)state);
	}
	return 0;
}
