/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/arch.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>

enum {
	CODE_SEGMENT_64 = 0x33,
	CODE_SEGMENT_32 = 0x23,
	DATA_SEGMENT = 0x2b,
};
#define FLAG_TRAP UINT64_C(0x100)
#define FLAG_DIRECTION UINT64_C(0x400)
#define USER_END UINT64_C(0x7ffffffff000)

const unsigned char registers_syscall_instruction[REGISTERS_SYSCALL_SIZE] = { 0x0f, 0x05 };

void registers_enter(struct registers *registers, uint64_t address)
{
	registers->raw.rip = address;
	registers->raw.orig_rax = UINT64_MAX;
	registers->raw.rax = 0;
	registers->raw.eflags &= ~(unsigned long long)FLAG_DIRECTION;
}

void registers_batch(struct registers *registers, uint64_t first, uint64_t end, uint64_t finish, uint64_t area)
{
	registers->raw.rbx = first;
	registers->raw.rbp = end;
	registers->raw.r14 = finish;
	registers->raw.r15 = area;
}

void registers_call(struct registers *registers, uint64_t number, const uint64_t args[6], uint64_t finish)
{
	registers->raw.rax = number;
	registers->raw.rdi = args[0];
	registers->raw.rsi = args[1];
	registers->raw.rdx = args[2];
	registers->raw.r10 = args[3];
	registers->raw.r8 = args[4];
	registers->raw.r9 = args[5];
	registers->raw.r14 = finish;
}

long registers_syscall(const struct registers *registers)
{
	/* The kernel keeps -1 here outside of system calls; a negative 32-bit number never restarts. */
	return (int)registers->raw.orig_rax < 0 ? -1 : (long)registers->raw.orig_rax;
}

void registers_set_syscall(struct registers *registers, long number)
{
	registers->raw.orig_rax = (unsigned long long)number;
}

long registers_result(const struct registers *registers)
{
	return (long)registers->raw.rax;
}

void registers_set_result(struct registers *registers, long result)
{
	registers->raw.rax = (unsigned long long)result;
}

static unsigned long long *argument(struct user_regs_struct *raw, int index)
{
	switch (index) {
	case 0:
		return &raw->rdi;
	case 1:
		return &raw->rsi;
	case 2:
		return &raw->rdx;
	case 3:
		return &raw->r10;
	case 4:
		return &raw->r8;
	default:
		return &raw->r9;
	}
}

uint64_t registers_argument(const struct registers *registers, int index)
{
	struct user_regs_struct raw = registers->raw;
	return *argument(&raw, index);
}

void registers_set_argument(struct registers *registers, int index, uint64_t value)
{
	*argument(&registers->raw, index) = value;
}

uint64_t registers_ip(const struct registers *registers)
{
	return registers->raw.rip;
}

uint64_t registers_stack(const struct registers *registers)
{
	return registers->raw.rsp;
}

bool registers_at_entry(const struct registers *registers)
{
	/* The kernel puts -ENOSYS there before it looks at the number (entry_SYSCALL_64). */
	return (long)registers->raw.rax == -ENOSYS;
}

void registers_set_ip(struct registers *registers, uint64_t ip)
{
	registers->raw.rip = ip;
}

void registers_skip_syscall(struct registers *registers)
{
	registers->raw.orig_rax = UINT64_MAX;
}

void registers_reissue(struct registers *registers, long number)
{
	registers->raw.rip -= REGISTERS_SYSCALL_SIZE;
	registers->raw.rax = (unsigned long long)number;
	registers->raw.orig_rax = UINT64_MAX;
}

void registers_home(const struct registers *registers, struct stub_home_data *ret_home)
{
	const struct user_regs_struct *raw = &registers->raw;
	*ret_home = (struct stub_home_data){
		.flags = raw->eflags & ~FLAG_TRAP,
		.rax = raw->rax, .rbx = raw->rbx, .rcx = raw->rcx, .rdx = raw->rdx,
		.rsi = raw->rsi, .rdi = raw->rdi, .rbp = raw->rbp, .rsp = raw->rsp,
		.r8 = raw->r8, .r9 = raw->r9, .r10 = raw->r10, .r11 = raw->r11,
		.r12 = raw->r12, .r13 = raw->r13, .r14 = raw->r14, .r15 = raw->r15,
		.rip = raw->rip,
	};
}

bool registers_native(const struct registers *registers)
{
	return registers->raw.cs == CODE_SEGMENT_64;
}

bool registers_valid(const struct registers *registers)
{
	const struct user_regs_struct *raw = &registers->raw;
	return raw->cs == CODE_SEGMENT_64 && raw->ss == DATA_SEGMENT && raw->rip < USER_END &&
	       raw->fs_base < USER_END && raw->gs_base < USER_END && raw->ds == 0 && raw->es == 0;
}
