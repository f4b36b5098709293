/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An image's records as a tree of things to make: every reference resolved, every count and value checked, before
 * anything exists. */
#include "image.pb-c.h"
#include "image/image.h"
#include "kinds/kind.h"
#include "memory.pb-c.h"
#include "rebuild/path_map.h"
#include "tasks.pb-c.h"

struct plan_record {
	const struct kind *kind;
	ProtobufCMessage *message; /* owned by the plan */
	const char *redirect;      /* an open file: this path is opened instead (--fd); NULL: as the record says */
};

struct plan_thread {
	uint32_t tid;
	const Cairn__Thread *thread;
	VEC(struct plan_record) records;
};

struct plan_space {
	uint32_t id;
	const struct plan_process *owner; /* the first process that has it, which makes it */
	bool is_shared;                   /* by other processes */
	VEC(struct plan_record) records; /* the space, then its mappings in ascending order */
};

struct plan_process {
	const Cairn__Process *process;
	const Cairn__FdTable *descriptors; /* NULL: a zombie */
	struct plan_process *parent;
	struct plan_space *space;
	VEC(struct plan_record) records;
	VEC(struct plan_thread *) threads; /* the leader first, also one that has ended */
	size_t index; /* in the plan */
	const struct plan_process *files, *fs, *handlers, *semaphores; /* the first process that has the same; itself */
	const struct plan_process *bearer; /* who hands down at birth what it shares: its parent or an earlier child of that; NULL: it shares nothing */
	uint64_t share_flags;              /* CLONE_* of that birth */
};

struct plan {
	struct arena arena;
	const Cairn__ImageInfo *info;
	VEC(struct plan_record) records;       /* all, in the order of the image */
	VEC(struct plan_process *) processes;  /* parents before children */
	VEC(struct plan_space *) spaces;
	VEC(struct plan_record) objects;       /* in the order to make them in */
	VEC(struct plan_record) files;
	uint32_t highest_id;
	uint32_t highest_fd;
};

/* FAULT_IMAGE when anything is impossible, missing or contradicts itself. This is the one place where paths are mapped and
 * vector registers laid out anew: the records as the plan has them are for this host. */
int plan_load(const struct image_reader *reader, const struct path_maps *maps, struct plan *ret_plan, struct fault *fault);
void plan_finish(struct plan *plan);

/* Everything that stands against a restore here (a processor without features that were there, files missing or changed ...): one fault each. */
struct plan_policy {
	bool ignore_changed_files;
	bool roll_back; /* open files that have grown are cut back when it is restored */
	bool any_pids;  /* --pids any: nothing may lie below the /proc/PID of a process of the tree */
	bool closes_tcp; /* connections to the outside come back closed */
	bool is_clone;  /* it is one of several that are restored at the same time */
	bool force_cpu; /* features of the image's processor may be missing here, as long as no register in use is */
};
void plan_check_host(const struct plan *plan, const struct plan_policy *policy, struct fault_list *refusals);

/* plan_sharing.c: a part of plan_load; who shares what with whom. */
int plan_link_sharing(struct plan *plan, struct fault *fault);
/* redirect.c: --fd. FAULT_USAGE: the root has no such descriptor. */
int plan_redirect(struct plan *plan, int fd, const char *path, struct fault *fault);
int redirect_make(struct workshop *workshop, const struct plan_record *record, struct fault *fault);
/* numbers.c: a part of plan_check_host, for --pids any. */
void plan_check_numbers(const struct plan *plan, struct fault_list *refusals);
/* plan_vdso.c: a part of plan_check_host; and the code of the image's vdso as it has to lie where it lay, if the kernel here maps its own at @place (vvar
 * first); NULL: as it is here. false: it cannot be done. */
void plan_check_vdso(const struct plan *plan, struct fault_list *refusals);
bool plan_redirect_vdso(const struct plan *plan, uint64_t place, uint8_t **ret_code, char *why, size_t why_size);
/* plan_hugetlb.c: a part of plan_check_host. */
void plan_check_huge_pages(const struct plan *plan, struct fault_list *refusals);
/* plan_processor.c: a part of plan_load and one of plan_check_host, for images of this architecture. */
void plan_convert_registers(struct plan *plan);
void plan_check_processor(const struct plan *plan, bool force, struct fault_list *refusals);
