/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The bulletin: one private page in a program that uses libcairn from inside (cairn.h, inside/), on which program and Cairn leave
 * word for each other. It is found by its address, or by its name in /proc/PID/maps, so that no descriptor stays open and nothing
 * has to be known of the program beforehand. A child of fork finds it zeroed (MADV_WIPEONFORK), and keeps only what tells of restores.
 *
 * Every field has one writer. A number is written after what it speaks of. Whoever Cairn has word for is woken by a SIGURG to that very thread,
 * which has it blocked and waits for it: where it arrived at the wrong moment it would be ignored. */
#include <stdint.h>

/* A place where no x86-64 program has anything: between its own text and the libraries, above what the sanitizers take. */
#define BULLETIN_ADDRESS UINT64_C(0x2ca120000000)
#define BULLETIN_NAME "cairn" /* where the address is taken: "[anon:cairn]" */
#define BULLETIN_MAGIC "cairn/1" /* with its NUL the first eight bytes */

enum {
	BULLETIN_SIZE = 4096,
	BULLETIN_ANSWER = 512,
	/* Asks a job's init (PID 1) for a checkpoint of the job; sigqueue(3) with the number `asked`. Above those that libcs use. */
	BULLETIN_REQUEST = 50,
};

struct bulletin {
	char magic[8];

	/* By the program. */
	uint32_t holds;            /* critical sections that threads are in: no checkpoint while it is not 0 */
	int32_t helper;            /* tid of the thread that runs hooks, 0: none */
	int32_t waiter;            /* tid of the thread in cairn_checkpoint_me, 0: none */
	uint32_t asked;            /* number of its request */
	uint32_t before;           /* turn for which the hooks before a checkpoint have run */
	int32_t refused;           /* and what the first that objected returned, 0: none */
	uint32_t after;            /* turn for which the hooks after it have run */
	uint32_t greeted;          /* generation for which the hooks after a restore have run */

	/* By Cairn. */
	uint32_t turn;             /* number of the checkpoint before which hooks are to be run */
	int32_t turn_by;           /* PID of that Cairn as the program sees it, 0: not to be seen */
	uint32_t over;             /* turn that has ended */
	uint32_t failed;           /* without an image */
	uint32_t answered;         /* number of the request that is answered */
	int32_t status;            /* enum cairn_status */
	char answer[BULLETIN_ANSWER]; /* why not */

	/* By a restore, before anything runs. */
	uint32_t generation;       /* how often this process has been restored */
	uint8_t restore_id[16];    /* random, another one for each restore; zero before the first */
};
_Static_assert(sizeof(struct bulletin) <= BULLETIN_SIZE, "one page");
