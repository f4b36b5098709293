/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/sockopts.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"

/* Newer than the headers here (include/uapi/linux/io_uring.h of Linux 6.18). */
enum { OP_URING_CMD = 46, COMMAND_GETSOCKOPT = 2 };

struct sockopt_ring {
	int fd;
	uint8_t *submissions, *completions; /* the rings: heads and tails, and what lies between */
	size_t submissions_size, completions_size, entries_size;
	struct io_uring_sqe *entries;
	struct io_uring_params parameters;
};

static uint32_t *word(uint8_t *ring, uint32_t offset)
{
	return (uint32_t *)(void *)(ring + offset);
}

static void *map(int fd, size_t size, off_t offset)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	return memory == MAP_FAILED ? NULL : memory;
}

void sockopt_ring_free(struct sockopt_ring *ring)
{
	if (!ring)
		return;
	if (ring->submissions)
		munmap(ring->submissions, ring->submissions_size);
	if (ring->completions)
		munmap(ring->completions, ring->completions_size);
	if (ring->entries)
		munmap(ring->entries, ring->entries_size);
	close(ring->fd);
	free(ring);
}

static int map_all(struct sockopt_ring *ring)
{
	const struct io_uring_params *parameters = &ring->parameters;
	ring->submissions_size = parameters->sq_off.array + parameters->sq_entries * sizeof(uint32_t);
	ring->completions_size = parameters->cq_off.cqes + parameters->cq_entries * sizeof(struct io_uring_cqe);
	ring->entries_size = parameters->sq_entries * sizeof *ring->entries;
	ring->submissions = map(ring->fd, ring->submissions_size, IORING_OFF_SQ_RING);
	ring->completions = map(ring->fd, ring->completions_size, IORING_OFF_CQ_RING);
	ring->entries = map(ring->fd, ring->entries_size, IORING_OFF_SQES);
	return ring->submissions && ring->completions && ring->entries ? 0 : -ENOMEM;
}

/* Asked by doing: other kernels know the call and refuse the command. */
static int try_it(struct sockopt_ring *ring)
{
	struct sockopt_question question = { .name = SO_TYPE, .size = sizeof(int) };
	int type = 0;
	_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int rc = fd < 0 ? -errno : sockopt_ring_ask(ring, fd, &question, 1);
	memcpy(&type, question.value, sizeof type);
	return rc < 0 ? rc : question.answer == sizeof type && type == SOCK_SEQPACKET ? 0 : -EOPNOTSUPP;
}

struct sockopt_ring *sockopt_ring_new(void)
{
	struct sockopt_ring *ring = memory_new(sizeof *ring);
	ring->fd = (int)syscall(SYS_io_uring_setup, SOCKOPTS_AT_ONCE, &ring->parameters);
	if (ring->fd < 0) {
		free(ring);
		return NULL;
	}
	if (map_all(ring) == 0 && try_it(ring) == 0)
		return ring;
	sockopt_ring_free(ring);
	return NULL;
}

static void submit(struct sockopt_ring *ring, int fd, struct sockopt_question *questions, size_t count)
{
	uint32_t *tail = word(ring->submissions, ring->parameters.sq_off.tail), first = *tail;
	uint32_t mask = *word(ring->submissions, ring->parameters.sq_off.ring_mask);
	uint32_t *array = word(ring->submissions, ring->parameters.sq_off.array);
	for (size_t i = 0; i < count; i++) {
		uint32_t place = (first + (uint32_t)i) & mask;
		struct io_uring_sqe *entry = &ring->entries[place];
		*entry = (struct io_uring_sqe){ .opcode = OP_URING_CMD, .fd = fd, .off = COMMAND_GETSOCKOPT, .user_data = i };
		entry->addr = SOL_SOCKET | (uint64_t)(uint32_t)questions[i].name << 32; /* level and name, as two words */
		entry->file_index = questions[i].size;
		entry->addr3 = (uint64_t)(uintptr_t)questions[i].value;
		questions[i].answer = -EIO;
		array[place] = place;
	}
	__atomic_store_n(tail, first + (uint32_t)count, __ATOMIC_RELEASE);
}

static size_t collect(struct sockopt_ring *ring, struct sockopt_question *questions, size_t count)
{
	uint32_t *head = word(ring->completions, ring->parameters.cq_off.head), at = *head;
	uint32_t tail = __atomic_load_n(word(ring->completions, ring->parameters.cq_off.tail), __ATOMIC_ACQUIRE);
	uint32_t mask = *word(ring->completions, ring->parameters.cq_off.ring_mask);
	const struct io_uring_cqe *entries = (const void *)(ring->completions + ring->parameters.cq_off.cqes);
	size_t found = 0;
	for (; at != tail; at++, found++)
		if (entries[at & mask].user_data < count)
			questions[entries[at & mask].user_data].answer = entries[at & mask].res;
	__atomic_store_n(head, at, __ATOMIC_RELEASE);
	return found;
}

int sockopt_ring_ask(struct sockopt_ring *ring, int fd, struct sockopt_question *questions, size_t count)
{
	if (count > SOCKOPTS_AT_ONCE)
		return -E2BIG;
	submit(ring, fd, questions, count);
	for (size_t submitted = 0, found = 0; found < count;) {
		long rc = syscall(SYS_io_uring_enter, ring->fd, count - submitted, count - found, IORING_ENTER_GETEVENTS, NULL, 0);
		if (rc < 0 && errno != EINTR)
			return -errno;
		submitted += rc < 0 ? 0 : (size_t)rc;
		found += collect(ring, questions, count);
	}
	return 0;
}
