/* SPDX-License-Identifier: Apache-2.0 */
/* probe: every register keeps its value through a busy loop: general, x87, SSE, AVX, AVX-512, bases */
#include "probe.h"

#include <asm/prctl.h>
#include <pthread.h>

/* One thread spins with known values in all registers; the other waits for the word to go on. */
struct held {
	uint64_t general[15]; /* rax rbx rcx rdx rsi rdi rbp r8..r15 */
	uint32_t mxcsr, control;
	unsigned char x87[3][16];
	uint64_t masks[8];
	unsigned char vector[32][64];
};

__attribute__((used, aligned(64))) static struct held held_in, held_out;
__attribute__((used)) static volatile int held_flag;
__attribute__((used)) static int held_level; /* 0: SSE, 1: AVX, 2: AVX-512 */
__attribute__((used)) static uint32_t held_mxcsr_before;

void registers_hold(void);

#define OFFSET_MXCSR 120
#define OFFSET_CONTROL 124
#define OFFSET_X87 128
#define OFFSET_MASKS 176
#define OFFSET_VECTOR 240
_Static_assert(offsetof(struct held, mxcsr) == OFFSET_MXCSR, "layout");
_Static_assert(offsetof(struct held, x87) == OFFSET_X87, "layout");
_Static_assert(offsetof(struct held, masks) == OFFSET_MASKS, "layout");
_Static_assert(offsetof(struct held, vector) == OFFSET_VECTOR, "layout");

asm(".text\n"
    ".globl registers_hold\n"
    ".hidden registers_hold\n"
    "registers_hold:\n"
    "	push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "	stmxcsr held_mxcsr_before(%rip)\n"
    "	ldmxcsr held_in+120(%rip)\n"
    "	fninit\n"
    "	fldcw held_in+124(%rip)\n"
    "	fldt held_in+128(%rip)\n fldt held_in+144(%rip)\n fldt held_in+160(%rip)\n"
    "	cmpl $1, held_level(%rip)\n"
    "	jb 10f\n ja 20f\n"
    "	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "	vmovdqu held_in+240+\\i*64(%rip), %ymm\\i\n"
    "	.endr\n jmp 30f\n"
    "10:	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "	movdqu held_in+240+\\i*64(%rip), %xmm\\i\n"
    "	.endr\n jmp 30f\n"
    "20:	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "	vmovdqu64 held_in+240+\\i*64(%rip), %zmm\\i\n"
    "	.endr\n"
    "	.irp i, 0,1,2,3,4,5,6,7\n"
    "	kmovw held_in+176+\\i*8(%rip), %k\\i\n"
    "	.endr\n"
    "30:	mov held_in(%rip), %rax\n mov held_in+8(%rip), %rbx\n mov held_in+16(%rip), %rcx\n"
    "	mov held_in+24(%rip), %rdx\n mov held_in+32(%rip), %rsi\n mov held_in+40(%rip), %rdi\n"
    "	mov held_in+48(%rip), %rbp\n"
    "	mov held_in+56(%rip), %r8\n mov held_in+64(%rip), %r9\n mov held_in+72(%rip), %r10\n"
    "	mov held_in+80(%rip), %r11\n mov held_in+88(%rip), %r12\n mov held_in+96(%rip), %r13\n"
    "	mov held_in+104(%rip), %r14\n mov held_in+112(%rip), %r15\n"
    "1:	cmpl $0, held_flag(%rip)\n"
    "	je 1b\n"
    "	mov %rax, held_out(%rip)\n mov %rbx, held_out+8(%rip)\n mov %rcx, held_out+16(%rip)\n"
    "	mov %rdx, held_out+24(%rip)\n mov %rsi, held_out+32(%rip)\n mov %rdi, held_out+40(%rip)\n"
    "	mov %rbp, held_out+48(%rip)\n"
    "	mov %r8, held_out+56(%rip)\n mov %r9, held_out+64(%rip)\n mov %r10, held_out+72(%rip)\n"
    "	mov %r11, held_out+80(%rip)\n mov %r12, held_out+88(%rip)\n mov %r13, held_out+96(%rip)\n"
    "	mov %r14, held_out+104(%rip)\n mov %r15, held_out+112(%rip)\n"
    "	stmxcsr held_out+120(%rip)\n"
    "	fnstcw held_out+124(%rip)\n"
    "	fstpt held_out+160(%rip)\n fstpt held_out+144(%rip)\n fstpt held_out+128(%rip)\n"
    "	fninit\n"
    "	ldmxcsr held_mxcsr_before(%rip)\n"
    "	cmpl $1, held_level(%rip)\n"
    "	jb 11f\n ja 21f\n"
    "	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "	vmovdqu %ymm\\i, held_out+240+\\i*64(%rip)\n"
    "	.endr\n vzeroupper\n jmp 31f\n"
    "11:	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "	movdqu %xmm\\i, held_out+240+\\i*64(%rip)\n"
    "	.endr\n jmp 31f\n"
    "21:	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "	vmovdqu64 %zmm\\i, held_out+240+\\i*64(%rip)\n"
    "	.endr\n"
    "	.irp i, 0,1,2,3,4,5,6,7\n"
    "	kmovw %k\\i, held_out+176+\\i*8(%rip)\n"
    "	.endr\n vzeroupper\n"
    "31:	pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
    "	ret\n");

static void *word_to_go_on(void *unused)
{
	(void)unused;
	probe_save();
	held_flag = 1;
	return NULL;
}

int main(void)
{
	__builtin_cpu_init();
	held_level = __builtin_cpu_supports("avx512f") ? 2 : __builtin_cpu_supports("avx") ? 1 : 0;
	static const int count[] = { 16, 16, 32 }, size[] = { 16, 32, 64 };

	probe_fill(held_in.general, sizeof held_in.general, 5);
	held_in.mxcsr = 0x7f80; /* round toward zero */
	held_in.control = 0x0b7f; /* round up, extended precision */
	long double numbers[3] = { 1.0L / 3, -1e4000L, 12345.678L };
	for (int i = 0; i < 3; i++)
		memcpy(held_in.x87[i], &numbers[i], 10);
	for (int i = 0; i < count[held_level]; i++)
		probe_fill(held_in.vector[i], (size_t)size[held_level], 100 + (unsigned)i);
	for (unsigned i = 0; held_level == 2 && i < 8; i++)
		held_in.masks[i] = 0x1111u * (i + 1) ^ 0x8001;
	PROBE(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x123456789000));

	pthread_t other;
	PROBE_SAME(pthread_create(&other, NULL, word_to_go_on, NULL), 0, "set-up");
	registers_hold();
	pthread_join(other, NULL);

	unsigned long gs = 0;
	PROBE(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	PROBE_SAME(gs, 0x123456789000, "GS base");
	for (int i = 0; i < 15; i++)
		if (held_in.general[i] != held_out.general[i])
			probe_differs("general register %d is %#llx, was %#llx", i, (long long)held_out.general[i],
				      (long long)held_in.general[i]);
	PROBE_SAME(held_out.mxcsr, held_in.mxcsr, "MXCSR");
	PROBE_SAME(held_out.control & 0xffff, held_in.control, "x87 control word");
	for (int i = 0; i < 3; i++)
		probe_same_bytes(held_out.x87[i], held_in.x87[i], 10, "x87 register");
	for (int i = 0; i < count[held_level]; i++)
		probe_same_bytes(held_out.vector[i], held_in.vector[i], (size_t)size[held_level], "vector register");
	for (int i = 0; i < 8; i++)
		PROBE_SAME(held_out.masks[i], held_in.masks[i], "mask register");
	printf("level %d\n", held_level);
	return probe_end();
}
