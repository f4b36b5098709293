/* SPDX-License-Identifier: Apache-2.0 */
/* slow_handler: counts a variable up that is a register's and memory's at once, and says so; SIGALRM's handler takes its time. Ends with 1 when the two differ. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long in_memory;

static void slow(int number)
{
	struct timespec left = { 1, 500000000 };
	(void)number;
	while (nanosleep(&left, &left))
		;
}

int main(void)
{
	signal(SIGALRM, slow);
	for (unsigned long in_register = 1;; in_register++) {
		in_memory++;
		__asm__ volatile("" : "+r"(in_register));
		if (in_register != in_memory) {
			printf("differs: %lu, %lu\n", in_register, in_memory);
			return 1;
		}
		if (in_register % (1ul << 24) == 0) {
			printf("round %lu\n", in_register >> 24);
			fflush(stdout);
		}
	}
}
