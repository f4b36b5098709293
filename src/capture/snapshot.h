/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The pages of a tree, read by several threads and handed to a sink: private pages that exist and are not zero, and contents of
 * shared objects. Unmodified file pages, the zero page and pages full of zeros are not stored.
 *
 * Pages are collected in rounds, into one store for each address space or object. While the program runs, a round takes what is there
 * (LOOK_PROTECT) or what was written since the round before (LOOK_WRITTEN), and marks it so that the next one sees what is written
 * after it. The last round, of the frozen tree, takes what is new, and of all that was stored before only what the kernel says is
 * still there and unwritten remains. Without rounds before, the last one is LOOK_ALL. */
#include "base/clock.h"
#include "base/pages.h"
#include "base/progress.h"
#include "capture/places.h"
#include "kinds/kind.h"

enum snapshot_look {
	LOOK_ALL,     /* whatever is there */
	LOOK_PROTECT, /* the same, of a running program under write tracking: protected from now on */
	LOOK_WRITTEN, /* what was written since it was protected; protected again */
	LOOK_LAST,    /* the same of a frozen program, and what is there unwritten stays as it was stored */
};

enum { SNAPSHOT_ELDERS = 2 };

/* Pages that are stored with those of another. */
struct page_share {
	uint64_t start, end; /* bytes */
	size_t store;
};

/* A stretch of memory or of an object to look through. */
struct snapshot_source {
	size_t store;
	pid_t pid;           /* in whose memory it is; 0: in @fd */
	int fd;              /* -1, or of contents; borrowed */
	uint64_t shift;      /* from @start to where that is in the memory of @pid */
	bool by_force;       /* through /proc/PID/mem */
	uint32_t space;      /* whose guard regions these are */
	uint64_t start, end; /* bytes */
	const struct map *map; /* NULL: contents, all of which are to be read */
	enum snapshot_look look;
	const struct frozen_space *elders[SNAPSHOT_ELDERS]; /* whose pages may be the same since a fork (kin.c); NULL: no more */
};

struct snapshot_store {
	uint32_t parent_space; /* what it is in the parent image, 0: not in it */
	page_places places;   /* settled between rounds */
	page_ranges spoiled;  /* protected, but not stored: the last round takes all of it */
	page_places fresh;    /* of the round at work */
	page_ranges seen, kept;
	VEC(struct page_share) shares; /* of the last round, until kin_settle */
	bool last;            /* this round leaves only what is kept */
};

/* Memory that was touched before the freeze, in which pages wait until the program goes on again: what the sink has to wait for (a
 * disk, memory that the machine has to find first) is then nobody's pause. */
struct snapshot_hold {
	uint8_t *memory;
	size_t size, used; /* bytes */
	VEC(struct snapshot_held) held;
};
struct snapshot_held {
	size_t store;
	uint64_t address;
	uint32_t pages;
	size_t at; /* in the memory */
};

/* The address spaces of a parent image. */
struct snapshot_parent {
	pid_t pid;
	uint32_t space;
};

struct snapshot {
	const struct page_sink *sink;
	const struct deadline *deadline;
	struct progress *progress; /* NULL: nobody is told */
	unsigned threads;
	struct snapshot_hold hold;
	VEC(uint8_t *) buffers; /* of the worker threads, kept from round to round: memory that was touched once is warm */
	VEC(struct snapshot_store) stores;
	bool stands;       /* the tree stands still now, and waits for us */
	bool unsettled;    /* of the last round, what stays of the rounds before has yet to be found (snapshot_give_out) */
	bool asks_changed; /* the last round asks what has changed, and page by page only of that (feature_changed) */
	VEC(struct snapshot_parent) parents; /* where to look for pages that are stored already (sink->known) */
};
/* From now on pages are held back, as far as @bytes go. Without memory for it the sink gets them at once. */
void snapshot_hold_back(struct snapshot *snapshot, size_t bytes);
/* Gives the sink what was held back. */
int snapshot_give_out(struct snapshot *snapshot, struct fault *fault);
size_t snapshot_add_store(struct snapshot *snapshot, pid_t pid); /* 0: of an object */
void snapshot_finish(struct snapshot *snapshot);

/* One round over @sources. Running programs may change their mappings meanwhile: what cannot be read is left to the last round.
 * Guard regions are added to @harvest (NULL in rounds of a running program). *ret_pages: read in this round. */
int snapshot_round(struct snapshot *snapshot, const struct snapshot_source *sources, size_t count,
		   struct harvest *harvest, uint64_t *ret_pages, struct fault *fault);

/* Are pages of this mapping an address space's own? Everything shared is an object. */
bool snapshot_is_private(const struct map *map);
/* process_vm_readv(2) is the faster way to read, but it takes its own copy of every page that is shared copy-on-write (mm/gup.c
 * gup_must_unshare, 6.18), and it cannot read where there is no PROT_READ. */
bool snapshot_needs_force(const struct map *map);
/* The last round: all address spaces (with the stores that frozen_space names) and contents of a frozen tree, but for what their twins have. */
int snapshot_tree(struct snapshot *snapshot, struct harvest *harvest, uint64_t *ret_pages, struct fault *fault);
/* When the program runs on: gives out what was held back, and adds what the twins of address spaces have. They have to live until it is done (twins_live). */
int snapshot_twins(struct snapshot *snapshot, struct harvest *harvest, uint64_t *ret_pages, struct fault *fault);
/* kin.c. Does @process have this mapping from its parent, and most of its pages with it? */
bool kin_is_heir(const struct frozen_process *process, const struct map *map);
/* When all pages of the frozen tree are stored: those that relatives share become each one's. */
void kin_settle(struct snapshot *snapshot, const struct harvest *harvest);
/* Records of what only the pages showed. */
int snapshot_late_records(struct harvest *harvest, struct fault *fault);
