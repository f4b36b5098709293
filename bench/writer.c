/* SPDX-License-Identifier: Apache-2.0 */
/* A program that writes to its memory all the time and measures how long it was ever held up:
 * writer MIB RATE WORST [python]. RATE megabytes a second are written, a page at a time, in no order. The longest time between two steps, in
 * ns, is kept in the first 8 bytes of the file WORST, which somebody else may set to 0, the pages written in the next 8. With a negative RATE it
 * reads, page after page in order, and counts those. With the word "mixed" the memory is not random but what interpreters have: half pointers and
 * small numbers, a quarter text, a quarter floating point. With the word "once" it waits instead, and writes a hundredth of the pages at each SIGUSR1. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t state = 88172645463325252u;
static uint64_t random_next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t word_of(uint64_t at, uint64_t page, int mixed)
{
	static const char words[] = "the quick brown fox jumps over a lazy dog and runs away from it again ";
	uint64_t word = random_next();
	if (!mixed)
		return word;
	switch (page % 4) {
	case 0:
	case 1: /* references, counts, sizes: what a heap of small objects looks like */
		return at % 4 == 0 ? word % 100 : at % 4 == 1 ? 0x7f3c00000000u + word % 1000000 * 16 : at % 4 == 2 ? word % 4096 : 0;
	case 2:
		__builtin_memcpy(&word, words + word % (sizeof words - 9), sizeof word);
		return word;
	default: {
		double value = sin((double)(at + page)) * 1000;
		value = round(value * 1000) / 1000;
		__builtin_memcpy(&word, &value, sizeof word);
		return word;
	}
	}
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	size_t size = (size_t)atoi(argv[1]) << 20, pages = size / 4096;
	double rate = atof(argv[2]) * 1e6 / 1e9; /* bytes per ns */
	uint64_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int file = open(argv[3], O_RDWR | O_CREAT, 0644);
	if (memory == MAP_FAILED || file < 0 || ftruncate(file, 4096) < 0)
		return 1;
	volatile uint64_t seen = 0;
	volatile uint64_t *worst = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (worst == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < size / 8; i++)
		memory[i] = word_of(i, i / 512, argc > 4 && !strcmp(argv[4], "mixed"));
	sigset_t wanted;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	puts("ready");
	fflush(stdout);
	for (int signal_number; argc > 5 && sigwait(&wanted, &signal_number) == 0;) {
		for (size_t i = 0; i < pages / 100; i++)
			memory[random_next() % pages * 512] = state;
		puts("wrote");
		fflush(stdout);
	}
	for (size_t page = 0; rate < 0; page = (page + 1) % pages) {
		seen += memory[page * 512] + memory[page * 512 + 256];
		worst[1]++;
	}
	uint64_t last = now_ns(), begin = last, done = 0;
	for (;;) {
		uint64_t now = now_ns();
		if (now - last > *worst)
			*worst = now - last;
		last = now;
		if ((double)done > rate * (double)(now - begin)) {
			begin += now - begin > 1000000000u ? (done = 0, now - begin) : 0;
			continue;
		}
		memory[random_next() % pages * 512 + (state >> 55)] = state;
		done += 4096;
		worst[1]++;
	}
}
