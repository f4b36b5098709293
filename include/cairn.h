/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* libcairn: checkpoint and restore from C. Every call is synchronous, and made by the thread that calls it, which becomes
 * the tracer of the processes concerned for the time of the call (ptrace(2)). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAIRN_API __attribute__((visibility("default")))

/* Results of the calls, and the exit statuses of the command line. */
enum cairn_status {
	CAIRN_DONE = 0,
	CAIRN_FAILED = 1,
	CAIRN_USAGE = 2,
	CAIRN_UNSUPPORTED = 3,   /* something in the program cannot be carried; nothing was touched */
	CAIRN_NOT_PERMITTED = 4,
	CAIRN_VANISHED = 5,      /* the target vanished, or changed under us */
	CAIRN_BAD_IMAGE = 6,
	CAIRN_TIMED_OUT = 7,     /* rolled back */
};

/* Why a call failed: lines without "cairn: ", one per refusal. Owned by the caller, see cairn_error_free. Init by zero. */
struct cairn_error {
	char **lines;
	size_t count;
};
CAIRN_API void cairn_error_free(struct cairn_error *error);

/* What becomes of the program after its checkpoint. */
enum cairn_after { CAIRN_RUN_ON, CAIRN_STOP, CAIRN_KILL };

struct cairn_checkpoint_options {
	const char *output;       /* image file, "-": standard output */
	enum cairn_after after;
	unsigned threads;         /* 0: as many as there are processors */
	double timeout_s;         /* 0: 10 seconds for what passes by itself, no bound for the rest */
	bool close_outside;       /* pipes to the outside are taken as closed there */
	bool lose_in_flight;      /* what the kernel holds for the program and shows only to who takes it: it is not saved */
	int signal_fd;            /* signalfd that ends the operation early, -1: none */
};

struct cairn_checkpoint_result {
	uint64_t bytes;           /* of the image */
	uint64_t pages;           /* stored, 4096 bytes each */
	uint32_t processes, threads;
	uint64_t frozen_ns;       /* how long the program stood still */
	uint64_t total_ns;
};

/* Saves @pid and its descendants. */
CAIRN_API enum cairn_status cairn_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options,
					     struct cairn_checkpoint_result *result, struct cairn_error *error);
/* All that stands against a checkpoint of @pid, without touching it. */
CAIRN_API enum cairn_status cairn_check_process(pid_t pid, struct cairn_error *error);
enum cairn_pids { CAIRN_PIDS_AUTO, CAIRN_PIDS_SAME, CAIRN_PIDS_PRIVATE };

/* What the image knows as old_path, and all below it, is looked for under new_path. Both are absolute; only whole components
 * count, the longest old_path wins, of equal ones the last. */
struct cairn_path_map {
	const char *old_path, *new_path;
};

struct cairn_restore_options {
	const char *image;        /* "-": standard input */
	enum cairn_pids pids;
	unsigned threads;
	double timeout_s;         /* 0: none */
	bool leave_stopped;
	bool ignore_changed_files;
	bool roll_back_files;     /* what was appended since to files that are open for writing is cut off */
	bool force_cpu;           /* this processor may lack what the image's had, but no register in use */
	bool trust_image;         /* as root: also an image that others could have written */
	const struct cairn_path_map *path_maps; /* for every path that the restore opens or sets */
	size_t path_map_count;
	const char *terminal;     /* path of the caller's controlling terminal, NULL: none */
	int signal_fd;
	/* Called when everything is made and nothing runs yet; non-zero undoes it. */
	int (*ready)(void *context, pid_t root, pid_t foreground_group);
	void *context;
};

struct cairn_restore_result {
	pid_t root;               /* PID of the root as the caller sees it */
	pid_t init;               /* PID of the private PID namespace's init, 0: none */
	uint32_t processes, threads;
	uint64_t pages;
	uint64_t total_ns;
};

/* Brings an image back. The root is a child of the caller (or of `init`, which is the caller's child and ends with the root's status). */
CAIRN_API enum cairn_status cairn_restore(const struct cairn_restore_options *options,
					  struct cairn_restore_result *result, struct cairn_error *error);
/* All that stands against that restore here, without making anything; whoever could have written the image. */
CAIRN_API enum cairn_status cairn_check_image(const struct cairn_restore_options *options, struct cairn_error *error);

#ifdef __cplusplus
}
#endif
