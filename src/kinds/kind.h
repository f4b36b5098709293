/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The contract of a kind: one kernel object type, with both directions in one file. The drivers (capture, rebuild)
 * know no kind by name; they walk the table (table.c), whose order is the order in which things are put back.
 *
 * capture fills records and never sees the writer; rebuild gets a record and never sees the reader. */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/fault.h"
#include "base/memory.h"
#include "base/tracking.h"
#include "kernel/fdinfo.h"
#include "kernel/maps.h"
#include "kernel/procfs.h"
#include "kernel/sleep.h"
#include "tracee/batch.h"
#include "tracee/foothold.h"
#include "tracee/restart.h"

/* ---- frozen world: what the walker hands to a kind ---- */

struct record {
	const struct kind *kind;
	ProtobufCMessage *message;
};

/* Neighbouring pages of contents that are read through a mapping of a frozen process. */
struct contents_view {
	pid_t pid;
	bool force;      /* the mapping is not readable */
	uint64_t offset; /* in the contents; a multiple of PAGES_SIZE, as the size is */
	uint64_t size;
	uint64_t address;
};

/* Contents that are not an address space's: pages of a shared memory object or a deleted file, read from
 * a descriptor of Cairn's own, through mappings of frozen processes, or some pages one way and some the other. */
struct contents {
	uint32_t space; /* id in the image */
	int fd;         /* owned by the harvest; -1: all of it through views */
	uint64_t size;  /* bytes */
	VEC(struct contents_view) views;
	size_t store;   /* the driver's: where its pages are collected */
};

/* A kernel object that several records refer to. */
struct harvest_object {
	uint64_t device, inode;
	uint32_t id;
};

/* Policies of the user, as far as a kind has to know them. */
enum tcp_policy { TCP_POLICY_REFUSE, TCP_POLICY_KEEP, TCP_POLICY_CLOSE };
enum save_files_policy { SAVE_FILES_NONE, SAVE_FILES_APPEND, SAVE_FILES_ALL };
enum outside_policy { OUTSIDE_REFUSE, OUTSIDE_CLOSE, OUTSIDE_RECONNECT };
struct capture_policy {
	enum outside_policy outside; /* --outside: what becomes of an end whose other end lies outside the tree */
	enum save_files_policy save_files; /* --save-files: contents of which named files go along */
	const char *const *reopen; /* devices that may be opened again by path */
	size_t reopen_count;
	bool lose_in_flight; /* --in-flight lose: what can only be read destructively is not in the image; else: a transient fault */
	enum tcp_policy tcp; /* --tcp: TCP connections to the outside */
	bool ends;      /* the program does not run on: it ends, or is stopped */
	char image_id[33]; /* hexadecimal */
	bool unhurried; /* this is not the first try: a thread that rests in Cairn's calls is not kept waiting by others' questions */
	bool losing; /* the same, for what passes by itself: after some tries */
	pid_t saver, pager; /* Cairn's: no part of the tree, even where their parent is the adopter. The pager loads memory behind it; 0: none */
	bool filtered;      /* Cairn itself lives under seccomp filters */
	bool by_deputy;     /* a deputy traces (tracee/deputy.h): the tree may have seccomp filters of its own */
	const struct tracking *tracking; /* Cairn's own, of an earlier save, NULL: none */
	pid_t adopter;      /* a reaper whose children (but the calling process) belong to the tree too: a job's init; 0: none */
};

static inline bool policy_is_cairn(const struct capture_policy *policy, pid_t pid)
{
	return pid == policy->saver || (policy->pager && pid == policy->pager);
}

/* A guard region (MADV_GUARD_INSTALL), met by the snapshot among the pages. */
struct frozen_guard {
	uint32_t space;
	uint64_t start, end;
};

/* Something that has to end with what it belongs to. */
struct scoped_end {
	void (*end)(void *thing);
	void *thing;
};

/* What processes can share without being threads of one (clone(2)). */
enum share { SHARE_VM, SHARE_FILES, SHARE_FS, SHARE_SIGHAND, SHARE_SYSVSEM, SHARE_COUNT };

/* All that a capture has gathered. Records are in the order in which they were added. */
struct harvest {
	struct arena arena;
	VEC(struct record) records;
	VEC(struct contents) contents;
	VEC(struct harvest_object) objects;
	VEC(struct hidden_object *) hidden; /* behind mappings, and not to be opened (kinds/memory/hidden.h) */
	VEC(struct frozen_process *) processes; /* parents before children */
	VEC(struct frozen_space *) spaces;
	VEC(struct frozen_guard) guards;
	VEC(struct frozen_file *) files; /* one per open file description */
	VEC(struct frozen_file *) sorted; /* the same in the order of their identity, when frozen */
	VEC(struct scoped_end) at_end; /* what goes with the harvest */
	struct socket_scene *sockets;    /* what the kinds of sockets have learnt of all of them; in the arena */
	struct capture_policy policy;
	uint32_t last_id, thread_count;
	uint64_t own_namespaces[NS_COUNT]; /* Cairn's; and how many seccomp filters it lives under */
	uint32_t own_filters;
	struct { pid_t *pids; size_t count; } orders[SHARE_COUNT]; /* in which kcmp(2) put the processes of a running tree (capture/sharing.c); in the arena */
	struct reaper *reaper; /* while it is being frozen (capture/reaper.h) */
	bool frozen; /* the tree stands still: what is seen is so */
	struct fault_list doubts; /* what may stand against a capture of a running tree: only the frozen one shows it */
};

void harvest_add(struct harvest *harvest, const struct kind *kind, ProtobufCMessage *message);
uint32_t harvest_new_id(struct harvest *harvest);
bool harvest_has_process(const struct harvest *harvest, pid_t pid);
/* The id of an object that several records refer to, by what identifies it in the kernel; *ret_new says that this is the first call for it,
 * and its own record has to be added. */
uint32_t harvest_object(struct harvest *harvest, uint64_t device, uint64_t inode, bool *ret_new);
/* Takes @fd (-1: none); its pages are saved under @space. */
void harvest_contents(struct harvest *harvest, uint32_t space, int fd, uint64_t size);
/* Closes Cairn's copies of the tree's open files: the program goes on, and who waits for an end of file at a pipe's other end must see it when it comes. */
void harvest_close_files(struct harvest *harvest);
void harvest_finish(struct harvest *harvest);

#define HARVEST_MESSAGE(harvest, Type, init)                       \
	({                                                         \
		Type *message_ = ARENA_NEW(&(harvest)->arena, Type); \
		init(message_);                                    \
		message_;                                          \
	})

struct frozen_thread {
	struct frozen_process *process;
	pid_t tid;
	struct proc_status status; /* credentials, signals */
	struct proc_stat stat;
	struct guest guest;        /* registers and mask while frozen */
	struct restart restart;
	struct sleep_place sleep;  /* before the stop */
	void *xstate;
	size_t xstate_size;
	struct rseq_place rseq;
	struct dispatch_place dispatch; /* switched off while it is frozen */
	bool is_suspended; /* that, or its seccomp filters are suspended */
	uint64_t frozen_at_ns; /* clock_now_ns() of its stop */
	bool ended;                /* the first thread of a process whose others live; only its identity is left */
	bool seized, stopped, examined;
};

struct frozen_space {
	uint32_t id;
	pid_t pid; /* a process through which it is read */
	struct frozen_process *process;
	struct map_list maps;
	uint32_t *objects; /* one per map: id of the object behind it, 0: none */
	size_t store;      /* the driver's: where its pages are collected */
	bool flags_adopted; /* what only smaps says of the mappings is from just before the freeze */
	pid_t twin;        /* a copy-on-write copy of it, which is read instead when it runs on (capture/twins.h); 0: none */
	bool tracked;      /* Cairn tracks its writes by a userfaultfd: mappings are registered with that one */
	struct foothold foothold;
};

/* A batch of calls made by a thread that is Cairn's guest (kind->visit). */
void frozen_batch(const struct frozen_thread *thread, struct batch *ret_batch);
int frozen_run(struct frozen_thread *thread, struct batch *batch, struct fault *fault);

struct frozen_descriptor {
	int fd;
	bool close_on_exec;
	struct frozen_file *file;
};

struct frozen_process {
	pid_t pid;
	pid_t view;                  /* a living task of it, through which /proc shows what it has: the PID, but if its first thread has ended */
	struct frozen_process *parent; /* NULL: a root: the target, or one that the adopter has */
	size_t child_count;
	pid_t highest_tid;
	struct proc_stat stat;
	struct proc_status status;
	VEC(struct frozen_thread *) threads; /* leader first */
	struct frozen_space *space;          /* NULL: a zombie */
	struct frozen_process *shares[SHARE_COUNT]; /* the first process that has the same one, which answers for it; itself; NULL: not frozen */
	bool reaps_orphans;                  /* PR_SET_CHILD_SUBREAPER */
	bool shared_memory;                  /* with another process of the tree */
	bool has_adjustments;                /* a list for SEM_UNDO, which may be empty: all that have threads do */
	VEC(struct frozen_descriptor) descriptors;
	char *executable, *cwd, *root;       /* links; NULL for a zombie */
	uint64_t namespaces[NS_COUNT];       /* 0: it is just ending */
	bool namespaces_known;
	struct pid_list children;            /* for the survey of a running tree */
	bool vanished;                       /* meanwhile, likewise */
	bool zombie;
	int pidfd;        /* one more than the descriptor, 0: none yet */
	bool job_stopped; /* stopped by job control */
	int stop_signal;
};

/* One open file description, seen through one of the descriptors that refer to it. */
struct frozen_file {
	uint32_t id;
	pid_t pid;
	int fd;
	struct stat stat;
	const char *link;    /* /proc/PID/fd/N, without " (deleted)" */
	bool deleted;
	struct fdinfo info;
	const char *fdinfo;  /* the whole text */
	int own;             /* Cairn's own copy (pidfd_getfd), -1: not taken */
	const struct kind *kind;
	int *pidfd;          /* of the process, one more than the descriptor; opened once for all its files (frozen_file_own); NULL: Cairn's own file */
	bool keeps_own;      /* there is room to keep Cairn's copy until the end */
	bool is_identified;  /* what a socket says it is, asked once: domain, type, protocol */
	int identity[3];
	struct frozen_file *carrier; /* it is in flight in this socket's queue, and no process has it; pid and fd are Cairn's */
	void *note;          /* what its kind has learnt of it already; in the arena */
};
static inline bool frozen_owns(const struct frozen_process *process, enum share share)
{
	return !process->shares[share] || process->shares[share] == process;
}
/* Cairn's own copy of the descriptor; lives as long as the harvest. */
int frozen_file_own(struct frozen_file *file, int *ret_fd, struct fault *fault);
/* A private copy of the fdinfo text for fdinfo_next. */
char *frozen_file_fdinfo(const struct frozen_file *file);
/* Closes Cairn's own copy before the end of the harvest: there may be more files than Cairn may have descriptors. */
void frozen_file_put(struct frozen_file *file);
/* The open file description behind a descriptor of Cairn's own, taken out of the queue of @carrier: one that the tree has, or a further one,
 * which belongs to the tree from now on. Takes @own. */
int harvest_in_flight(struct harvest *harvest, struct frozen_file *carrier, int own, struct frozen_file **ret_file,
		      struct fault *fault);

/* ---- newborn world ---- */

struct newborn_thread {
	struct newborn_process *process;
	pid_t tid;
	struct registers birth; /* registers that the stub can be started with */
	uint8_t *processors;    /* those that it is to have when it leaves Cairn's seat, as many bytes as that has; NULL: Cairn's own */
};

struct newborn_process {
	pid_t pid;
	uint64_t code, area; /* the stub and its data in its address space */
	struct workshop *workshop;
	struct newborn_process *table; /* whose descriptor table it has: its own, or one that it shares */
	VEC(struct newborn_loan) loans; /* of its own table */
};

/* A descriptor that the newborn holds for a while, to map its files. */
struct newborn_loan {
	uint32_t object;
	int fd;
};
int newborn_loan(const struct newborn_process *process, uint32_t object); /* -1: none */

/* Runs a batch in a newborn's thread. */
int newborn_run(struct newborn_thread *thread, struct batch *batch, struct fault *fault);

/* One call by an instruction of the program's own, with all signals blocked; @data lies at thread->process->area for it. */
int newborn_call(struct newborn_thread *thread, const char *name, long number, const uint64_t args[6], const void *data, size_t size,
		 struct fault *fault);

struct workshop_item {
	int fd, second; /* one more than the descriptor, 0: none */
	void *memory;   /* contents that are loaded into memory of Cairn's own */
	uint64_t size;
	bool unwanted;  /* nobody needs its contents this time */
};

/* A terminal of the tree's own. */
struct workshop_terminal {
	uint64_t device; /* in the image */
	char path[32];   /* here */
};

/* What has to go when the restore fails. */
struct workshop_undo {
	void (*undo)(uint64_t what); /* system calls only: Cairn may have died holding any lock of a library */
	uint64_t what;
	struct workshop_undo *before;
};

/* rebuild/janitor.h */
struct workshop_janitor {
	bool has_tried;
	pid_t employer, pid;
	void *stack;
};

/* A batch that is under way in a newborn, whose end nobody has waited for yet. */
struct newborn_flight {
	struct newborn_thread *thread; /* NULL: none is */
	struct batch batch;
};

/* What a restore has at hand while it makes objects: Cairn's own descriptors by id. */
struct workshop_number {
	uint32_t old_id;
	pid_t new_id;
};

/* The one processor that Cairn and its newborns have while they work by turns (rebuild/seat.c). */
struct workshop_seat {
	long size; /* bytes of the masks below; 0: nobody is seated, newborns have the processors that they inherit */
	bool by_themselves; /* without CAP_SYS_NICE newborns leave it while they still have Cairn's credentials: who has others may not be given processors */
	uint8_t place[1024], allowed[1024]; /* that one; those that Cairn has otherwise */
	uint8_t free[1024]; /* what has to be asked for to have those, as if nothing had ever been asked for where that is so */
};

struct workshop {
	bool renumber; /* --pids any: every task has the number that came */
	struct {
		uint8_t *code;  /* of the image's, which leads into this kernel's; NULL: they are the same */
		uint64_t size, place; /* where this kernel's is mapped */
		uint64_t instruction;  /* where in this kernel's a system call instruction is; 0: nowhere */
	} vdso;
	bool by_exec;  /* and /proc/PID/exe may not be set: it was made right by an exec (rebuild/exec.c) */
	VEC(struct workshop_number) numbers; /* those that were born, and groups and sessions whose leaders are gone */
	VEC(struct workshop_item) items; /* by id */
	struct workshop_undo *undo; /* the last one; whole at every instant */
	struct workshop_janitor janitor;
	VEC(struct workshop_terminal) terminals;
	VEC(pid_t) pids; /* of the processes that are to be */
	bool own_ipc; /* an IPC namespace was made for this restore */
	bool clocks_go_on; /* CLOCK_MONOTONIC and CLOCK_BOOTTIME count on from where they were, or from later: the same boot, or a time namespace */
	pid_t root_pid;
	const char *terminal; /* path of the caller's controlling terminal, NULL: none */
	const struct deadline *deadline; /* of the whole restore */
	bool roll_back;       /* what was appended to open files since the checkpoint is cut off */
	const ProtobufCMessage *const *files; /* records of open files by id; NULL: none with that id */
	uint32_t file_space;  /* ids below this */
	struct newborn_flight flight;
	struct workshop_seat seat;
	struct {
		bool is_known;
		struct proc_status status;
		struct arena arena; /* of its groups */
	} own; /* Cairn's credentials, which no restore changes */
	VEC(struct scoped_end) at_births, at_end;
	char image_id[33];    /* hexadecimal */
	bool close_connections; /* --tcp close */
	bool maps_addresses; /* --map-address */
	struct socket_bench *sockets; /* what the kinds of sockets need while they make them */
};
/* The record of an open file, NULL: there is none, or it is of another kind. */
const ProtobufCMessage *workshop_file(const struct workshop *workshop, uint32_t id,
				      const ProtobufCMessageDescriptor *descriptor);
/* What /proc says of Cairn itself, read once. */
int workshop_own_status(struct workshop *workshop, const struct proc_status **ret_status, struct fault *fault);
/* What was called before the first process is born, in reverse order, and what ends with the workshop. */
void workshop_births(struct workshop *workshop);
/* Would a newborn inherit something else than the default action of @signal from Cairn? */
bool workshop_inherits_action(const struct workshop *workshop, int signal);
int workshop_fd(const struct workshop *workshop, uint32_t id); /* -1: none */
void workshop_put(struct workshop *workshop, uint32_t id, int fd);
/* A second descriptor of the same object (a pipe's write end). */
int workshop_second(const struct workshop *workshop, uint32_t id);
void workshop_put_second(struct workshop *workshop, uint32_t id, int fd);
/* A pid, tid, group or session of the image as it is here; for what is made after its owner was born. One that is none of the tree's: itself. */
pid_t workshop_task(const struct workshop *workshop, uint32_t old_id);
/* Memory instead of a descriptor: contents of the object are loaded into it. Kept by the caller until its commit. */
void workshop_put_memory(struct workshop *workshop, uint32_t id, void *memory, uint64_t size);
void *workshop_memory(const struct workshop *workshop, uint32_t id, uint64_t *ret_size); /* NULL: none */
/* The contents of the object are not loaded. */
void workshop_discard(struct workshop *workshop, uint32_t id);
bool workshop_is_unwanted(const struct workshop *workshop, uint32_t id);
/* The path here of the terminal of the tree's own that had the device number @device in the image; NULL: it is none of those. */
void workshop_put_terminal(struct workshop *workshop, uint64_t device, const char *path);
const char *workshop_terminal(const struct workshop *workshop, uint64_t device);
/* Is @pid the number of a process that is to be? */
bool workshop_will_be(const struct workshop *workshop, pid_t pid);
/* @undo(@what) is called if the restore fails, and by somebody else if it is killed. */
void workshop_on_failure(struct workshop *workshop, void (*undo)(uint64_t what), uint64_t what);
/* In a private PID namespace, IPC objects get a namespace of their own, where every id is free: before the first is made. */
int workshop_separate_ipc(struct workshop *workshop, struct fault *fault);
void workshop_fail(struct workshop *workshop);
void workshop_keep(struct workshop *workshop); /* nothing is undone any more */
void workshop_finish(struct workshop *workshop);

/* ---- the contract ---- */

enum kind_scope {
	SCOPE_IMAGE,   /* one record, made by the driver */
	SCOPE_PROCESS, /* one record per process; leader's batch */
	SCOPE_THREAD,  /* one record per thread */
	SCOPE_SPACE,   /* address spaces and mappings: capture/rebuild by the memory driver */
	SCOPE_OBJECT,  /* shared behind files: made before them */
	SCOPE_FILE,    /* open file descriptions */
};

/* Files are put back after all else that may still fail, and before anybody watches them. */
enum commit_turn { COMMIT_FIRST, COMMIT_PUT_BACK, COMMIT_WATCH, COMMIT_TURNS };

struct kind {
	const char *name;
	uint32_t tag; /* in the image, for ever */
	enum kind_scope scope;
	const ProtobufCMessageDescriptor *descriptor;
	bool of_zombies; /* a process kind that zombies have too; a thread kind that a first thread has which ended before others */
	const char *owner_field; /* the field with the pid, tid, space or file id it belongs to */
	const char *path_field; /* the field with a path that is looked up at a restore; what a kind sees there is already mapped (--map-path) */

	/* Does it give the file of that path its contents again? What differs there, or is missing, is no hindrance then. @roll_back: the user wants that. */
	bool (*puts_back)(const ProtobufCMessage *message, bool roll_back);
	const char *const *address_fields; /* fields with a struct sockaddr_in or _in6 of this host (--map-address); ends with NULL */

	/* Frozen. refuse: from /proc alone, before anything is touched and again when it stands still. ask: adds remote calls to the
	 * thread's batch and leaves a note for capture (process kinds: the leader's). */
	int (*refuse)(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault);
	int (*ask)(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
		   struct fault *fault);
	int (*capture)(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		       struct fault *fault);

	/* Frozen, with the leader as Cairn's guest: what takes more than one batch, by frozen_run. Nothing may be left behind at the end of a
	 * group of calls (batch_group), which runs to its end even if Cairn dies. */
	int (*visit)(struct harvest *harvest, struct frozen_thread *thread, struct fault *fault);

	/* Frozen, after all processes and files: what belongs to no process, and to the tree. */
	int (*capture_tree)(struct harvest *harvest, struct fault *fault);

	/* Frozen, after the pages were read: what only those showed. */
	int (*capture_late)(struct harvest *harvest, struct fault *fault);

	/* Frozen, files. probe: is this file one of ours; called by several threads, for one file by one. */
	void (*census)(struct harvest *harvest); /* before any file is probed: what is asked of many at once */
	bool (*probe)(const struct frozen_file *file);
	int (*refuse_file)(const struct harvest *harvest, struct frozen_file *file, struct fault *fault);
	bool by_deputy; /* its capture puts the file, or what is behind the mapping, into a state that the program must not meet, even if Cairn is killed just then */
	bool writes_behind; /* through it, memory of the program may be written to without its page tables being asked: not tracked in a live save */
	int (*capture_file)(struct harvest *harvest, struct frozen_file *file, struct fault *fault);

	/* Frozen, when all descriptors are known: open files that this one leads to, by harvest_in_flight. */
	int (*reach)(struct harvest *harvest, struct frozen_file *file, struct fault *fault);

	/* Frozen, after the image is safe, when the program does not run on: what its end must not do to the outside. @ends: it is killed. */
	int (*depart)(struct harvest *harvest, struct frozen_file *file, bool ends, struct fault *fault);

	/* Frozen, objects behind mappings (map->inode is not 0). */
	bool (*probe_map)(const struct map *map);
	int (*capture_map)(struct harvest *harvest, const struct frozen_process *process, const struct map *map,
			   uint32_t *ret_object, struct fault *fault);

	/* Image. needs: the object (0: none) of which this record wants a descriptor while it is rebuilt; that there is one is checked. check: are the values possible, and is what the record needs there; before anything exists. */
	uint32_t (*needs)(const ProtobufCMessage *message);
	int (*check)(const ProtobufCMessage *message, struct fault *fault);
	/* Image, and what the record wants of the network it is put back in. @closing: connections to the outside come back closed. */
	int (*check_network)(const ProtobufCMessage *message, bool closing, struct fault *fault);

	/* There can be only one of it, however often the image is restored: a connection to somebody outside. NULL: of none of them. */
	bool (*is_unique)(const ProtobufCMessage *message);

	/* An open file that is made before the first process is born: its maker needs PIDs of the tree for a moment. */
	bool before_births;

	/* Newborn. rebuild: adds calls to the thread's batch. make: an open file (or object) of Cairn's own, which is then handed over.
	 * join: when all files that are made before births are there. settle: when its contents are there; for files, when all files are. connect: when all descriptors are in their places; for memory, when the pages are. */
	int (*rebuild)(struct newborn_thread *thread, const ProtobufCMessage *message, struct batch *batch,
		       struct fault *fault);
	int (*make)(struct workshop *workshop, const ProtobufCMessage *message, struct fault *fault);
	int (*join)(struct workshop *workshop, const ProtobufCMessage *message, struct fault *fault);
	int (*settle)(struct workshop *workshop, const ProtobufCMessage *message, struct fault *fault);
	int (*connect)(struct newborn_thread *thread, int fd, const ProtobufCMessage *message, struct batch *batch,
		       struct fault *fault);
	/* Memory that the kernel maps where it likes, when all else is mapped: by newborn_run. */
	/* Image. What place makes: the mappings of kind VMA_MADE have to cover just that. */
	void (*covers)(const ProtobufCMessage *message, uint64_t *ret_start, uint64_t *ret_end);
	int (*place)(struct newborn_thread *thread, const ProtobufCMessage *message, struct fault *fault);
	/* When no batch follows in the whole tree: what the trap at the end of one would disturb. By newborn_call. */
	int (*last)(struct newborn_thread *thread, const ProtobufCMessage *message, struct fault *fault);
	/* The last step: everything is made and nothing runs yet. What cannot be undone belongs here. */
	enum commit_turn turn;
	int (*commit)(struct workshop *workshop, const ProtobufCMessage *message, struct fault *fault);
};

/* What all open file descriptions have (files/open_file.h). check: is it there, and possible. Owner: whom SIGIO goes to; when all tasks
 * exist. A file is made asynchronous by a process that has it as descriptor @fd, which the kernel puts in siginfo: by the owner, if possible
 * (@ret_owner: a task of the image, 0: none). */
int kind_check_open(const struct kind *kind, const ProtobufCMessage *message, struct fault *fault);
int kind_open_flags(const struct kind *kind, const ProtobufCMessage *message); /* O_* */
int kind_set_owner(struct workshop *workshop, const struct kind *kind, const ProtobufCMessage *message, struct fault *fault);
bool kind_is_asynchronous(const struct kind *kind, const ProtobufCMessage *message, uint32_t *ret_owner);
void kind_set_asynchronous(int fd, const struct kind *kind, const ProtobufCMessage *message, struct batch *batch);

/* Vma.kind. ATTACHED: the mapping is there already, by somebody else, and only gets its protection, flags and name. PLACED: likewise, as it can be mapped only where the
 * kernel wants it (rebuild/placement.c). MADE: likewise, by a kind's `place`. */
enum vma_kind { VMA_MAPPED, VMA_ATTACHED, VMA_PLACED, VMA_MADE };

/* Every kind, in the order in which they are put back. Ends with NULL. */
extern const struct kind *const kinds[];
const struct kind *kind_by_tag(uint32_t tag); /* NULL: unknown */
/* A record from its bytes in an image; NULL: it is none of that kind, or a string in it has a zero inside. protobuf_c_message_free_unpacked() gives it back. */
ProtobufCMessage *kind_unpack(const struct kind *kind, const void *data, size_t size);
/* The owner's id in a record (kind->owner_field), 0: none. */
uint32_t kind_owner(const struct kind *kind, const ProtobufCMessage *message);
