/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One newborn process while it is made, and what all of them share. */
#include <stddef.h>
#include <assert.h>

#include "rebuild/plan.h"
#include "rebuild/rebuild.h"

struct rebuild_thread {
	struct newborn_thread newborn;
	const struct plan_thread *plan;
	struct registers final; /* with which it starts to run */
};

/* What a process has from its parent (heritage.h). Ranges are ascending. */
struct heritage_range {
	uint64_t start, end;
};
typedef VEC(struct heritage_range) heritage_ranges;
struct heritage {
	heritage_ranges mappings; /* that it keeps: each lies in one of its own and in one of the parent's */
	heritage_ranges pages;    /* in them */
	heritage_ranges foreign;  /* pages in them that the parent has and it has not */
	/* Of a parent of heirs: pages that it has only while they are born, as its first child has them, because others of its children have the same.
	 * They are those that it overwrote after it had borne them. */
	heritage_ranges seeds;
	uint32_t seeds_of; /* space of that child, 0: none */
};

/* What of a process's memory is mapped from the image (mapped.h). Ascending. */
struct mapped_run {
	uint64_t start, end;
	uint64_t offset; /* in the image */
};
typedef VEC(struct mapped_run) mapped_runs;
struct mapped {
	mapped_runs runs;
	heritage_ranges ranges; /* the same, neighbours joined */
	size_t next;            /* run to be mapped */
};

struct rebuild_process {
	struct newborn_process newborn;
	const struct plan_process *plan;
	struct rebuild_process *parent, *first_child, *last_child, *next_sibling;
	VEC(struct rebuild_thread *) threads; /* those that live; the leader first */
	bool made, ended; /* ended: a zombie */
	bool killed;      /* by one that was let go before it */
	bool is_heir, bears_heirs;
	bool is_loaded; /* it has its mappings and pages before the others */
	struct heritage heritage;
	struct mapped mapped;
	const struct template *template; /* what clones have in common, which it is born with (template.h); NULL: nothing */
	const heritage_ranges *held;     /* what of it is this process's own, NULL: nothing */
	bool has_signals; /* those of the process are queued already */
};

static inline const struct rebuild_process *rebuild_process_of(const struct newborn_process *newborn)
{
	return (const struct rebuild_process *)((const char *)newborn - offsetof(struct rebuild_process, newborn));
}

struct rebuild {
	const struct plan *plan;
	const struct image_reader *reader;
	struct rebuild_options options;
	struct arena arena;
	struct workshop workshop;
	VEC(struct rebuild_process *) processes; /* as in the plan */
	uint64_t code, area;  /* where the stub lies in every newborn */
	uint64_t mark;        /* and base/mapped.h's, where something is mapped from the image */
	bool is_mapped;       /* something is */
	int outbox, inbox;    /* the socket by which descriptors are handed over: Cairn's end, and the newborns' end */
	int inbox_number;     /* of the inbox in the newborns: above all their own descriptors */
	uint64_t own_rseq;    /* what a child of this process inherits */
	uint32_t own_rseq_size;
	const struct plan_record **files; /* by id */
	uint64_t begin_ns;
	uint64_t pages;
	bool stub_here; /* the stub is mapped in Cairn itself, for the root to inherit */
	bool released;
	struct pager *pager; /* that loads memory behind the running program, NULL: none */
};

static inline const struct plan_record *rebuild_file(const struct rebuild *rebuild, uint32_t id)
{
	return rebuild->files[id];
}

enum { NEWBORN_CODE_SIZE = 4096 };
static inline uint64_t newborn_trap(const struct newborn_process *process)
{
	return process->code + (uint64_t)(stub_trap - stub_begin);
}

/* Every process is given its leader when it is planned (rebuild.c add_process). */
static inline struct newborn_thread *newborn_leader(const struct rebuild_process *process)
{
	assert(process->threads.at);
	return &process->threads.at[0]->newborn;
}
/* The processes of a plan, before anything is made: for looking at. rebuild_free frees it. */
struct rebuild *rebuild_lay_out(const struct plan *plan, const struct image_reader *reader);
/* A hole of @size bytes in every address space to be made, and in this one. */
int rebuild_find_hole(const struct plan *plan, uint64_t size, uint64_t *ret_start, struct fault *fault);
/* A batch of the process, ready to be filled. */
void newborn_batch(const struct newborn_process *process, struct batch *ret_batch);
/* The same as newborn_run for a batch whose results nobody wants to see; takes @batch. Cairn goes on meanwhile, and waits for its end (land) before it
 * makes any newborn run again. Faults of it may be told by then. */
int newborn_launch(struct newborn_thread *thread, struct batch *batch, struct fault *fault);
int newborn_land(struct workshop *workshop, struct fault *fault);
/* Runs a batch in which new tasks are born (clone3): they are stopped when it ends; their ids in order of birth. */
int newborn_run_births(struct newborn_thread *thread, struct batch *batch, struct pid_list *births,
		       struct fault *fault);
/* Runs a batch that may end in an exec: the leader of a process with one thread then stands at its event. */
int newborn_run_exec(struct newborn_thread *thread, struct batch *batch, bool *ret_executed, struct fault *fault);
/* A freshly born task: waits for its first stop and takes its registers. */
int newborn_arrive(struct newborn_thread *thread, struct fault *fault);

/* seat.c: the processor that Cairn and its newborns share while they work by turns. find: and takes it. What many threads do is done between leave and take. */
void seat_find(struct workshop *workshop);
void seat_take(const struct workshop *workshop);
void seat_leave(const struct workshop *workshop);
int seat_let_go(const struct newborn_thread *thread, struct fault *fault); /* for ever, with the processors that it is to have */

/* spawn.c */
int spawn_tree(struct rebuild *rebuild, struct fault *fault);
int spawn_terminals(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int spawn_groups(struct rebuild *rebuild, struct fault *fault);
int spawn_threads(struct rebuild_process *process, struct fault *fault);
/* numbers.c: --pids any */
void numbers_note(struct rebuild_process *process, size_t thread, uint32_t old_id, pid_t new_id);
int numbers_settle(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
/* exec.c: --pids any. exec_call: one system call by an instruction that the address space has anyway, from and to a stop without a pending call. */
int exec_own_program(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int exec_begin(struct newborn_thread *thread, long number, const uint64_t args[6], struct fault *fault); /* only up to its entry */
int exec_call(struct newborn_thread *thread, long number, const uint64_t args[6], long *ret_result, struct fault *fault);
/* space.c */
int space_map(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int space_settle(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int space_return(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault); /* what was lent; when all spaces are settled */
/* placement.c: mappings whose place only the kernel may choose; when all others are there. Their flags are calls of @batch. */
bool placement_is_wanted(const struct plan_record *record);
int placement_map(struct rebuild *rebuild, struct rebuild_process *process, struct batch *batch, struct fault *fault);
/* fill.c */
int fill_pages(struct rebuild *rebuild, struct fault *fault); /* all that is not there yet */
int fill_process(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault); /* its private memory alone */
/* descriptors.c: hands over descriptors; they arrive as the lowest free numbers in the order given. */
int descriptors_send(struct rebuild *rebuild, struct rebuild_process *process, const int *fds, size_t count,
		     struct fault *fault);
int descriptors_place(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
/* finish.c. finish_prepare: the last calls, and what lies in memory; finish_unmap: the stub; finish_process: registers. finish_ended: a first thread that had ended does so; from then on another one answers for the process. */
int finish_ended(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int finish_prepare(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int finish_unmap(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int finish_process(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
int finish_thread_state(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault);
