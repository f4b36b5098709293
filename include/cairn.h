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

/* What becomes of TCP connections to the outside: the checkpoint is refused, or they are kept (not if the program runs on), or they come
 * back as reset by the peer. Connections with both ends in the tree are always kept. */
enum cairn_tcp { CAIRN_TCP_REFUSE, CAIRN_TCP_ESTABLISHED, CAIRN_TCP_CLOSE };

/* What becomes of pipes and Unix sockets whose other end is held outside the tree: the checkpoint is refused, or they come back
 * closed there, or connected again to the same name (Unix sockets that have one). */
enum cairn_outside { CAIRN_OUTSIDE_REFUSE, CAIRN_OUTSIDE_CLOSE, CAIRN_OUTSIDE_RECONNECT };

/* Contents of which files go along, for a restore that rolls back: NONE (but of deleted ones, always): what was appended since can be cut off. APPEND: of
 * those that are open for appending. ALL: of those that are open for writing, or mapped so. */
enum cairn_save_files { CAIRN_SAVE_FILES_NONE, CAIRN_SAVE_FILES_APPEND, CAIRN_SAVE_FILES_ALL };

/* How page contents are stored; what does not shrink by it is stored as it is. */
enum cairn_codec { CAIRN_CODEC_NONE, CAIRN_CODEC_LZ4, CAIRN_CODEC_ZSTD };

/* Encrypted images: nobody without the key can read one, or write one that is taken for it. */
enum { CAIRN_KEY_SIZE = 32 };
/* From a key file (cairn(1), ENCRYPTED IMAGES). Wipe it when it is not needed any more: explicit_bzero(3). */
CAIRN_API enum cairn_status cairn_key_read(const char *path, unsigned char ret_key[CAIRN_KEY_SIZE], struct cairn_error *error);

struct cairn_checkpoint_options {
	const char *output;       /* image file, "-": standard output */
	enum cairn_after after;
	unsigned threads;         /* 0: as many as there are processors */
	double timeout_s;         /* 0: 10 seconds for what passes by itself, no bound for the rest */
	enum cairn_outside outside;
	const char *const *reopen_devices; /* paths of devices for which opening them again is enough */
	size_t reopen_device_count;
	enum cairn_tcp tcp;
	enum cairn_save_files save_files;
	bool lose_in_flight;      /* what the kernel holds for the program and shows only to who takes it: it is not saved */
	int signal_fd;            /* signalfd that ends the operation early, -1: none */
	const char *parent;       /* an image of the same program: pages that it has are not stored again; NULL: none */
	bool track;               /* its writes are tracked from now on, so that the next save with this image as its parent need not
				   * read what was not written; a process of Cairn's holds that, or the job's init. Only if the program runs on, live */
	bool no_live;             /* all memory is copied while the program stands still */
	uint64_t max_extra_memory; /* bytes that a live save may hold back in memory; 0: 256 MiB */
	enum cairn_codec codec;
	int codec_level;          /* of zstd, 1 to 19; 0: 1 */
	const unsigned char *key; /* CAIRN_KEY_SIZE bytes to encrypt the image with, also those of `parent`; NULL: not encrypted */
	/* Told how many bytes of memory have been copied, and how many there will be as far as is known; by several threads, one at a time. NULL: nobody. */
	void (*progress)(void *context, uint64_t done, uint64_t total);
	void *progress_context;
};

struct cairn_checkpoint_result {
	uint64_t bytes;           /* of the image */
	uint64_t pages;           /* stored, 4096 bytes each */
	uint32_t processes, threads;
	uint64_t frozen_ns;       /* how long the program stood still */
	uint64_t total_ns;
	/* Bytes of memory by how they were copied: while it ran and its writes were tracked (what was written meanwhile more than once), from a
	 * copy-on-write child while it ran on, and while it stood still. */
	uint64_t tracked_bytes, forked_bytes, frozen_bytes;
};

/* Saves @pid and its descendants. */
CAIRN_API enum cairn_status cairn_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options,
					     struct cairn_checkpoint_result *result, struct cairn_error *error);
/* All that stands against a checkpoint of @pid, without touching it. */
CAIRN_API enum cairn_status cairn_check_process(pid_t pid, struct cairn_error *error);
/* AUTO: SAME where that is permitted and they are free, otherwise PRIVATE. ANY: those that come, where nothing else is permitted and the program can bear it. */
enum cairn_pids { CAIRN_PIDS_AUTO, CAIRN_PIDS_SAME, CAIRN_PIDS_PRIVATE, CAIRN_PIDS_ANY };

/* CLOCK_MONOTONIC and CLOCK_BOOTTIME of the program. ADVANCE: the host's, as at the checkpoint. CONTINUE: from where they stood, in a time
 * namespace. AUTO: ADVANCE on the same boot of the same host, else CONTINUE. */
enum cairn_clock { CAIRN_CLOCK_AUTO, CAIRN_CLOCK_CONTINUE, CAIRN_CLOCK_ADVANCE };

/* What the image knows as old_path, and all below it, is looked for under new_path. Both are absolute; only whole components
 * count, the longest old_path wins, of equal ones the last. */
struct cairn_path_map {
	const char *old_path, *new_path;
};

/* Another file for a descriptor of the root, and for all that share its open file. Made if it is written to and not there. */
struct cairn_redirect {
	int fd;
	const char *path;
};

struct cairn_restore_options {
	const char *image;        /* "-": standard input */
	const unsigned char *key; /* CAIRN_KEY_SIZE bytes that it must be encrypted with; NULL: not encrypted */
	enum cairn_pids pids;
	enum cairn_clock clock;
	unsigned threads;
	double timeout_s;         /* 0: none */
	bool leave_stopped;
	bool lazy;                /* it runs at once, and memory is loaded behind it; where that is not possible it is loaded first */
	bool mapped;              /* it runs at once on memory that is mapped from the image, which must not be changed as long as it runs; what cannot be mapped is loaded
				   * first. Not with lazy. Not quite anonymous memory: see cairn-restore(1) */
	bool ignore_changed_files;
	bool roll_back_files;     /* what was appended since to files that are open for writing is cut off; what is in the image (save_files) is put back */
	bool force_cpu;           /* this processor may lack what the image's had, but no register in use */
	const char *const *address_maps; /* "OLD=NEW": addresses of sockets on the host of old, and here */
	size_t address_map_count;
	bool close_tcp;           /* TCP connections to the outside come back as reset by the peer */
	bool trust_image;         /* as root: also an image that others could have written */
	const struct cairn_path_map *path_maps; /* for every path that the restore opens or sets */
	size_t path_map_count;
	const struct cairn_redirect *redirects;
	size_t redirect_count;
	bool once;                /* an image that was restored is not restored again: a mark IMAGE.restored beside it says so */
	const char *terminal;     /* path of the caller's controlling terminal, NULL: none */
	int signal_fd;
	/* Called when everything is made and nothing runs yet; non-zero undoes it. */
	int (*ready)(void *context, pid_t root, pid_t foreground_group);
	void *context;
	/* As in cairn_checkpoint_options; not where a PID namespace of its own is made. */
	void (*progress)(void *context, uint64_t done, uint64_t total);
	void *progress_context;
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
/* @count of them from one image, each in a PID namespace of its own: what they have of private anonymous memory is loaded once and shared copy-on-write. All run, or
 * none has. @ret_results: of each. options->pids: AUTO or PRIVATE; not lazy, mapped or roll_back_files; `ready`, `progress` and `terminal` are not used. "%n" in the
 * path of a redirect is the number of the clone, from 1. */
CAIRN_API enum cairn_status cairn_restore_clones(const struct cairn_restore_options *options, unsigned count,
						 struct cairn_restore_result *ret_results, struct cairn_error *error);
/* All that stands against that restore here, without making anything; whoever could have written the image. */
CAIRN_API enum cairn_status cairn_check_image(const struct cairn_restore_options *options, struct cairn_error *error);

/* ---- from inside a program: see libcairn(3) ----
 *
 * All of this works in any thread, without any other Cairn around, and costs nothing while no checkpoint is made. Calls that return int are -1
 * with errno when they fail, and cairn_why says why. */

/* 1: this program runs in a job of cairn run (or of a restore into a namespace of its own), which can be asked for a checkpoint; 0: not. */
CAIRN_API int cairn_is_job(void);

/* A checkpoint of the whole job, to its image (cairn run --image). 0: it is saved. 1: this is the copy that was restored from it. -1: there is
 * none, and the program goes on: ENODEV no job, EDEADLK this thread holds checkpoints off, ENOTSUP something cannot be carried, EPERM, ETIMEDOUT,
 * EIO. */
CAIRN_API int cairn_checkpoint_me(void);

/* No checkpoint, whoever wants it, from cairn_hold to cairn_release. They nest. Keep it short: a checkpoint waits 10 seconds or its --timeout. */
CAIRN_API int cairn_hold(void);
CAIRN_API int cairn_release(void);

/* Called by a thread of the library's own, in which all signals are blocked, while the program's threads run. */
struct cairn_hooks {
	int (*before)(void *context);             /* before a checkpoint; not 0: there shall be none now */
	void (*after)(void *context, int saved);  /* after it, in the program that runs on; saved 0: it failed */
	void (*restored)(void *context, unsigned generation); /* after a restore, instead of `after` */
	void *context;
};
/* A number for cairn_hooks_remove. `before` is called in the reverse order of addition, the others in that order. NULL: nothing to call. A child of
 * fork starts without hooks. */
CAIRN_API int cairn_hooks_add(const struct cairn_hooks *hooks);
CAIRN_API int cairn_hooks_remove(int number);

/* How often this process has been restored (CAIRN_RESTORED), before a fork its parent; as cheap as a variable. */
CAIRN_API unsigned cairn_generation(void);
/* Random, and another one after each restore: of two copies of one image too. Zero before the first. */
CAIRN_API void cairn_restore_id(unsigned char ret_id[16]);

/* Why the last call of this thread that failed did. */
CAIRN_API const char *cairn_why(void);

#ifdef __cplusplus
}
#endif
