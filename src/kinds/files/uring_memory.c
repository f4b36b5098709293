/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel holds besides the memory are two positions of its own, how many requests it has taken and how many completions it has posted, by which it goes on, whatever the
 * memory says. A new ring's are 0, and the program remembers the old ones. They are counted up by as many empty requests (IORING_OP_NOP, some 0.1 us each; after months of
 * work the most is 2^32, some minutes), of which those whose completion the old ring had lost are marked to have none.
 *
 * The kernel also remembers how far it may post without a look at the program's head (io_uring.c io_cqe_cache_refill, 6.18). So no head is ever said that lies behind
 * the one that the program will have: it could write over completions that were not read. */
#include "kinds/files/uring_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096 };

struct mapping {
	uint8_t *at; /* NULL: none */
	size_t size;
};

static void mapping_finish(struct mapping *mapping)
{
	if (mapping->at)
		munmap(mapping->at, mapping->size);
}
#define _mapping_ __attribute__((cleanup(mapping_finish)))

static struct mapping map(int fd, int protection, size_t size, off_t what)
{
	size_t whole = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
	void *at = mmap(NULL, whole, protection, MAP_SHARED | MAP_POPULATE, fd, what);
	return at == MAP_FAILED ? (struct mapping){ 0 } : (struct mapping){ at, whole };
}

/* ---- frozen ---- */

/* A mapping may be longer than what is behind it. Bytes that are, or -errno. */
static ssize_t read_there(const struct mapping *mapping, uint8_t *to)
{
	struct iovec here = { to, mapping->size }, there = { mapping->at, mapping->size };
	ssize_t size = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
	return size < 0 ? -errno : size;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
	return !size || (!bytes[0] && !memcmp(bytes, bytes + 1, size - 1));
}

/* One of the two parts of a ring, as it is, and how much of it an ordinary ring would have. */
struct part {
	uint8_t *bytes; /* on the heap */
	size_t size, ordinary;
};

static int read_part(int own, int like, size_t most, off_t what, struct part *ret_part, struct fault *fault)
{
	_mapping_ struct mapping mapping = map(own, PROT_READ, most, what), other = map(like, PROT_READ, most, what);
	if (!mapping.at || !other.at)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "an io_uring whose memory cannot be mapped (IORING_SETUP_NO_MMAP?): cannot be carried; try again "
				 "when the program has closed it");
	_free_ uint8_t *bytes = memory_new(mapping.size);
	ssize_t ordinary = read_there(&other, bytes);
	memset(bytes, 0, mapping.size);
	ssize_t size = ordinary < 0 ? ordinary : read_there(&mapping, bytes);
	if (size < 0)
		return fault_set(fault, fault_class_of((int)-size), (int)-size, "an io_uring: read its memory: %s", strerror((int)-size));
	*ret_part = (struct part){ bytes, (size_t)size, (size_t)ordinary };
	bytes = NULL;
	return 0;
}

static int refuse_double(const char *flag, struct fault *fault)
{
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "an io_uring with entries of the double size (%s), which this version cannot carry; try again when the program "
			 "has closed it", flag);
}

/* Entries of the double size take more pages, or leave something where an ordinary ring has nothing. */
static bool is_ordinary(const struct part *part, size_t used)
{
	return part->size <= part->ordinary && (part->size <= used || is_zero(part->bytes + used, part->size - used));
}

/* Of few entries also those of the double size have room in the same pages. Then there is something behind the last completion that an ordinary ring has posted, or requests lie
 * at every second place only. What has had one request, or none, shows nothing of that. */
static bool has_double_completions(const struct part *rings, const struct uring_layout *layout, uint32_t completions)
{
	const size_t entry = sizeof(struct io_uring_cqe);
	uint32_t posted = uring_word(rings->bytes, layout, URING_CQ_TAIL);
	return posted < completions && !is_zero(rings->bytes + layout->completions + posted * entry, (completions - posted) * entry);
}

static bool has_double_requests(const struct part *entries, uint32_t requests)
{
	const size_t entry = sizeof(struct io_uring_sqe);
	bool even = false, odd = false;
	for (uint32_t i = 1; i < requests; i++)
		*(i & 1 ? &odd : &even) |= !is_zero(entries->bytes + i * entry, entry);
	return even && !odd;
}

/* Without an array the kernel takes requests in the order of their places. What lies there is 0 then. A ring with one whose array is 0 takes the first place each
 * time: then no other was ever used. */
static bool wants_array(const struct part *rings, const struct part *entries, size_t array, uint32_t requests, uint32_t taken)
{
	const size_t entry = sizeof(struct io_uring_sqe);
	if (requests == 1 || !is_zero(rings->bytes + array, requests * sizeof(uint32_t)))
		return false;
	return taken < 2 || !is_zero(entries->bytes + entry, (requests - 1) * entry);
}

static void fill_array(uint8_t *array, uint32_t requests)
{
	for (uint32_t i = 0; i < requests; i++)
		memcpy(array + i * sizeof i, &i, sizeof i);
}

/* Moves their bytes to @memory. */
static int take_parts(struct part *rings, struct part *entries, const struct io_uring_params *parameters, struct uring_memory *memory, struct fault *fault)
{
	const uint32_t requests = parameters->sq_entries, array = memory->layout.array;
	if (!is_ordinary(rings, memory->rings_size) || has_double_completions(rings, &memory->layout, parameters->cq_entries))
		return refuse_double("IORING_SETUP_CQE32", fault);
	if (!is_ordinary(entries, memory->entries_size) || has_double_requests(entries, parameters->sq_entries))
		return refuse_double("IORING_SETUP_SQE128", fault);
	/* A mapping has to be as large as the ring: it cannot have more pages than it had. */
	memory->no_array = rings->size < rings->ordinary;
	if (memory->no_array)
		memory->rings_size = array;
	else if (wants_array(rings, entries, array, requests, uring_word(rings->bytes, &memory->layout, URING_SQ_HEAD)))
		fill_array(rings->bytes + array, requests);
	memory->rings = rings->bytes, rings->bytes = NULL;
	memory->entries = entries->bytes, entries->bytes = NULL;
	return 0;
}

int uring_memory_read(int own, int like, const struct io_uring_params *parameters, struct uring_memory *ret_memory, struct fault *fault)
{
	struct uring_memory memory = { .layout = uring_layout(parameters), .entries_size = parameters->sq_entries * sizeof(struct io_uring_sqe) };
	struct part rings = { 0 }, entries = { 0 };
	memory.rings_size = memory.layout.array + parameters->sq_entries * sizeof(uint32_t);
	int rc = read_part(own, like, memory.rings_size + parameters->cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_SQ_RING, &rings, fault);
	if (rc == 0)
		rc = read_part(own, like, 2 * memory.entries_size, (off_t)IORING_OFF_SQES, &entries, fault);
	if (rings.bytes && entries.bytes)
		rc = take_parts(&rings, &entries, parameters, &memory, fault);
	memory_free_scoped(&rings.bytes);
	memory_free_scoped(&entries.bytes);
	if (rc == 0)
		*ret_memory = memory;
	return rc;
}

void uring_memory_finish(struct uring_memory *memory)
{
	memory_free_scoped(&memory->rings);
	memory_free_scoped(&memory->entries);
}

/* ---- newborn ---- */

struct counter {
	int fd;
	uint8_t *rings;
	const struct uring_layout *layout;
	struct io_uring_sqe *entries;
	uint32_t requests;
	bool no_array;
	const struct deadline *deadline;
};

static uint32_t *word(const struct counter *counter, enum uring_word which)
{
	return (uint32_t *)(void *)(counter->rings + counter->layout->words[which]);
}

/* Empty requests until @count have been taken, of which a million take a tenth of a second. @reads: their completions are read, as many as there are. */
static int count_to(const struct counter *counter, uint32_t count, bool reads, struct fault *fault)
{
	enum { LOOK_AFTER = 1 << 16 };
	uint32_t *taken = word(counter, URING_SQ_HEAD), *head = word(counter, URING_CQ_HEAD), *tail = word(counter, URING_CQ_TAIL);
	__atomic_store_n(word(counter, URING_SQ_TAIL), count, __ATOMIC_RELEASE);
	for (uint32_t looked = count;;) {
		uint32_t left = count - __atomic_load_n(taken, __ATOMIC_ACQUIRE);
		if (!left)
			return 0;
		if (looked - left > LOOK_AFTER) {
			int rc = deadline_check(counter->deadline, fault);
			if (rc < 0)
				return rc;
			looked = left;
		}
		long done = syscall(SYS_io_uring_enter, counter->fd, left < counter->requests ? left : counter->requests, 0, 0, NULL, 0);
		int error = done < 0 ? errno : EIO;
		if (done <= 0 && error != EINTR && error != EAGAIN)
			return fault_set(fault, FAULT_FAILED, error, "io_uring: bring it to request %u: %s", count, strerror(error));
		if (reads)
			__atomic_store_n(head, __atomic_load_n(tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	}
}

static int count(const struct counter *counter, uint32_t read, uint32_t posted, uint32_t taken, struct fault *fault)
{
	memset(counter->entries, 0, counter->requests * sizeof *counter->entries);
	if (!counter->no_array)
		fill_array(counter->rings + counter->layout->array, counter->requests);
	int rc = count_to(counter, read, true, fault);
	if (rc == 0)
		rc = count_to(counter, posted, false, fault);
	for (uint32_t i = 0; i < counter->requests; i++)
		counter->entries[i].flags = IOSQE_CQE_SKIP_SUCCESS;
	if (rc == 0)
		rc = count_to(counter, taken, false, fault);
	bool there = *word(counter, URING_CQ_TAIL) == posted && *word(counter, URING_CQ_OVERFLOW) == 0;
	if (rc == 0 && !there)
		rc = fault_set(fault, FAULT_FAILED, EIO, "io_uring: bring it to request %u: its completions are others", taken);
	return rc;
}

int uring_memory_write(int fd, const struct io_uring_params *parameters, const struct uring_memory *memory, uint32_t taken, uint32_t posted,
		       const struct deadline *deadline, struct fault *fault)
{
	_mapping_ struct mapping rings = map(fd, PROT_READ | PROT_WRITE, memory->rings_size, IORING_OFF_SQ_RING);
	_mapping_ struct mapping entries = map(fd, PROT_READ | PROT_WRITE, memory->entries_size, (off_t)IORING_OFF_SQES);
	if (!rings.at || !entries.at)
		return fault_set(fault, FAULT_FAILED, errno, "io_uring: map it: %s", strerror(errno));
	const struct counter counter = { fd, rings.at, &memory->layout, (void *)entries.at, parameters->sq_entries, memory->no_array, deadline };
	int rc = count(&counter, uring_word(memory->rings, &memory->layout, URING_CQ_HEAD), posted, taken, fault);
	if (rc < 0)
		return rc;
	memcpy(rings.at, memory->rings, memory->rings_size);
	memcpy(entries.at, memory->entries, memory->entries_size);
	return 0;
}
