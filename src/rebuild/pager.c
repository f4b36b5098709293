/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "kernel/procfs.h"
#include "rebuild/pending.h"

struct pager {
	int commit; /* the pipe's write end */
	pid_t guard;
	VEC(int) held;
};

/* One address space: of a newborn, or of a child that was forked meanwhile. */
struct paged_space {
	uint32_t space;
	int userfaultfd; /* -1: it is gone */
	struct pending pending;
};

struct server {
	const struct image_reader *reader;
	size_t block_count;
	const struct image_block *blocks;
	pthread_rwlock_t lock; /* for reading: pages may be put; for writing: events are read and what they say is noted */
	VEC(struct paged_space *) spaces;
	VEC(struct uffd_msg) faults; /* with the number of the space in the reserved field; of the serving thread */
	atomic_size_t left;    /* blocks that no worker has taken yet */
	unsigned threads;      /* to load the rest with */
	atomic_size_t workers; /* that still load */
	atomic_bool failed;
	atomic_uchar *loaded;  /* by block */
};

enum { STATUS_DONE = 0, STATUS_FAILED = 1 };
enum { ABANDONED = 1 }; /* of serve: there was never a program that ran */

/* ---- putting pages ---- */

struct delivery {
	struct server *server;
	bool again; /* events have to be read first */
};

/* Where a run of pages of the image is now, in one space. The lock is held for reading. */
static enum faults_put put_chunk(struct paged_space *space, const struct page_chunk *chunk)
{
	uint64_t end = chunk->address + (uint64_t)chunk->pages * PAGES_SIZE;
	for (size_t i = 0; i < space->pending.parts.count; i++) {
		const struct pending_part *part = &space->pending.parts.at[i];
		uint64_t old_end = part->old + (part->end - part->start);
		uint64_t from = chunk->address > part->old ? chunk->address : part->old, to = end < old_end ? end : old_end;
		if (from >= to)
			continue;
		enum faults_put put = faults_put(space->userfaultfd, from - part->old + part->start,
						 (const uint8_t *)chunk->data + (from - chunk->address),
						 (uint32_t)((to - from) / PAGES_SIZE));
		if (put != PUT_DONE)
			return put;
	}
	return PUT_DONE;
}

static int deliver(void *context, const struct page_batch *batch, struct fault *fault)
{
	struct delivery *delivery = context;
	struct server *server = delivery->server;
	int rc = 0;
	pthread_rwlock_rdlock(&server->lock);
	for (size_t s = 0; rc == 0 && s < server->spaces.count; s++) {
		struct paged_space *space = server->spaces.at[s];
		if (space->space != batch->space || space->userfaultfd < 0)
			continue;
		for (uint32_t i = 0; rc == 0 && i < batch->count; i++) {
			enum faults_put put = put_chunk(space, &batch->chunks[i]);
			if (put == PUT_GONE)
				break;
			if (put == PUT_AGAIN)
				delivery->again = true;
			if (put == PUT_FAILED)
				rc = fault_set(fault, FAULT_FAILED, errno, "userfaultfd: %s", strerror(errno));
		}
	}
	pthread_rwlock_unlock(&server->lock);
	return rc;
}

/* One block, everywhere it belongs. 0; 1: not all of it, a change of the address space has to be read first, or there was no memory. */
static int load_block(struct server *server, size_t index, void *buffer)
{
	struct delivery delivery = { server, false };
	const struct page_taker taker = { deliver, &delivery };
	struct fault fault;
	int rc = image_reader_pages(server->reader, index, buffer, &taker, &fault);
	if (rc == -ENOMEM) { /* of the program's memory cgroup, or the machine: it may pass */
		clock_sleep_ns(10000000);
		return 1;
	}
	if (rc == 0 && !delivery.again)
		atomic_store(&server->loaded[index], 1);
	return rc < 0 ? rc : delivery.again;
}

/* As load_block, until it is all there. Not by the serving thread, which reads the changes. */
static int load_block_whole(struct server *server, size_t index, void *buffer)
{
	for (;;) {
		int rc = load_block(server, index, buffer);
		if (rc <= 0)
			return rc;
		clock_sleep_ns(100000);
	}
}

static void *load_rest(void *context)
{
	struct server *server = context;
	void *buffer = mmap(NULL, IMAGE_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t left = atomic_load(&server->left); buffer != MAP_FAILED && left > 0 && !atomic_load(&server->failed);) {
		if (!atomic_compare_exchange_weak(&server->left, &left, left - 1))
			continue;
		size_t index = left - 1; /* from the end: what was written last by the program was stored last */
		if (!atomic_load(&server->loaded[index]) && load_block_whole(server, index, buffer) < 0)
			atomic_store(&server->failed, true);
		left = atomic_load(&server->left);
	}
	if (buffer == MAP_FAILED)
		atomic_store(&server->failed, true);
	atomic_fetch_sub(&server->workers, 1);
	return NULL;
}

/* ---- events ---- */

static void add_child(struct server *server, size_t parent, int userfaultfd)
{
	const struct paged_space *space = server->spaces.at[parent];
	struct paged_space *child = memory_new(sizeof *child);
	child->space = space->space;
	child->userfaultfd = userfaultfd;
	fcntl(userfaultfd, F_SETFL, O_NONBLOCK);
	pending_copy(&space->pending, &child->pending);
	*vec_add(&server->spaces) = child;
}

static void take_event(struct server *server, size_t index, const struct uffd_msg *message)
{
	struct paged_space *space = server->spaces.at[index];
	switch (message->event) {
	case UFFD_EVENT_PAGEFAULT:
		*vec_add(&server->faults) = *message;
		server->faults.at[server->faults.count - 1].reserved3 = (uint32_t)index;
		break;
	case UFFD_EVENT_FORK:
		add_child(server, index, (int)message->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		pending_move(&space->pending, message->arg.remap.from, message->arg.remap.to, message->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		pending_remove(&space->pending, message->arg.remove.start, message->arg.remove.end);
		break;
	}
}

static void read_events(struct server *server)
{
	pthread_rwlock_wrlock(&server->lock);
	for (size_t i = 0; i < server->spaces.count; i++) {
		struct uffd_msg message;
		while (server->spaces.at[i]->userfaultfd >= 0 &&
		       read(server->spaces.at[i]->userfaultfd, &message, sizeof message) == sizeof message)
			take_event(server, i, &message);
	}
	pthread_rwlock_unlock(&server->lock);
}

/* A page that the image does not have, or that was given back. false: a change of the address space has to be read first. */
static bool put_zeros(const struct paged_space *space, uint64_t address)
{
	struct uffdio_zeropage zero = { .range = { address, PAGES_SIZE } };
	while (ioctl(space->userfaultfd, UFFDIO_ZEROPAGE, &zero) < 0) {
		if (errno == EAGAIN)
			return false;
		if (errno != EINTR)
			break;
	}
	return true;
}

/* Who waits for the page at @address is woken by whoever puts it; what he waits for may also be there already. */
static int serve_fault(struct server *server, struct uffd_msg message, void *buffer)
{
	uint64_t address = message.arg.pagefault.address & ~(uint64_t)(PAGES_SIZE - 1), old;
	const struct paged_space *space = server->spaces.at[message.reserved3];
	int rc = 1;
	while (rc > 0) {
		size_t index;
		pthread_rwlock_rdlock(&server->lock);
		bool stored = pending_old(&space->pending, address, &old) &&
			      image_reader_find(server->reader, space->space, old, &index);
		if (!stored)
			rc = !put_zeros(space, address);
		pthread_rwlock_unlock(&server->lock);
		if (stored)
			rc = load_block(server, index, buffer);
		if (rc > 0)
			read_events(server);
	}
	struct uffdio_range range = { address, PAGES_SIZE };
	ioctl(space->userfaultfd, UFFDIO_WAKE, &range);
	return rc;
}

/* Not before the program runs: until then its making should not wait for anybody. */
static void start_workers(struct server *server)
{
	pthread_t thread;
	atomic_store(&server->workers, server->threads);
	for (unsigned i = 0; i < server->threads; i++)
		if (pthread_create(&thread, NULL, load_rest, server))
			atomic_fetch_sub(&server->workers, 1);
}

static int serve(struct server *server, int commit, void *buffer)
{
	VEC(struct pollfd) polled = { 0 };
	bool committed = false;
	int rc = 0;
	while (rc == 0 && (!committed || atomic_load(&server->workers)) && !atomic_load(&server->failed)) {
		polled.count = 0;
		*vec_add(&polled) = (struct pollfd){ .fd = committed ? -1 : commit, .events = POLLIN };
		for (size_t i = 0; i < server->spaces.count; i++)
			*vec_add(&polled) = (struct pollfd){ .fd = server->spaces.at[i]->userfaultfd, .events = POLLIN };
		if (poll(polled.at, polled.count, 20) < 0 && errno != EINTR)
			rc = -errno;
		char word;
		if (!committed && polled.at[0].revents) {
			if (read(commit, &word, 1) != 1) {
				rc = ABANDONED; /* Cairn gave up, or died: so did the newborns */
				break;
			}
			committed = true;
			start_workers(server);
		}
		read_events(server);
		for (size_t i = 0; rc == 0 && i < server->faults.count; i++)
			rc = serve_fault(server, server->faults.at[i], buffer);
		server->faults.count = 0;
	}
	vec_finish(&polled);
	return rc < 0 || atomic_load(&server->failed) ? -EIO : rc;
}

/* ---- the processes ---- */

/* What of the image belongs into a space, as its mappings are at the start. */
static void note_pending(const struct image_reader *reader, const struct fault_space *from, struct paged_space *space)
{
	const struct image_place *places;
	size_t count = image_reader_places(reader, &places);
	struct pending *pending = &space->pending;
	for (size_t i = 0; i < count; i++) {
		uint64_t start = places[i].at.address, end = start + (uint64_t)places[i].at.pages * PAGES_SIZE;
		while (places[i].space == space->space && start < end) {
			bool covered, joined = false;
			uint64_t edge = faults_stretch(from, start, end, &covered);
			/* Runs of neighbours, also over holes that hold nothing: those are zeros in any case. */
			struct pending_part *last = pending->parts.count ? &pending->parts.at[pending->parts.count - 1] : NULL;
			if (covered && last && faults_stretch(from, last->start, edge, &joined) == edge && joined)
				last->end = edge;
			else if (covered)
				pending_add(pending, start, edge, start);
			start = edge;
		}
	}
}

static int compare_ints(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Nothing of Cairn's stays open here but what is needed: an end of a pipe would keep somebody waiting. */
static void close_others(const int *kept, size_t count)
{
	_free_ int *sorted = memory_new(count * sizeof *sorted);
	unsigned next = 3;
	memcpy(sorted, kept, count * sizeof *sorted);
	qsort(sorted, count, sizeof *sorted, compare_ints);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	for (size_t i = 0; i < count; i++) {
		if ((unsigned)sorted[i] > next)
			syscall(SYS_close_range, next, (unsigned)sorted[i] - 1, 0);
		next = (unsigned)sorted[i] + 1;
	}
	syscall(SYS_close_range, next, ~0u, 0);
}

static void become_own(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "cairn-pager");
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	if (chdir("/") < 0) {
		/* Then a file system stays in use for some seconds longer. */
	}
}

/* The pager's end is its exit status. */
__attribute__((noreturn)) static void run_pager(const struct rebuild *rebuild, const struct fault_space *spaces, size_t count,
						int commit)
{
	enum { MOST_THREADS = 16 };
	struct server server = { .reader = rebuild->reader };
	pthread_rwlockattr_t attributes;
	pthread_rwlockattr_init(&attributes);
	/* Changes are read as soon as they come, however busily pages are put. */
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&server.lock, &attributes);
	server.block_count = image_reader_blocks(rebuild->reader, &server.blocks);
	server.loaded = memory_new(server.block_count + 1);
	for (size_t i = 0; i < count; i++) {
		struct paged_space *space = memory_new(sizeof *space);
		space->space = spaces[i].space;
		space->userfaultfd = spaces[i].userfaultfd;
		note_pending(rebuild->reader, &spaces[i], space);
		*vec_add(&server.spaces) = space;
	}
	void *buffer = mmap(NULL, IMAGE_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	server.threads = rebuild->options.threads < MOST_THREADS ? rebuild->options.threads : MOST_THREADS;
	atomic_store(&server.left, server.block_count);
	int rc = buffer == MAP_FAILED ? -ENOMEM : serve(&server, commit, buffer);
	/* Without a thread to load the rest it has not been loaded. */
	_exit(rc < 0 || (rc != ABANDONED && atomic_load(&server.left)) ? STATUS_FAILED : STATUS_DONE);
}

/* What it has started, and that in turn. Its number is its own as long as its parent, who stands still, has not reaped it. */
static void kill_children(pid_t pid)
{
	struct pid_list children = { 0 };
	if (proc_children(pid, &children, NULL) == 0)
		for (size_t i = 0; i < children.pids.count; i++) {
			kill(children.pids.at[i], SIGSTOP);
			kill_children(children.pids.at[i]);
			kill(children.pids.at[i], SIGKILL);
		}
	vec_finish(&children.pids);
}

/* Memory that was promised will not come. */
static void kill_program(const struct fault_space *space)
{
	if (syscall(SYS_pidfd_send_signal, space->pidfd, SIGSTOP, NULL, 0) < 0)
		return;
	kill_children(space->pid);
	syscall(SYS_pidfd_send_signal, space->pidfd, SIGKILL, NULL, 0);
}

__attribute__((noreturn)) static void run_guard(const struct rebuild *rebuild, const struct fault_space *spaces, size_t count,
						int commit)
{
	size_t files;
	int *images = image_reader_fds(rebuild->reader, &files), *kept = memory_new((2 * count + 1 + files) * sizeof *kept);
	for (size_t i = 0; i < count; i++) {
		kept[2 * i] = spaces[i].userfaultfd;
		kept[2 * i + 1] = spaces[i].pidfd;
	}
	kept[2 * count] = commit;
	memcpy(kept + 2 * count + 1, images, files * sizeof *images);
	become_own();
	close_others(kept, 2 * count + 1 + files);
	free(images);
	free(kept);
	pid_t pager = fork();
	if (pager == 0)
		run_pager(rebuild, spaces, count, commit);
	int status = -1;
	while (pager > 0 && waitpid(pager, &status, 0) < 0 && errno == EINTR)
		;
	/* A newborn's descriptors are still held here, so that nothing has seen zeros yet. */
	for (size_t i = 0; i < count && status != 0; i++)
		kill_program(&spaces[i]);
	_exit(status == 0 ? STATUS_DONE : STATUS_FAILED);
}

int pager_start(const struct rebuild *rebuild, const struct fault_space *spaces, size_t count, struct pager **ret_pager,
		struct fault *fault)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	pid_t guard = fork();
	if (guard == 0)
		run_guard(rebuild, spaces, count, ends[0]);
	close(ends[0]);
	if (guard < 0) {
		close(ends[1]);
		return fault_set(fault, FAULT_FAILED, errno, "fork: %s", strerror(errno));
	}
	struct pager *pager = memory_new(sizeof *pager);
	pager->commit = ends[1];
	pager->guard = guard;
	for (size_t i = 0; i < count; i++)
		*vec_add(&pager->held) = fcntl(spaces[i].userfaultfd, F_DUPFD_CLOEXEC, 3);
	*ret_pager = pager;
	return 0;
}

void pager_commit(struct pager *pager)
{
	while (write(pager->commit, "c", 1) < 0 && errno == EINTR)
		;
}

pid_t pager_watch(const struct pager *pager, int **ret_held, size_t *ret_count)
{
	*ret_count = pager->held.count;
	*ret_held = memory_new((pager->held.count + 1) * sizeof **ret_held);
	for (size_t i = 0; i < pager->held.count; i++)
		(*ret_held)[i] = fcntl(pager->held.at[i], F_DUPFD_CLOEXEC, 3);
	return pager->guard;
}

void pager_free(struct pager *pager)
{
	if (!pager)
		return;
	for (size_t i = 0; i < pager->held.count; i++)
		close(pager->held.at[i]);
	vec_finish(&pager->held);
	close(pager->commit);
	free(pager);
}
