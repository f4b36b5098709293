/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A newborn's private anonymous memory under a userfaultfd (userfaultfd(2), ioctl_userfaultfd(2)): pages are put there whole and at once
 * (UFFDIO_COPY), which is faster than writing them from outside, as nobody clears them first, and works through any protection. Kept open
 * while the program runs, a fault on a page that is not there yet waits for one. */
#include "rebuild/newborn.h"

struct fault_range {
	uint64_t start, end;
};
struct fault_space {
	uint32_t space;    /* id */
	pid_t pid;
	int pidfd;
	int userfaultfd;   /* -1: none */
	VEC(struct fault_range) ranges; /* registered, ascending */
};

/* Makes a userfaultfd in a newborn and registers its private anonymous mappings. @events: what the program will do to its memory is to be
 * told, for serving it while it runs (needs CAP_SYS_PTRACE). Fails without a trace. */
int faults_begin(struct rebuild_process *process, bool events, struct fault_space *ret_space, struct fault *fault);
void faults_end(struct fault_space *space);
/* A run of pages may lie over several mappings. Returns where the first stretch of [@start, @end) ends that is all registered, or not at
 * all; *ret_covered says which. */
uint64_t faults_stretch(const struct fault_space *space, uint64_t start, uint64_t end, bool *ret_covered);

enum faults_put {
	PUT_DONE,   /* pages that were there stayed as they are */
	PUT_AGAIN,  /* the address space is changing: its events come first */
	PUT_GONE,   /* there is no such process, or address space, any more */
	PUT_FAILED, /* errno says why */
};
/* Puts @pages pages at @address. Where nothing is mapped (any more) nothing is put. */
enum faults_put faults_put(int userfaultfd, uint64_t address, const void *data, uint32_t pages);
