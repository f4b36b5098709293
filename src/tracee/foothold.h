/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Cairn's foothold in a frozen address space: how a frozen thread is made to run system calls and put back, so that
 * at every instant it could go on by itself if Cairn died (the kernel then detaches it and lets it run with whatever registers it has).
 *
 * The stub's bytes and the registers to go home with are written into slack: the zero bytes between the end
 * of a text segment and the end of its last page, which no program reads or runs. Only then are the registers pointed
 * there, and only after that are signals blocked; from then on a thread left alone runs through to stub_home, which
 * gives back the borrowed area and the signal mask and jumps home. Where no mapping has slack, the first and the last call
 * are made at a system call instruction of the program itself (`window`): a death of Cairn within those two stops,
 * some 30 us each, would harm it.
 *
 * A program may have as many mappings as it may (vm.max_map_count): then one that is private and anonymous is made longer by the area, which takes none.
 *
 * At the end the slack is zero again. What stays is a private copy of that text page, 4 KiB. */
#include "base/clock.h"
#include "kernel/maps.h"
#include "tracee/batch.h"
#include "tracee/ptrace.h"

struct foothold {
	uint64_t code; /* the stub's bytes; 0: not yet, or none */
	uint64_t area; /* BATCH_AREA bytes; 0: not mapped */
	uint64_t growing;     /* the end of a mapping that could be made longer by the area; 0: none */
	bool grown;           /* it was: a further mapping was not to be had */
	uint64_t instruction; /* a system call instruction of the program: only when there is no slack */
	bool window;
	const struct deadline *deadline; /* bounds each call; NULL: threads are waited for as long as they take */
	int memory; /* one more than a descriptor of its /proc/PID/mem, from the first that enters to the last that leaves; 0: none */
	unsigned rest_s;       /* by how many seconds a thread rests longer than half a second, before it goes on without Cairn: while it must not */
	uint64_t grace_until_ns; /* before which no deadline counts: on the way home */
};

/* A frozen thread that works for Cairn between enter and leave. */
struct guest {
	pid_t tid;
	struct registers home; /* with which it was stopped; restarts are still pending in them */
	uint64_t blocked;      /* its signal mask */
	bool inside;
	bool masked;           /* all its signals are blocked, until it is put back or goes home */
	bool standing;         /* at an interrupt stop, whatever its registers say */
	bool adrift;           /* did not stop in time, or its rest was over: it goes home by itself, and on; what is known of it is not true any more */
	bool held_stop;        /* a SIGSTOP came, which nobody can block: it was held back, and its process has to get it when it is let go */
};

/* Chooses the place in the space of @pid, whose threads stand at @ips. Changes nothing. A thread that is still
 * on its way home from a Cairn that died is a transient fault. */
int foothold_find(pid_t pid, const struct map_list *maps, const uint64_t *ips, size_t ip_count, const struct deadline *deadline,
		  struct foothold *ret_foothold, struct fault *fault);
/* A system call instruction in the executable memory of @pid. */
int foothold_find_instruction(pid_t pid, const struct map_list *maps, uint64_t *ret_address, struct fault *fault);
/* @guest is at an interrupt stop. The first to enter maps the area. */
int foothold_enter(struct foothold *foothold, struct guest *guest, struct fault *fault);
int foothold_run(struct foothold *foothold, struct guest *guest, struct batch *batch, struct fault *fault);
/* The same for calls that need Cairn's help to come to their end: @attend is called when the thread has been set off. It fails only where the thread will not come to its rest. */
typedef int foothold_attend(void *context, struct fault *fault);
int foothold_run_attended(struct foothold *foothold, struct guest *guest, struct batch *batch, foothold_attend *attend, void *context,
			  struct fault *fault);
/* While it is attended: a stop that came between its calls (SIGSTOP, which is held back, or job control) would last until somebody looks. Does not wait. */
int foothold_go_on(struct guest *guest, struct fault *fault);
/* Puts the thread back to an interrupt stop with its own registers and mask, as it was. @last: the area
 * is unmapped and the slack zeroed as well. Works after a failed enter or run, too; but one that is adrift is left alone. */
int foothold_leave(struct foothold *foothold, struct guest *guest, bool last, struct fault *fault);
