/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What programs can see of this host's processor, and may have chosen their code by. An architecture is a file
 * arch/NAME/processor.c. */
#include <stddef.h>
#include <stdint.h>

/* One register of one CPUID leaf: the bits that stand for something that a program can use. */
struct processor_word {
	uint32_t leaf, subleaf;
	uint32_t output; /* 0 eax, 1 ebx, 2 ecx, 3 edx */
	uint32_t bits;
};

/* Where a component of the vector registers lies in what ptrace(2) gives. Makers of processors differ here. */
struct processor_component {
	uint32_t number; /* bit of XCR0 */
	uint32_t offset, size;
};

enum { PROCESSOR_WORDS = 64, PROCESSOR_COMPONENTS = 62 };

struct processor {
	uint64_t xstate;        /* XCR0: components that are enabled; 0 where there is none */
	uint64_t hwcap, hwcap2; /* of the auxiliary vector */
	struct processor_word words[PROCESSOR_WORDS];
	size_t word_count;
	struct processor_component components[PROCESSOR_COMPONENTS]; /* from number 2 on, ascending */
	size_t component_count;
	uint32_t xstate_size;   /* bytes of all registers as ptrace(2) gives them, 0: unknown */
};

enum { PROCESSOR_JUMP = 16 };
/* A jump to anywhere, that changes no register which a function keeps. Returns its length; 0: not known for this processor. */
size_t processor_jump(uint64_t target, uint8_t ret_code[PROCESSOR_JUMP]);

/* A function that makes system call @number with its own arguments (-1: says ENOSYS). The same. */
size_t processor_call(long number, uint8_t ret_code[PROCESSOR_JUMP]);

void processor_read(struct processor *ret_processor);
/* How many features of @wanted this host's processor lacks; @names becomes their names as /proc/cpuinfo has them, with ", " in between, and
 * ends with "..." where they are too many. What no program could use is not compared, nor is what only makes it faster. */
size_t processor_lacks(const struct processor *wanted, char *names, size_t size);
/* The names of components of XCR0. */
void processor_xstate_names(uint64_t components, char *names, size_t size);
