/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/rebuild.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "kernel/host.h"
#include "kernel/features.h"
#include "kernel/maps.h"
#include "kernel/vdso.h"
#include "rebuild/heritage.h"
#include "rebuild/mapped.h"
#include "rebuild/pager.h"
#include "rebuild/template.h"

/* ---- what can be prepared before anything exists ---- */

/* Files that are put back come before all that has them open: one that is gone is there then, and nobody but somebody else has it open yet. */
static int make_objects(struct rebuild *rebuild, bool put_back, struct fault *fault)
{
	const struct plan *plan = rebuild->plan;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < plan->objects.count; i++) {
		const struct plan_record *record = &plan->objects.at[i];
		if (put_back == (record->kind->puts_back != NULL))
			rc = record->kind->make(&rebuild->workshop, record->message, fault);
	}
	return rc;
}

static int make_workshop(struct rebuild *rebuild, struct fault *fault)
{
	const struct plan *plan = rebuild->plan;
	int made = make_objects(rebuild, true, fault);
	if (made == 0)
		made = make_objects(rebuild, false, fault);
	if (made < 0)
		return made;
	for (size_t i = 0; i < plan->files.count; i++) {
		const struct plan_record *record = &plan->files.at[i];
		int rc = record->kind->before_births ? record->kind->make(&rebuild->workshop, record->message, fault) : 0;
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < plan->files.count; i++) {
		const struct plan_record *record = &plan->files.at[i];
		int rc = record->kind->join ? record->kind->join(&rebuild->workshop, record->message, fault) : 0;
		if (rc < 0)
			return rc;
	}
	workshop_births(&rebuild->workshop);
	return 0;
}

static void index_files(struct rebuild *rebuild)
{
	const struct plan *plan = rebuild->plan;
	rebuild->files = memory_new((plan->highest_id + 1) * sizeof *rebuild->files);
	const ProtobufCMessage **messages = ARENA_ARRAY(&rebuild->arena, const ProtobufCMessage *, plan->highest_id + 1);
	for (size_t i = 0; i < plan->files.count; i++) {
		const struct plan_record *record = &plan->files.at[i];
		uint32_t id = kind_owner(record->kind, record->message);
		rebuild->files[id] = record;
		messages[id] = record->message;
	}
	rebuild->workshop.files = messages;
	rebuild->workshop.file_space = plan->highest_id + 1;
}

/* Open files are made when the contents of the objects are there: a sealed or deleted one is opened through its object. */
static int make_files(struct rebuild *rebuild, struct fault *fault)
{
	const struct plan *plan = rebuild->plan;
	for (size_t i = 0; i < plan->files.count; i++) {
		const struct plan_record *record = &plan->files.at[i];
		int rc = record->redirect ? redirect_make(&rebuild->workshop, record, fault) : record->kind->before_births ? 0 :
			 record->kind->make(&rebuild->workshop, record->message, fault);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < plan->files.count; i++) {
		const struct plan_record *record = &plan->files.at[i];
		int rc = record->kind->settle && !record->redirect ? record->kind->settle(&rebuild->workshop, record->message, fault) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int set_owners(struct rebuild *rebuild, struct fault *fault)
{
	const struct plan *plan = rebuild->plan;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < plan->files.count; i++)
		rc = kind_set_owner(&rebuild->workshop, plan->files.at[i].kind, plan->files.at[i].message, fault);
	return rc;
}

static int settle_objects(struct rebuild *rebuild, struct fault *fault)
{
	const struct plan *plan = rebuild->plan;
	for (size_t i = 0; i < plan->objects.count; i++) {
		const struct plan_record *record = &plan->objects.at[i];
		int rc = record->kind->settle ? record->kind->settle(&rebuild->workshop, record->message, fault) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

struct range {
	uint64_t start, end;
};

static int range_compare(const void *a, const void *b)
{
	uint64_t x = ((const struct range *)a)->start, y = ((const struct range *)b)->start;
	return (x > y) - (x < y);
}

int rebuild_find_hole(const struct plan *plan, uint64_t size, uint64_t *ret_start, struct fault *fault)
{
	const uint64_t lowest = UINT64_C(1) << 20, user_end = UINT64_C(1) << 47;
	VEC(struct range) taken = { 0 };
	struct arena arena = { 0 };
	struct map_list own = { 0 };
	int rc = maps_read(getpid(), MAPS_PLACES, &arena, &own, fault);
	for (size_t i = 0; rc == 0 && i < own.maps.count; i++)
		*vec_add(&taken) = (struct range){ own.maps.at[i].start, own.maps.at[i].end };
	for (size_t s = 0; s < plan->spaces.count; s++) {
		const struct plan_space *space = plan->spaces.at[s];
		for (size_t i = 0; i < space->records.count; i++) {
			const ProtobufCMessage *message = space->records.at[i].message;
			if (message->descriptor == &cairn__vma__descriptor) {
				const Cairn__Vma *vma = (const Cairn__Vma *)message;
				*vec_add(&taken) = (struct range){ vma->start, vma->end };
			} else if (message->descriptor == &cairn__address_space__descriptor) {
				const Cairn__AddressSpace *whole = (const Cairn__AddressSpace *)message;
				uint64_t start = whole->vvar ? whole->vvar : whole->vdso;
				*vec_add(&taken) = (struct range){ start, whole->vdso + (1 << 16) };
			}
		}
	}
	if (taken.count)
		qsort(taken.at, taken.count, sizeof *taken.at, range_compare);
	uint64_t at = lowest;
	for (size_t i = 0; i < taken.count; i++) {
		if (taken.at[i].start > at && taken.at[i].start - at >= size)
			break;
		if (taken.at[i].end > at)
			at = taken.at[i].end;
	}
	vec_finish(&taken);
	maps_finish(&own);
	arena_finish(&arena);
	if (rc == 0 && (size > user_end || at > user_end - size))
		rc = fault_set(fault, FAULT_FAILED, ENOMEM, "no hole of %llu bytes in its address spaces", (unsigned long long)size);
	*ret_start = at;
	return rc;
}

static int choose_place(struct rebuild *rebuild, struct fault *fault)
{
	uint64_t at = 0;
	int rc = rebuild_find_hole(rebuild->plan, NEWBORN_CODE_SIZE + BATCH_AREA + 2 * VDSO_MOST + 16384, &at, fault);
	rebuild->code = at + 4096;
	rebuild->area = rebuild->code + NEWBORN_CODE_SIZE;
	rebuild->workshop.vdso.place = rebuild->area + BATCH_AREA + 4096;
	rebuild->mark = rebuild->workshop.vdso.place + 2 * VDSO_MOST + 4096;
	return rc;
}

static int redirect_vdso(struct rebuild *rebuild, struct fault *fault)
{
	char why[128] = "";
	struct host_vdso here;
	host_vdso_read(&here);
	const uint8_t *found = here.code ? memmem(here.code, here.size, registers_syscall_instruction, REGISTERS_SYSCALL_SIZE) : NULL;
	rebuild->workshop.vdso.instruction = found ? (uint64_t)(found - here.code) : 0;
	rebuild->workshop.vdso.size = rebuild->plan->info->vdso_code.len;
	if (!plan_redirect_vdso(rebuild->plan, rebuild->workshop.vdso.place, &rebuild->workshop.vdso.code, why, sizeof why))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "the vdso here differs from the image's, and %s", why);
	if (rebuild->workshop.vdso.code)
		log_info("restore: the vdso of kernel %s leads into the one here", rebuild->plan->info->kernel_release);
	return 0;
}

/* Mapped here, so that the root inherits it. */
static int map_stub(struct rebuild *rebuild, struct fault *fault)
{
	/* One mapping: a program may have as many as vm.max_map_count permits, and one more (mm/mmap.c do_mmap). */
	void *code = mmap((void *)(uintptr_t)rebuild->code, NEWBORN_CODE_SIZE + BATCH_AREA, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (code == MAP_FAILED)
		return fault_set(fault, FAULT_FAILED, errno, "map the stub at 0x%llx: %s",
				 (unsigned long long)rebuild->code, strerror(errno));
	rebuild->stub_here = true;
	memcpy(code, stub_begin, (size_t)(stub_end - stub_begin));
	return 0;
}

static void unmap_stub_here(struct rebuild *rebuild)
{
	if (rebuild->stub_here)
		munmap((void *)(uintptr_t)rebuild->code, NEWBORN_CODE_SIZE + BATCH_AREA);
	rebuild->stub_here = false;
}

/* Cairn holds every object and open file for a while. */
static void raise_descriptors(const struct plan *plan)
{
	struct rlimit limit;
	size_t most = plan->objects.count * 2 + plan->files.count * 2 + plan->highest_fd + 64;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && most >= limit.rlim_cur) {
		limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Newborns have Cairn's limit until they get their own, and lock memory before. */
static void raise_locked_memory(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_MEMLOCK, &limit);
	}
}

static int open_inbox(struct rebuild *rebuild, struct fault *fault)
{
	const struct plan *plan = rebuild->plan;
	int ends[2];
	struct rlimit limit;
	size_t number = plan->highest_fd + 1;
	if (number < plan->objects.count + 1)
		number = plan->objects.count + 1;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && number >= limit.rlim_cur)
		return fault_set(fault, FAULT_FAILED, EMFILE,
				 "needs %zu descriptors, and the limit here is %llu; try to raise `ulimit -Hn`", number,
				 (unsigned long long)limit.rlim_cur);
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "socketpair: %s", strerror(errno));
	rebuild->outbox = ends[0];
	rebuild->inbox = ends[1];
	rebuild->inbox_number = (int)number;
	return 0;
}

static void note_own_rseq(struct rebuild *rebuild)
{
	/* glibc 2.35: sys/rseq.h. Weak, so that another libc, which registers none, links as well. */
	extern const ptrdiff_t __rseq_offset __attribute__((weak));
	extern const unsigned int __rseq_size __attribute__((weak));
	if (!&__rseq_offset || !&__rseq_size || !__rseq_size)
		return;
	rebuild->own_rseq = (uint64_t)((uintptr_t)__builtin_thread_pointer() + (uintptr_t)__rseq_offset);
	/* It reports the size in use; what is registered is the whole structure of 32 bytes (glibc 2.36 sysdeps/unix/sysv/linux/rseq-internal.h). */
	rebuild->own_rseq_size = 32;
}

/* ---- the plan as newborns to be ---- */

static void add_process(struct rebuild *rebuild, const struct plan_process *plan)
{
	struct rebuild_process *process = ARENA_NEW(&rebuild->arena, struct rebuild_process);
	process->plan = plan;
	process->newborn.pid = rebuild->options.any_pids ? 0 : (pid_t)plan->process->pid;
	process->newborn.workshop = &rebuild->workshop;
	process->newborn.code = rebuild->code;
	process->newborn.area = rebuild->area;
	*vec_add(&rebuild->processes) = process;
	size_t count = plan->threads.count ? plan->threads.count : 1;
	for (size_t i = 0; i < count; i++) {
		struct rebuild_thread *thread = ARENA_NEW(&rebuild->arena, struct rebuild_thread);
		thread->plan = plan->threads.count ? plan->threads.at[i] : NULL;
		thread->newborn.process = &process->newborn;
		thread->newborn.tid = rebuild->options.any_pids ? 0 : (pid_t)(thread->plan ? thread->plan->tid : plan->process->pid);
		*vec_add(&process->threads) = thread;
	}
}

static void link_children(struct rebuild *rebuild)
{
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		const struct plan_process *table = process->plan->files ? process->plan->files : process->plan;
		process->newborn.table = &rebuild->processes.at[table->index]->newborn;
		if (!process->plan->parent)
			continue;
		process->parent = rebuild->processes.at[process->plan->parent->index];
		if (process->parent->last_child)
			process->parent->last_child->next_sibling = process;
		else
			process->parent->first_child = process;
		process->parent->last_child = process;
	}
}

struct rebuild *rebuild_lay_out(const struct plan *plan, const struct image_reader *reader)
{
	struct rebuild *rebuild = memory_new(sizeof *rebuild);
	rebuild->plan = plan;
	rebuild->reader = reader;
	rebuild->outbox = rebuild->inbox = -1;
	for (size_t i = 0; i < plan->processes.count; i++)
		add_process(rebuild, plan->processes.at[i]);
	link_children(rebuild);
	heritage_find(rebuild);
	return rebuild;
}

/* ---- the phases ---- */

static int each_process(struct rebuild *rebuild,
			int (*phase)(struct rebuild *, struct rebuild_process *, struct fault *), struct fault *fault)
{
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		struct rebuild_process *process = rebuild->processes.at[i];
		if (process->plan->process->zombie)
			continue;
		int rc = phase(rebuild, process, fault);
		if (rc == 0)
			rc = deadline_check(rebuild->options.deadline, fault);
		if (rc < 0)
			return rc;
	}
	return newborn_land(&rebuild->workshop, fault);
}

static int phase_threads(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	(void)rebuild;
	return spawn_threads(process, fault);
}

struct phase {
	const char *name;
	bool seated; /* Cairn and newborns work by turns */
	int (*whole)(struct rebuild *, struct fault *);
	int (*each)(struct rebuild *, struct rebuild_process *, struct fault *);
};

static const struct phase phases[] = {
	{ "births", true, spawn_tree, NULL },         /* first: while newborns have almost no memory to copy */
	{ "groups", true, spawn_groups, NULL },       /* all processes exist, zombies still live */
	{ "terminals", true, NULL, spawn_terminals }, /* groups exist, and no descriptors yet */
	{ "mappings", true, NULL, space_map },
	{ "pages", false, fill_pages, NULL },
	{ "seals", false, settle_objects, NULL },      /* when contents are there */
	{ "open files", false, make_files, NULL },
	{ "memory settled", true, NULL, space_settle },
	{ "loans", true, NULL, space_return },
	{ "threads", true, NULL, phase_threads },     /* before credentials, which forbid choosing TIDs */
	{ "numbers", true, NULL, numbers_settle },    /* all are born, and nobody has looked at his own yet */
	{ "first threads", true, NULL, finish_ended }, /* that had ended before others; before their children have parent-death signals */
	{ "owners", false, set_owners, NULL },         /* when all tasks exist; before leases, which would make their holder the owner */
	{ "descriptors", true, NULL, descriptors_place },
	{ "task state", true, NULL, finish_thread_state }, /* ends with credentials */
	{ "last calls", true, NULL, finish_prepare },
	{ "stub", true, NULL, finish_unmap },         /* nothing is called in a space after this, by whichever of its processes */
	{ "registers", true, NULL, finish_process },  /* nothing runs in it after this */
};

static int run_phases(struct rebuild *rebuild, struct fault *fault)
{
	for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
		uint64_t begin = clock_now_ns();
		if (phases[i].seated)
			seat_take(&rebuild->workshop);
		else
			seat_leave(&rebuild->workshop);
		int rc = phases[i].whole ? phases[i].whole(rebuild, fault) : each_process(rebuild, phases[i].each, fault);
		if (rc < 0)
			return rc;
		log_info("restore: %s: %zu processes, %.2f ms", phases[i].name, rebuild->processes.count,
			 (double)(clock_now_ns() - begin) / 1e6);
		if (i == 0)
			unmap_stub_here(rebuild);
		if (i == 0 && rebuild->options.template)
			template_forget(rebuild->options.template);
	}
	return 0;
}

int rebuild_prepare(const struct plan *plan, const struct image_reader *reader, const struct rebuild_options *options,
		    struct rebuild **ret_rebuild, struct fault *fault)
{
	struct rebuild *rebuild = memory_new(sizeof *rebuild);
	rebuild->plan = plan;
	rebuild->reader = reader;
	rebuild->options = *options;
	rebuild->outbox = rebuild->inbox = -1;
	rebuild->begin_ns = clock_now_ns();
	rebuild->workshop.terminal = options->terminal;
	rebuild->workshop.deadline = options->deadline;
	rebuild->workshop.roll_back = options->roll_back;
	char boot_id[37];
	host_boot_id(boot_id);
	struct host_offsets offsets;
	host_offsets_read(&offsets);
	rebuild->workshop.clocks_go_on = (boot_id[0] && !strcmp(boot_id, plan->info->boot_id)) || offsets.monotonic_ns || offsets.boottime_ns;
	rebuild->workshop.renumber = options->any_pids;
	rebuild->workshop.by_exec = options->any_pids && !feature_capability(CAP_CHECKPOINT_RESTORE) && !feature_capability(CAP_SYS_ADMIN);
	rebuild->workshop.close_connections = options->close_tcp;
	rebuild->workshop.maps_addresses = options->maps_addresses;
	uint8_t id[16];
	image_reader_id(reader, id);
	memory_hex(id, sizeof id, rebuild->workshop.image_id);
	index_files(rebuild);
	raise_descriptors(plan);
	raise_locked_memory();
	syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0); /* nor is numactl(8)'s word to Cairn one to the newborns */
	note_own_rseq(rebuild);
	/* A Cairn with file capabilities is not dumpable, and newborns, which have its memory first, could not be traced. Others still
	 * cannot trace this one: it has a capability that they have not (security/commoncap.c cap_ptrace_access_check). */
	prctl(PR_SET_DUMPABLE, 1);
	for (size_t i = 0; i < plan->processes.count; i++)
		*vec_add(&rebuild->workshop.pids) = (pid_t)plan->processes.at[i]->process->pid;
	int rc = make_workshop(rebuild, fault);
	if (rc == 0)
		rc = choose_place(rebuild, fault);
	if (rc == 0)
		rc = redirect_vdso(rebuild, fault);
	for (size_t i = 0; rc == 0 && i < plan->processes.count; i++)
		add_process(rebuild, plan->processes.at[i]);
	if (rc == 0) {
		link_children(rebuild);
		rc = options->mapped ? mapped_find(rebuild, fault) : 0;
		/* What is mapped is in memory once in any case. */
		if (!rebuild->is_mapped)
			heritage_find(rebuild);
		if (rc == 0)
			rc = template_share_out(rebuild, fault);
	}
	if (rc == 0)
		rc = map_stub(rebuild, fault);
	if (rc == 0)
		rc = open_inbox(rebuild, fault);
	if (rc == 0) {
		seat_find(&rebuild->workshop);
		rc = run_phases(rebuild, fault);
		seat_leave(&rebuild->workshop);
	}
	if (rc < 0) {
		unmap_stub_here(rebuild);
		rebuild_free(rebuild);
		return rc;
	}
	*ret_rebuild = rebuild;
	return 0;
}

pid_t rebuild_watch_pager(const struct rebuild *rebuild, int **ret_held, size_t *ret_count)
{
	return rebuild->pager ? pager_watch(rebuild->pager, ret_held, ret_count) : 0;
}

pid_t rebuild_root(const struct rebuild *rebuild)
{
	return rebuild->processes.at[0]->newborn.pid;
}

pid_t rebuild_foreground_group(const struct rebuild *rebuild)
{
	for (size_t i = 0; i < rebuild->plan->processes.count; i++) {
		const Cairn__Process *process = rebuild->plan->processes.at[i]->process;
		if (process->foreground && !process->group_outside && !workshop_terminal(&rebuild->workshop, process->terminal))
			return workshop_task(&rebuild->workshop, process->group);
	}
	return 0;
}

static int commit_turn(struct rebuild *rebuild, enum commit_turn turn, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < rebuild->plan->objects.count; i++) {
		const struct plan_record *record = &rebuild->plan->objects.at[i];
		if (record->kind->commit && record->kind->turn == turn)
			rc = record->kind->commit(&rebuild->workshop, record->message, fault);
	}
	for (size_t i = 0; rc == 0 && i < rebuild->plan->files.count; i++) {
		const struct plan_record *record = &rebuild->plan->files.at[i];
		if (record->kind->commit && record->kind->turn == turn && !record->redirect)
			rc = record->kind->commit(&rebuild->workshop, record->message, fault);
	}
	return rc;
}

/* One that runs already may have ended this one: no fault. */
static int release_process(struct rebuild_process *process, struct fault *fault)
{
	int rc = 0;
	for (size_t t = 0; !process->ended && t < process->threads.count; t++) {
		int one = ptrace_release(process->threads.at[t]->newborn.tid, fault);
		process->killed |= one == -ESRCH;
		rc = one < 0 && one != -ESRCH ? one : rc;
	}
	return rc;
}

/* Of a traced thread's end its tracer is told first, and its parent only when the tracer has asked (kernel/exit.c wait_task_zombie, 6.18); so is whoever waits for
 * the other threads in execve(2). Leaders last, as they end last. Cairn's own children end for whoever waits for the program. */
static void bury_killed(const struct rebuild_process *process)
{
	for (size_t t = process->threads.count; t-- > (process->parent ? 0 : 1);)
		while (waitpid(process->threads.at[t]->newborn.tid, NULL, __WALL) < 0 && errno == EINTR)
			;
}

int rebuild_release(struct rebuild *rebuild, struct rebuild_result *ret_result, struct fault *fault)
{
	int rc = 0;
	for (enum commit_turn turn = 0; rc == 0 && turn < COMMIT_TURNS; turn++)
		rc = commit_turn(rebuild, turn, fault);
	if (rc < 0)
		return rc;
	rebuild->released = true;
	workshop_keep(&rebuild->workshop);
	if (rebuild->pager)
		pager_commit(rebuild->pager);
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		int one = release_process(rebuild->processes.at[i], fault);
		rc = one < 0 ? one : rc;
	}
	for (size_t i = 0; i < rebuild->processes.count; i++)
		if (rebuild->processes.at[i]->killed)
			bury_killed(rebuild->processes.at[i]);
	*ret_result = (struct rebuild_result){
		.root_pid = rebuild_root(rebuild),
		.pages = rebuild->pages,
		.newborn_ns = clock_now_ns() - rebuild->begin_ns,
	};
	return rc;
}

/* Newborns are killed children first, so that no one is left to somebody else; Cairn is their subreaper and sees the end of each. */
static void kill_newborns(struct rebuild *rebuild)
{
	for (size_t i = rebuild->processes.count; i-- > 0;) {
		struct rebuild_process *process = rebuild->processes.at[i];
		if (process->made && !process->ended)
			kill(process->newborn.pid, SIGKILL);
	}
	for (size_t i = rebuild->processes.count; i-- > 0;) {
		struct rebuild_process *process = rebuild->processes.at[i];
		for (size_t t = process->threads.count; process->made && t-- > 0;) {
			pid_t tid = process->threads.at[t]->newborn.tid;
			while (tid > 0 && waitpid(tid, NULL, __WALL) > 0)
				;
		}
		/* A first thread that has ended is none of those. */
		while (process->made && process->newborn.pid > 0 && waitpid(process->newborn.pid, NULL, __WALL) > 0)
			;
	}
}

void rebuild_free(struct rebuild *rebuild)
{
	if (!rebuild)
		return;
	if (!rebuild->released)
		kill_newborns(rebuild);
	if (!rebuild->released)
		workshop_fail(&rebuild->workshop);
	if (rebuild->outbox >= 0)
		close(rebuild->outbox);
	if (rebuild->inbox >= 0)
		close(rebuild->inbox);
	pager_free(rebuild->pager);
	if (rebuild->workshop.flight.thread)
		batch_finish(&rebuild->workshop.flight.batch);
	workshop_finish(&rebuild->workshop);
	for (size_t i = 0; i < rebuild->processes.count; i++) {
		for (size_t t = 0; t < rebuild->processes.at[i]->threads.count; t++)
			free(rebuild->processes.at[i]->threads.at[t]->newborn.processors);
		vec_finish(&rebuild->processes.at[i]->threads);
		vec_finish(&rebuild->processes.at[i]->newborn.loans);
		heritage_finish(&rebuild->processes.at[i]->heritage);
		vec_finish(&rebuild->processes.at[i]->mapped.runs);
		vec_finish(&rebuild->processes.at[i]->mapped.ranges);
	}
	vec_finish(&rebuild->processes);
	free(rebuild->files);
	arena_finish(&rebuild->arena);
	free(rebuild);
}

/* ---- PIDs ---- */

static uint32_t pid_limit(void)
{
	struct text text = { 0 };
	uint32_t limit = 32768;
	if (proc_read_path("/proc/sys/kernel/pid_max", &text, NULL) == 0)
		limit = (uint32_t)strtoul(text.at, NULL, 10);
	text_finish(&text);
	return limit;
}

static int check_pid(uint32_t pid, uint32_t limit, uint64_t until_ns, struct fault *fault)
{
	if (pid >= limit)
		return fault_set(fault, FAULT_FAILED, EEXIST,
				 "PID %u is above this host's limit of %u (/proc/sys/kernel/pid_max); try --pids private", pid,
				 limit);
	for (;;) {
		struct proc_stat stat = { 0 };
		char path[64];
		snprintf(path, sizeof path, "/proc/%u", pid);
		if (access(path, F_OK) < 0)
			return 0;
		bool dying = proc_stat_read((pid_t)pid, 0, &stat, NULL) < 0 || stat.state == 'Z' || stat.state == 'X' ||
			     (stat.flags & 4 /* PF_EXITING */);
		if (!dying || clock_now_ns() > until_ns)
			return fault_set(fault, FAULT_FAILED, EEXIST, "PID %u is taken by %s; try --pids private", pid,
					 stat.command[0] ? stat.command : "a dying process");
		clock_sleep_ns(1000000);
	}
}

int rebuild_check_pids(const struct plan *plan, uint64_t patience_ns, struct fault *fault)
{
	uint32_t limit = pid_limit();
	uint64_t until = clock_now_ns() + patience_ns;
	for (size_t i = 0; i < plan->processes.count; i++) {
		const struct plan_process *process = plan->processes.at[i];
		int rc = check_pid(process->process->pid, limit, until, fault);
		for (size_t t = 1; rc == 0 && t < process->threads.count; t++)
			rc = check_pid(process->threads.at[t]->tid, limit, until, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}
