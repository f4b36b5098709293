/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One round of a snapshot, for the files that do it: slices.c deals the work out, a worker looks (snapshot.c), reads and stores (unit.c), and what
 * must wait is held back (hold.c). */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "capture/snapshot.h"
#include "kernel/pagemap.h"

enum {
	PAGE = PAGES_SIZE,
	UNIT_BYTES = PAGES_MOST * PAGE,
	EXTENTS = 512,              /* of one look at a pagemap */
	SLICE_BYTES = 16 << 20,     /* what a thread takes at a time */
	ROUND_SLICES = 128,         /* of one process, where they are small */
};

/* The work of one round, dealt out in slices under the lock. */
struct round {
	struct snapshot *snapshot;
	struct harvest *harvest; /* NULL: none takes guards */
	const struct snapshot_source *sources;
	size_t count;
	size_t expected;         /* bytes that a buffer will hold, whole pages */
	pthread_mutex_t lock;
	/* where it stands */
	size_t source;
	uint64_t at;
	pid_t pid;               /* whose pagemap is open, 0: none */
	struct pagemap pagemap;
	size_t workers;          /* how many have begun */
	uint64_t pages;
	bool failed;
	struct fault fault;
};

struct slice {
	const struct snapshot_source *source;
	uint64_t start, end;
};

/* Extents to be read at once, at most UNIT_BYTES. */
struct unit {
	uint32_t count, pages;
	struct { uint64_t address; uint32_t pages; } extents[PAGES_MOST_CHUNKS];
};

/* A process whose page frames are compared (kin.c). */
struct kin_view {
	pid_t pid; /* 0: none */
	int pagemap, memory; /* -1: not open */
};
enum { KIN_VIEWS = 1 + SNAPSHOT_ELDERS };

/* What a thread has at hand: the memory of the process that it was last at, its buffer, and what a slice came to. */
struct worker {
	struct round *round;
	uint8_t *buffer;
	pid_t pid;
	struct pagemap pagemap;
	int memory; /* /proc/PID/mem, -1: not open */
	const char *file_name;
	int file;   /* the file of that name, -1 */
	struct unit unit;
	page_places fresh;
	page_ranges seen, kept, spoiled;
	uint64_t pages;
	void *cursor; /* of the sink, for pages that are stored already */
	struct kin_view kin[KIN_VIEWS];
	uint8_t *kin_pages; /* two units; NULL: not needed yet */
	VEC(struct page_share) shares;
};

/* Ends the round: the first fault is its result. Thread-safe. */
void round_fail(struct round *round, const struct fault *fault);

/* What a round came to becomes the store's state. */
void store_settle(struct snapshot_store *store);

/* Has the process of @source, which runs, ended, or is it another program by now, as @rc says? One without an address space may not be looked at without capabilities in the
 * first user namespace (EACCES, kernel/ptrace.c, 6.18). If it has not, the last round says what is wrong. */
bool source_has_ended(const struct snapshot_source *source, int rc);

/* slices.c. Small mappings of one process go to one thread, which opens its memory once. Up to ROUND_SLICES of one process into @slices; 0: there are no
 * more, or the round has failed. Thread-safe. */
size_t round_take_slices(struct round *round, struct slice *slices);

/* unit.c. Adds [start, end) of @source to what the worker is to read; reads and stores when that is enough. */
int unit_add(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end, struct fault *fault);
/* Reads and stores what has been added. A running program may have unmapped it: that is left to the last round. */
int unit_flush(struct worker *worker, const struct snapshot_source *source, struct fault *fault);
/* The process whose memory the worker reads from now on. */
int worker_enter(struct worker *worker, pid_t pid, struct fault *fault);
void worker_leave(struct worker *worker);
/* Has the parent this page? Then it is named in @fresh, and not stored again. */
bool unit_is_known(const struct snapshot *snapshot, size_t store, void **cursor, uint64_t address, const void *page,
		   page_places *fresh);

/* kin.c. Those of @process, NULL: none; and which of them matter for a source that is one of its mappings. */
void kin_elders(const struct harvest *harvest, const struct frozen_process *process, const struct frozen_space *ret_elders[SNAPSHOT_ELDERS]);
void kin_choose(const struct frozen_space *const elders[SNAPSHOT_ELDERS], struct snapshot_source *source);
/* Notes what of [@start, @end) an elder has too, and calls @own_pages for the rest. Of a frozen tree only. */
typedef int (*kin_own)(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end, void *context, struct fault *fault);
int kin_sift(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end, kin_own own_pages, void *context,
	     struct fault *fault);
void kin_finish(struct worker *worker);

/* hold.c. Keeps the whole batch for later, or nothing: there is no more room. Thread-safe. */
bool hold_batch(struct round *round, size_t store, const struct page_batch *batch);
