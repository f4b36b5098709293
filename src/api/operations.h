/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the calls of cairn.h share: the bound of an operation, and faults as lines. */
#include "base/clock.h"
#include "base/fault.h"
#include "base/tracking.h"
#include "cairn.h"

/* A tree that is saved from inside its job. */
struct operation_job {
	pid_t adopter;       /* its init, whose other children belong to the tree too; 0: only the target's tree */
	const char *name;
	uint32_t generation;
	pid_t pager;         /* the init's child that loads memory behind the tree, 0: none */
	bool own_network;    /* it lives in a network namespace of its own */
};

/* cairn_checkpoint, with what a job knows of it (NULL: it is none). @tracking: what earlier saves left of these processes, which ends, and
 * then, if options->track, what this one leaves; empty after a failure. */
enum cairn_status operation_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options, const struct operation_job *job,
				       struct tracking *tracking, struct cairn_checkpoint_result *result, struct cairn_error *error);

/* cairn_check_process, of a job's whole tree too. @tracking: as above, only looked at; NULL: none. */
enum cairn_status operation_check(pid_t pid, const struct operation_job *job, const struct tracking *tracking, struct cairn_error *error);

/* An image's id, and how many others it needs. Negative: it cannot be read, or one of them is missing. @key: NULL if it is not encrypted. */
int operation_lineage(const char *path, const uint8_t *key, uint8_t ret_id[16], unsigned *ret_ancestors);
bool operation_is_image(const char *path); /* by its first bytes */

/* What a restore in this process's PID namespace came to. */
struct operation_restored {
	char *job;           /* the name in the image, "": none; heap */
	char *command;       /* comm of the root; heap */
	uint32_t generation; /* how often the tree has been restored, this time included */
	pid_t pager;         /* the caller's child that loads memory behind the tree (rebuild/pager.h), 0: none */
	int *held;           /* descriptors that keep the tree from seeing zeros should that one be killed; heap */
	size_t held_count;
};
void operation_restored_finish(struct operation_restored *restored);
/* What clones of an image have in common, in this process's memory (rebuild/template.h). */
struct operation_template;
/* After all that can be asked before a restore. With options->once the image is taken. */
enum cairn_status operation_template_load(const struct cairn_restore_options *options, struct operation_template **ret_template, uint64_t *ret_pages,
					  struct cairn_error *error);
/* In a child of the process that loaded it: the memory alone is its own too. */
void operation_template_inherit(struct operation_template *template);
/* The clones are about to run. */
int operation_template_use(struct operation_template *template, struct fault *fault);
void operation_template_free(struct operation_template *template);

/* cairn_restore with pids "same". -EEXIST in *ret_error: an old PID is taken, and nothing was made. @template: of which this is a clone, in a child of the
 * process that loaded it; it is not loaded any more afterwards. NULL: none. */
enum cairn_status operation_restore(const struct cairn_restore_options *options, struct operation_template *template, struct cairn_restore_result *result,
				    struct operation_restored *ret_restored, int *ret_error, struct cairn_error *error);

/* What has to be known of an image before it is decided where it is restored. Nothing of it is checked yet but its checksums. */
struct operation_peek {
	bool own_network; /* it wants a network namespace of its own */
	bool continues;   /* its clocks are to go on from where they stood */
	bool offset;      /* it wants a time namespace, with: */
	int64_t monotonic_ns, boottime_ns; /* the namespace's offsets */
};
int operation_peek(const struct cairn_restore_options *options, struct operation_peek *ret_peek, struct fault *fault);

/* May memory be mapped from this image (trust.h)? */
int operation_may_map(const char *path, struct fault *fault);

struct deadline operation_deadline(double timeout_s, int signal_fd);
unsigned operation_threads(unsigned wanted);
/* The refusals, or the fault when there are none, become the error's lines; the status is the first one's. */
enum cairn_status operation_failed(const struct fault_list *refusals, const struct fault *fault, const char *where,
				   struct cairn_error *error);
