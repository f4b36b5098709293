/* SPDX-License-Identifier: Apache-2.0 */
/* See stub.h. Only instructions and rip-relative data: no relocation, no stack, no vector register. */
	.section .rodata
	.balign 16
	.globl stub_begin, stub_map, stub_grow, stub_batch, stub_rest, stub_trap, stub_home, stub_home_unmap, stub_data, stub_end
	.hidden stub_begin, stub_map, stub_grow, stub_batch, stub_rest, stub_trap, stub_home, stub_home_unmap, stub_data, stub_end

stub_begin:
/* mmap(2) of the area, its arguments already in the registers. */
stub_map:
	syscall
1:	movq	%rax, %r15
	jmp	*%r14

/* mremap(2) that makes a mapping longer by the area, which is in r9. */
stub_grow:
	syscall
	cmpq	$-4095, %rax
	cmovbq	%r9, %rax
	jmp	1b

stub_batch:
1:	cmpq	%rbp, %rbx
	jae	2f
	movq	(%rbx), %r13
	movl	%r13d, %eax
	movq	8(%rbx), %rdi
	movq	16(%rbx), %rsi
	movq	24(%rbx), %rdx
	movq	32(%rbx), %r10
	movq	40(%rbx), %r8
	movq	48(%rbx), %r9
	syscall
	testq	%rax, %rax
	jnz	3f
	btq	$33, %r13
	jc	stub_born
3:	movq	%rax, 56(%rbx)
	addq	$64, %rbx
	cmpq	$-4095, %rax
	jb	1b
	btq	$32, %r13
	jc	1b
2:	jmp	*%r14

/* Where a process that such a call has made comes from its system call: it has calls of its own, and no way home. Nothing is stored in the
 * call's result, which may be its parent's memory. */
stub_born:
	movq	48(%rbx), %rbp
	movq	40(%rbx), %rbx
	leaq	stub_gone(%rip), %r14
	jmp	1b
stub_gone:
	xorl	%edi, %edi
	movl	$231, %eax		/* exit_group */
	syscall
	jmp	stub_gone

stub_trap:
	int3

/* select(2) on nothing for half a second; its timeval is the end of the area, where Cairn may have written whole seconds. No restart block is touched. */
stub_rest:
	movq	d_area_size(%rip), %r8
	leaq	-16(%r15,%r8), %r8
	movq	$500000, 8(%r8)
	xorl	%edi, %edi
	xorl	%esi, %esi
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	movl	$23, %eax
	syscall

/* Home without Cairn, or its last step with it. */
stub_home:
	leaq	-1(%r15), %rax
	cmpq	$-4097, %rax		/* no area: 0, or the error of mmap */
	ja	3f
stub_home_unmap:
	movq	%r15, %rdi
	movq	d_area_size(%rip), %rsi
	movl	$11, %eax		/* munmap */
	syscall
/* The flags are loaded by way of rsp while signals are still blocked; from here on only instructions that leave
 * them alone (syscall saves and restores them). rsp is the program's own again before the mask is. */
3:	leaq	d_flags(%rip), %rsp
	popfq
	movq	d_rsp(%rip), %rsp
	movl	$2, %edi		/* SIG_SETMASK */
	leaq	d_blocked(%rip), %rsi
	movl	$0, %edx
	movl	$8, %r10d
	movl	$14, %eax		/* rt_sigprocmask */
	syscall
	movq	d_rax(%rip), %rax
	movq	d_rbx(%rip), %rbx
	movq	d_rcx(%rip), %rcx
	movq	d_rdx(%rip), %rdx
	movq	d_rsi(%rip), %rsi
	movq	d_rdi(%rip), %rdi
	movq	d_rbp(%rip), %rbp
	movq	d_r8(%rip), %r8
	movq	d_r9(%rip), %r9
	movq	d_r10(%rip), %r10
	movq	d_r11(%rip), %r11
	movq	d_r12(%rip), %r12
	movq	d_r13(%rip), %r13
	movq	d_r14(%rip), %r14
	movq	d_r15(%rip), %r15
	jmp	*d_rip(%rip)

	.balign 8
stub_data:
d_flags:	.quad 0
d_rax:	.quad 0
d_rbx:	.quad 0
d_rcx:	.quad 0
d_rdx:	.quad 0
d_rsi:	.quad 0
d_rdi:	.quad 0
d_rbp:	.quad 0
d_rsp:	.quad 0
d_r8:	.quad 0
d_r9:	.quad 0
d_r10:	.quad 0
d_r11:	.quad 0
d_r12:	.quad 0
d_r13:	.quad 0
d_r14:	.quad 0
d_r15:	.quad 0
d_rip:	.quad 0
d_area_size:	.quad 0
d_blocked:	.quad 0
stub_end:
	.section .note.GNU-stack,"",@progbits
