/* SPDX-License-Identifier: Apache-2.0 */
/* watchful [MIB [reaper|newpid|usual|pool]]: a program that would notice a fork that it did not make, with memory that cannot be tracked (it has a file open with O_DIRECT). A
 * line per round on standard output; ends when `go` exists, with 0 when nothing was wrong; `restored` says that it has been.
 *
 * It looks for children and their signals all the time; pipes and shared memory of one round are given up in the next, when nobody else may have
 * them; a second one of it would be seen in the file that each round is noted in. Parts of its memory are left out of forks, or empty after them.
 * usual: it looks for children as programs do, without __WALL; reaper: it adopts orphans (PR_SET_CHILD_SUBREAPER); newpid: its children would be born
 * into a PID namespace of their own; pool: it has four huge pages that it has not reserved, so that it is killed if it needs a fifth to write to them. */
#include "probe.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE_BYTES = 4096, PART_PAGES = 300, POOL_PAGES = 4 << 9 };

static volatile bool over;
static volatile int signals;

static void note_signal(int number)
{
	(void)number;
	signals = signals + 1;
}

static void *look_for_children(void *flags)
{
	while (!over) {
		int status;
		pid_t child = waitpid(-1, &status, WNOHANG | *(const int *)flags);
		if (child >= 0 || errno != ECHILD)
			probe_differs("a child: waitpid says %d", child);
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	return NULL;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static uint64_t asked, answered;

static void *answer(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	while (!over) {
		while (asked == answered && !over)
			pthread_cond_wait(&turn, &lock);
		answered = asked;
		pthread_cond_broadcast(&turn);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void ask(void)
{
	pthread_mutex_lock(&lock);
	asked++;
	pthread_cond_broadcast(&turn);
	while (asked != answered)
		pthread_cond_wait(&turn, &lock);
	pthread_mutex_unlock(&lock);
}

/* What only one process may have. */
struct belongings {
	int pipe[2], memory;
	char *mapped;
};

static struct belongings take(void)
{
	struct belongings new;
	PROBE(pipe(new.pipe));
	new.memory = PROBE(memfd_create("watched", MFD_ALLOW_SEALING));
	PROBE(ftruncate(new.memory, PAGE_BYTES));
	new.mapped = PROBE((char *)mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, new.memory, 0));
	*new.mapped = 1;
	return new;
}

static void give_up(struct belongings *old)
{
	close(old->pipe[1]);
	/* A restore closes its own a moment after the program has begun to run. */
	const int moment_ms = access("restored", F_OK) ? 0 : 1000;
	struct pollfd end = { .fd = old->pipe[0], .events = POLLIN };
	if (poll(&end, 1, moment_ms) != 1 || !(end.revents & POLLHUP))
		probe_differs("somebody else has the pipe");
	close(old->pipe[0]);
	munmap(old->mapped, PAGE_BYTES);
	if (fcntl(old->memory, F_ADD_SEALS, F_SEAL_WRITE) < 0)
		probe_differs("somebody else has the shared memory mapped: %s", strerror(errno));
	close(old->memory);
}

static void note_round(int file, uint64_t round)
{
	uint64_t last = 0;
	if (round && (pread(file, &last, sizeof last, (off_t)((round - 1) * sizeof last)) != sizeof last || last != round - 1))
		probe_differs("round %llu was noted as %llu", (unsigned long long)round - 1, (unsigned long long)last);
	if (pwrite(file, &round, sizeof round, (off_t)(round * sizeof round)) != sizeof round)
		probe_differs("note: %s", strerror(errno));
}

struct part {
	uint64_t *at;
	size_t pages;
};

static struct part map_part(size_t pages, int flags, int advice)
{
	uint64_t *at = PROBE((uint64_t *)mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0));
	if (advice)
		PROBE(madvise(at, pages * PAGE_BYTES, advice));
	for (size_t i = 0; i < pages; i++)
		at[i * PAGE_BYTES / sizeof *at] = i;
	return (struct part){ at, pages };
}

/* Every page holds its number and how often all were written; a piece at a time. */
static void write_part(const struct part *part, uint64_t round)
{
	const size_t pieces = 16, piece = round % pieces;
	const uint64_t times = round / pieces;
	for (size_t i = part->pages * piece / pieces; i < part->pages * (piece + 1) / pieces; i++) {
		uint64_t *word = part->at + i * PAGE_BYTES / sizeof *word;
		if (*word != i + (times << 32))
			probe_differs("page %zu of %zu: %llx in round %llu", i, part->pages, (unsigned long long)*word, (unsigned long long)round);
		*word = i + ((times + 1) << 32);
	}
}

int main(int argc, char **argv)
{
	const size_t pages = (size_t)(argc > 1 ? atoi(argv[1]) : 24) << 8;
	const char *what = argc > 2 ? argv[2] : "";
	struct part parts[4] = { map_part(pages, 0, MADV_NORMAL), map_part(PART_PAGES, 0, MADV_DONTFORK), map_part(PART_PAGES, 0, MADV_WIPEONFORK) };
	const int wall = strcmp(what, "usual") ? __WALL : 0;
	pthread_t threads[2];
	PROBE(open("direct", O_RDWR | O_CREAT | O_DIRECT, 0600));
	int notes = PROBE(open("notes", O_RDWR | O_CREAT, 0600));
	if (!strcmp(what, "pool"))
		parts[3] = map_part(POOL_PAGES, MAP_HUGETLB | MAP_NORESERVE, MADV_NORMAL);
	if (!strcmp(what, "reaper"))
		PROBE(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	signal(SIGCHLD, note_signal);
	PROBE_SAME(pthread_create(&threads[0], NULL, look_for_children, (void *)&wall), 0, "set-up");
	PROBE_SAME(pthread_create(&threads[1], NULL, answer, NULL), 0, "set-up");
	if (!strcmp(what, "newpid")) /* threads could not be made after that */
		PROBE(unshare(CLONE_NEWPID));
	struct belongings before = take();
	for (uint64_t round = 0; access(probe_go, F_OK); round++) {
		struct belongings now = take();
		ask();
		give_up(&before);
		before = now;
		note_round(notes, round);
		for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
			write_part(&parts[i], round);
		if (signals)
			probe_differs("SIGCHLD");
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		printf("round %llu\n", (unsigned long long)round);
	}
	over = true;
	ask();
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return probe_end();
}
