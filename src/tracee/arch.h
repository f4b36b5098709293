/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What differs between architectures: registers of a stopped thread and where they go in a system call. An architecture is a
 * folder arch/NAME with registers.h, registers.c and xstate.c, a stub/NAME.S, and kernel/arch/NAME/processor.c. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include "tracee/arch/x86_64/registers.h"
#else
#error "this architecture has no folder in src/tracee/arch yet"
#endif

#include "kernel/processor.h"
#include "stub/stub.h"

/* Points the registers at @address, ready to run the stub there: no system call is pending, so the
 * kernel restarts nothing. */
void registers_enter(struct registers *registers, uint64_t address);
/* The registers of a stub run over calls in [@first, @end), that goes to @finish afterwards. */
void registers_batch(struct registers *registers, uint64_t first, uint64_t end, uint64_t finish, uint64_t area);
/* The registers of a system call that is about to be made by the instruction at the program counter. */
void registers_call(struct registers *registers, uint64_t number, const uint64_t args[6], uint64_t finish);
/* At a stop: the system call that was interrupted, -1 when the thread was not in one; its result; its arguments. */
long registers_syscall(const struct registers *registers);
void registers_set_syscall(struct registers *registers, long number);
long registers_result(const struct registers *registers);
void registers_set_result(struct registers *registers, long result);
uint64_t registers_argument(const struct registers *registers, int index);
void registers_set_argument(struct registers *registers, int index, uint64_t value);
uint64_t registers_ip(const struct registers *registers);
uint64_t registers_stack(const struct registers *registers);
bool registers_at_entry(const struct registers *registers); /* at a system call stop: before the call */
void registers_set_ip(struct registers *registers, uint64_t ip);
/* Makes a system call-entry stop pass without making the call. */
void registers_skip_syscall(struct registers *registers);
/* Turns "interrupted in a system call" into "about to make it again", as the kernel does when no
 * handler runs: the instruction is stepped back over and the number put back (@number: 0 or more, another call). */
void registers_reissue(struct registers *registers, long number);
/* What stub_home reloads so that the thread goes on as if nothing had been. */
void registers_home(const struct registers *registers, struct stub_home_data *ret_home);
/* 64-bit user code, as opposed to a 32-bit one. */
bool registers_native(const struct registers *registers);
/* Are all values such that PTRACE_SETREGSET takes them (segment selectors, canonical addresses)? */
bool registers_valid(const struct registers *registers);

/* Vector registers as PTRACE_GETREGSET gives them, of a thread of the processor @then (of which an image tells xstate and components). */
/* The components that are in use and have to be put back, as bits of XCR0. @size is at least 576. */
uint64_t xstate_used(const void *xstate, size_t size, const struct processor *then);
/* What the thread may do to memory with which protection key (PKRU): two bits for each, from key 0 up; no access, no writing. 0: it has none. */
uint32_t xstate_key_rights(const void *xstate, size_t size, const struct processor *then);
/* Does PTRACE_SETREGSET take them @here as they are? */
bool xstate_fits(const struct processor *then, size_t size, const struct processor *here);
/* The same registers as this processor lays them out: here->xstate_size bytes. Components that it does not have are left out. */
void xstate_convert(const void *xstate, size_t size, const struct processor *then, const struct processor *here, void *ret_xstate);

/* Bytes of a system call instruction, to find one in a text. */
extern const unsigned char registers_syscall_instruction[];
enum { REGISTERS_SYSCALL_SIZE = 2 };
