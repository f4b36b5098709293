/* SPDX-License-Identifier: Apache-2.0 */
/* Works through an io_uring all the time: writes, syncs (by the kernel's workers), reads what it has written, and waits for a pipe; every request has to complete once, with what is
 * true. Prints the number of its rounds now and then, and ends when there is a file "finish". */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 16, SIZE = 3000, WRITES = 12 };

static struct io_uring_params parameters;
static int ring;
static unsigned char *memory;
static struct io_uring_sqe *requests;
static uint32_t tail;

static void need(int holds, const char *what)
{
	if (holds)
		return;
	printf("wrong: %s (%s)\n", what, strerror(errno));
	exit(1);
}

static uint32_t *word(uint32_t offset)
{
	return (uint32_t *)(void *)(memory + offset);
}

static void begin(void)
{
	ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &parameters);
	if (ring < 0) {
		printf("skip io_uring_setup: %s\n", strerror(errno));
		exit(0);
	}
	memory = mmap(NULL, parameters.sq_off.array + ENTRIES * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	requests = mmap(NULL, ENTRIES * sizeof *requests, PROT_READ | PROT_WRITE, MAP_SHARED, ring, (off_t)IORING_OFF_SQES);
	need(memory != MAP_FAILED && requests != MAP_FAILED, "mmap");
	for (uint32_t i = 0; i < ENTRIES; i++)
		word(parameters.sq_off.array)[i] = i;
}

static void add(unsigned char opcode, int fd, void *at, uint32_t size, uint64_t offset, uint64_t data)
{
	requests[tail++ & (ENTRIES - 1)] = (struct io_uring_sqe){
		.opcode = opcode, .fd = fd, .addr = (uintptr_t)at, .len = size, .off = offset, .user_data = data,
	};
}

/* Submits all and then, in calls of their own, waits for as many; each of them has to have the result that @results says. */
static void complete(uint32_t count, const int32_t *results)
{
	unsigned seen = 0;
	__atomic_store_n(word(parameters.sq_off.tail), tail, __ATOMIC_RELEASE);
	need(syscall(SYS_io_uring_enter, ring, count, 0, 0, NULL, 0) == (long)count, "submit");
	while (seen != (1u << count) - 1) {
		uint32_t *head = word(parameters.cq_off.head), end = __atomic_load_n(word(parameters.cq_off.tail), __ATOMIC_ACQUIRE);
		const struct io_uring_cqe *all = (const void *)(memory + parameters.cq_off.cqes);
		if (*head == end)
			need(syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 0, "wait");
		for (; *head != end; __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE)) {
			const struct io_uring_cqe *one = &all[*head & (parameters.cq_entries - 1)];
			need(one->user_data < count && !(seen >> one->user_data & 1), "each request completes once");
			need(one->res == results[one->user_data], "result");
			seen |= 1u << one->user_data;
		}
	}
}

int main(void)
{
	static unsigned char out[WRITES][SIZE], in[WRITES][SIZE];
	int32_t results[ENTRIES];
	int file = open("data", O_RDWR | O_CREAT, 0600), ends[2];
	char byte;
	need(file >= 0 && pipe(ends) == 0, "open");
	begin();
	for (uint64_t round = 1; access("finish", F_OK) < 0; round++) {
		for (int i = 0; i < WRITES; i++) {
			memset(out[i], (int)(round * 31 + (uint64_t)i), SIZE);
			add(IORING_OP_WRITE, file, out[i], SIZE, (uint64_t)i * SIZE, (uint64_t)i);
			results[i] = SIZE;
		}
		complete(WRITES, results);
		for (int i = 0; i < WRITES; i++)
			add(IORING_OP_READ, file, in[i], SIZE, (uint64_t)i * SIZE, (uint64_t)i);
		add(IORING_OP_READ, ends[0], &byte, 1, 0, WRITES);
		results[WRITES] = 1;
		add(IORING_OP_WRITE, ends[1], out, 1, 0, WRITES + 1);
		results[WRITES + 1] = 1;
		add(IORING_OP_FSYNC, file, NULL, 0, 0, WRITES + 2);
		results[WRITES + 2] = 0;
		complete(WRITES + 3, results);
		need(!memcmp(out, in, sizeof out) && byte == (char)out[0][0], "what was read");
		if (round % 50 == 0) {
			printf("round %llu\n", (unsigned long long)round);
			fflush(stdout);
		}
	}
	printf("all right\n");
	return 0;
}
