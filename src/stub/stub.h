/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The batch stub: the only code of Cairn that ever runs in another program. It walks an array of
 * struct stub_call, makes each system call, stores the result, and stops at the first error that the call
 * does not allow. It is position-independent, needs no stack, and is copied as bytes.
 *
 * In a frozen program it ends in a rest of half a second (or some more), in which a living Cairn stops it (and after the call that maps the
 * area, from whose entry it goes to an interrupt stop); if Cairn died, the program walks on into stub_home, which takes away what was borrowed, reloads every
 * register from struct stub_home_data and continues where the program was. In a newborn it ends in a trap.
 *
 * Registers on entry: rbx first call, rbp end of the array, r14 where to go at the end, r15 the borrowed area (for stub_home to
 * unmap; 0 or an error: none). */
#include <stdint.h>

struct stub_call {
	uint64_t number;   /* low half: system call; STUB_MAY_FAIL: go on after an error; STUB_BEARS: it makes a process */
	uint64_t args[6];
	int64_t result;    /* STUB_NOT_RUN until it ran */
};
#define STUB_MAY_FAIL (UINT64_C(1) << 32)
/* clone(2): the process that it makes runs the calls from args[4] to args[5], which clone(2) leaves alone unless flags say otherwise, and ends. */
#define STUB_BEARS (UINT64_C(1) << 33)
#define STUB_NOT_RUN INT64_MIN

/* What stub_home reloads; one architecture's layout, filled by tracee/arch. Lies at stub_home_data. */
#if defined(__x86_64__)
struct stub_home_data {
	uint64_t flags;
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rip;
	uint64_t area_size;
	uint64_t blocked; /* signal mask */
};
#else
#error "no batch stub for this architecture"
#endif

/* Bytes from stub_begin to stub_end are copied; the others are places in them. */
extern const unsigned char stub_begin[], stub_map[], stub_grow[], stub_batch[], stub_rest[], stub_trap[], stub_home[],
	stub_home_unmap[], stub_data[], stub_end[];
