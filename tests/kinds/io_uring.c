/* SPDX-License-Identifier: Apache-2.0 */
/* variant plain: an io_uring goes on where it was, with completions that were not read and requests that were not submitted */
/* variant registered: an io_uring keeps its registered buffers, files and eventfd */
/* variant unordered: an io_uring without an array of requests to take goes on where it was */
/* variant waiting: a thread that waits in an io_uring for a completion waits on, and gets it */
/* variant numbered: threads call an io_uring by numbers of their own */
/* variant forked: an io_uring of a parent is its child's too */
#include "probe.h"

#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* include/uapi/linux/io_uring.h, 6.6 */
#endif

struct ring {
	int fd;
	struct io_uring_params parameters;
	unsigned char *memory;
	struct io_uring_sqe *requests;
	uint32_t tail; /* as liburing has it: the next request's place, by the program's own count */
};

static uint32_t *word(const struct ring *ring, uint32_t offset)
{
	return (uint32_t *)(void *)(ring->memory + offset);
}

static struct ring make_ring(unsigned entries, unsigned flags)
{
	struct ring ring = { .parameters = { .flags = flags } };
	ring.fd = (int)syscall(SYS_io_uring_setup, entries, &ring.parameters);
	if (ring.fd < 0)
		probe_skip("io_uring_setup: %s", strerror(errno));
	size_t size = ring.parameters.cq_off.cqes + ring.parameters.cq_entries * sizeof(struct io_uring_cqe);
	if (ring.parameters.sq_off.array)
		size = ring.parameters.sq_off.array + entries * sizeof(uint32_t);
	ring.memory = PROBE(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING));
	ring.requests = PROBE(mmap(NULL, entries * sizeof *ring.requests, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, (off_t)IORING_OFF_SQES));
	for (unsigned i = 0; i < entries && !(flags & IORING_SETUP_NO_SQARRAY); i++)
		word(&ring, ring.parameters.sq_off.array)[i] = i;
	return ring;
}

static struct io_uring_sqe *next_request(struct ring *ring, unsigned char opcode, uint64_t user_data)
{
	struct io_uring_sqe *request = &ring->requests[ring->tail++ & (ring->parameters.sq_entries - 1)];
	*request = (struct io_uring_sqe){ .opcode = opcode, .fd = -1, .user_data = user_data };
	return request;
}

static long submit(struct ring *ring, unsigned wait)
{
	uint32_t taken = *word(ring, ring->parameters.sq_off.head);
	__atomic_store_n(word(ring, ring->parameters.sq_off.tail), ring->tail, __ATOMIC_RELEASE);
	return syscall(SYS_io_uring_enter, ring->fd, ring->tail - taken, wait, wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
}

/* The next completion is this one. */
static void expect(struct ring *ring, uint64_t user_data, int32_t result, const char *what)
{
	uint32_t *head = word(ring, ring->parameters.cq_off.head);
	uint32_t tail = __atomic_load_n(word(ring, ring->parameters.cq_off.tail), __ATOMIC_ACQUIRE);
	const struct io_uring_cqe *all = (const void *)(ring->memory + ring->parameters.cq_off.cqes);
	const struct io_uring_cqe *one = &all[*head & (ring->parameters.cq_entries - 1)];
	PROBE_TRUE(*head != tail, what);
	PROBE_SAME(one->user_data, user_data, what);
	PROBE_SAME(one->res, result, what);
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
}

static void expect_none(struct ring *ring)
{
	PROBE_SAME(*word(ring, ring->parameters.cq_off.tail) - *word(ring, ring->parameters.cq_off.head), 0, "completions left");
}

/* @count requests, each read at once. */
static void work(struct ring *ring, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		next_request(ring, IORING_OP_NOP, 1000 + i);
		PROBE_SAME(submit(ring, 1), 1, "requests submitted");
		expect(ring, 1000 + i, 0, "completion of an empty request");
	}
}

static void plain(unsigned flags)
{
	struct ring small = make_ring(8, flags), large = make_ring(2048, flags), fresh = make_ring(2, flags);
	work(&small, 1037);
	work(&large, 300);
	for (unsigned i = 0; i < 13; i++) { /* of 16 */
		next_request(&small, IORING_OP_NOP, i);
		PROBE_SAME(submit(&small, 0), 1, "requests submitted");
	}
	next_request(&small, IORING_OP_NOP, 77);
	next_request(&small, IORING_OP_NOP, 78);

	probe_save();

	PROBE_SAME(submit(&small, 0), 2, "requests that had not been submitted");
	next_request(&small, IORING_OP_NOP, 79);
	next_request(&small, IORING_OP_NOP, 80); /* one more than there is room for */
	PROBE_SAME(submit(&small, 0), 2, "requests submitted");
	for (unsigned i = 0; i < 13; i++)
		expect(&small, i, 0, "completion that had not been read");
	for (unsigned i = 77; i < 80; i++)
		expect(&small, i, 0, "completion of a request");
	PROBE_SAME(syscall(SYS_io_uring_enter, small.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0), 0, "look for the one without room");
	expect(&small, 80, 0, "completion without room");
	expect_none(&small);
	work(&small, 40);
	work(&large, 600);
	work(&fresh, 40);
}

static void registered(void)
{
	struct ring ring = make_ring(16, 0);
	static const char text[] = "what is in the file";
	char *memory = PROBE(mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	int file = PROBE(open("some file", O_RDWR | O_CREAT, 0600)), notice = PROBE(eventfd(0, EFD_NONBLOCK)), pair[2];
	PROBE(pwrite(file, text, sizeof text, 100));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	const struct iovec buffers[] = { { memory + 4097, 3000 }, { memory, 12288 } };
	const int files[] = { file, -1, pair[1], -1, -1 };
	PROBE(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, buffers, 2));
	PROBE(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, files, 5));
	PROBE(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_EVENTFD, &notice, 1));
	work(&ring, 5);
	uint64_t count = 0;
	PROBE_SAME(read(notice, &count, sizeof count), 8, "read of the eventfd");

	probe_save();

	PROBE_SAME(read(notice, &count, sizeof count), -1, "the eventfd is 0");
	struct io_uring_sqe *request = next_request(&ring, IORING_OP_READ_FIXED, 5);
	request->fd = 0, request->flags = IOSQE_FIXED_FILE, request->off = 100;
	request->addr = (uintptr_t)memory + 5000, request->len = sizeof text, request->buf_index = 0;
	PROBE_SAME(submit(&ring, 1), 1, "read submitted");
	expect(&ring, 5, sizeof text, "read of a registered file into a registered buffer");
	PROBE_TRUE(!strcmp(memory + 5000, text), "what was read");
	request = next_request(&ring, IORING_OP_SEND, 6);
	request->fd = 2, request->flags = IOSQE_FIXED_FILE, request->addr = (uintptr_t)memory + 5000, request->len = 4;
	PROBE_SAME(submit(&ring, 1), 1, "send submitted");
	expect(&ring, 6, 4, "send by a registered socket");
	PROBE_SAME(recv(pair[0], memory, 10, MSG_DONTWAIT), 4, "bytes received");
	request = next_request(&ring, IORING_OP_WRITE_FIXED, 7);
	request->fd = file, request->addr = (uintptr_t)memory + 100, request->len = 5000, request->buf_index = 1;
	PROBE_SAME(submit(&ring, 1), 1, "write submitted");
	expect(&ring, 7, 5000, "write from the other buffer");
	request = next_request(&ring, IORING_OP_READ, 8);
	request->fd = 1, request->flags = IOSQE_FIXED_FILE;
	PROBE_SAME(submit(&ring, 1), 1, "read of an empty slot submitted");
	expect(&ring, 8, -EBADF, "read of an empty slot");
	PROBE_SAME(read(notice, &count, sizeof count), 8, "the eventfd was told");
	PROBE_SAME(count, 4, "of as many completions");
}

static void waiting(void)
{
	struct ring ring = make_ring(8, 0);
	int ends[2];
	work(&ring, 20);
	PROBE(pipe(ends));
	pid_t child = PROBE(fork());
	if (child == 0) { /* its ring is this one, and nothing is under way in it: it waits for what the parent will submit */
		long rc = syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
		_exit(rc == 0 ? 33 : 1);
	}

	probe_save();

	next_request(&ring, IORING_OP_NOP, 9);
	PROBE_SAME(submit(&ring, 0), 1, "requests submitted");
	int status = 0;
	PROBE_SAME(waitpid(child, &status, 0), child, "the child that waited");
	PROBE_SAME(WEXITSTATUS(status), 33, "what it got");
	expect(&ring, 9, 0, "completion");
}

static long by_number(unsigned number)
{
	return syscall(SYS_io_uring_enter, number, 0, 0, 1 << 4, NULL, 0); /* IORING_ENTER_REGISTERED_RING */
}

static void take_number(const struct ring *ring, unsigned number)
{
	struct io_uring_rsrc_update update = { .offset = number, .data = (uint64_t)ring->fd };
	PROBE(syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_RING_FDS, &update, 1));
}

static const struct ring *shared_ring;
static pthread_barrier_t before, after;

static void *other_thread(void *unused)
{
	take_number(shared_ring, 3);
	take_number(shared_ring, 15);
	pthread_barrier_wait(&before);
	pthread_barrier_wait(&after);
	PROBE_SAME(by_number(3), 0, "call by the other thread's first number");
	PROBE_SAME(by_number(15), 0, "call by its second");
	PROBE_SAME(by_number(0), -1, "call by the first thread's number");
	return unused;
}

static void numbered(void)
{
	struct ring ring = make_ring(8, 0);
	pthread_t thread;
	shared_ring = &ring;
	pthread_barrier_init(&before, NULL, 2);
	pthread_barrier_init(&after, NULL, 2);
	take_number(&ring, 0);
	work(&ring, 9);
	pthread_create(&thread, NULL, other_thread, NULL);
	pthread_barrier_wait(&before);

	probe_save();

	PROBE_SAME(by_number(0), 0, "call by number");
	PROBE_SAME(by_number(1), -1, "call by a number that is not taken");
	pthread_barrier_wait(&after);
	pthread_join(thread, NULL);
	work(&ring, 9);
}

static void forked(void)
{
	struct ring ring = make_ring(8, 0);
	int ends[2];
	char byte = 1;
	work(&ring, 11);
	PROBE(pipe(ends));
	pid_t child = PROBE(fork());
	if (child == 0) {
		if (read(ends[0], &byte, 1) != 1)
			_exit(1);
		ring.tail = *word(&ring, ring.parameters.sq_off.tail); /* what the parent has made of it meanwhile */
		work(&ring, 3);
		_exit(probe_faults ? 1 : 34);
	}

	probe_save();

	work(&ring, 1);
	PROBE_SAME(write(ends[1], &byte, 1), 1, "write to the child");
	int status = 0;
	PROBE_SAME(waitpid(child, &status, 0), child, "the child");
	PROBE_SAME(WEXITSTATUS(status), 34, "what it found");
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "plain";
	if (!strcmp(variant, "registered"))
		registered();
	else if (!strcmp(variant, "waiting"))
		waiting();
	else if (!strcmp(variant, "numbered"))
		numbered();
	else if (!strcmp(variant, "forked"))
		forked();
	else
		plain(strcmp(variant, "unordered") ? 0 : IORING_SETUP_NO_SQARRAY);
	return probe_end();
}
