/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One thread under ptrace(2): every function here stands before a thread that this very thread of Cairn
 * traces (ptrace(2): the tracer is a thread, and its end is the end of all its tracees' tracing). */
#include <linux/filter.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/fault.h"
#include "tracee/arch.h"

/* PTRACE_SEIZE. @newborn: it dies with Cairn (EXITKILL), and what it clones is seized as well. FAULT_VANISHED, FAULT_PERMISSION. */
int ptrace_seize(pid_t tid, bool newborn, struct fault *fault);
/* A stopped thread's seccomp filters (and strict mode) judge no call until it is let go, or Cairn dies; nor those of its children that are
 * seized with it. FAULT_PERMISSION. */
int ptrace_suspend_seccomp(pid_t tid, bool newborn, struct fault *fault);
/* A stopped process of Cairn's own making, which was born seized (CLONE_PTRACE), dies with Cairn from now on, and so will those that it makes. @suspended: its
 * filters stay suspended. */
int ptrace_tie(pid_t tid, bool suspended, struct fault *fault);
/* Filter number @number of a stopped thread, the oldest first: up to PTRACE_FILTER_MOST instructions, and its SECCOMP_FILTER_FLAG_*. -ENOENT
 * without a fault: it has no more. */
enum { PTRACE_FILTER_MOST = 4096 }; /* BPF_MAXINSNS */
int ptrace_get_filter(pid_t tid, uint32_t number, struct sock_filter *instructions, uint32_t *ret_count, uint64_t *ret_flags,
		      struct fault *fault);
/* Syscall user dispatch of a stopped thread; a kernel before 6.4 does not tell, and is taken for one that has none. */
struct dispatch_place {
	uint64_t mode, selector, offset, size; /* as struct ptrace_sud_config; mode 0: off */
};
int ptrace_get_dispatch(pid_t tid, struct dispatch_place *ret_place, struct fault *fault);
int ptrace_set_dispatch(pid_t tid, const struct dispatch_place *place, struct fault *fault);
bool ptrace_has_ports(pid_t tid); /* ioperm(2) */
/* Asks a running, seized thread to stop; the stop comes by ptrace_wait_stop. */
int ptrace_interrupt(pid_t tid, struct fault *fault);

enum stop_kind {
	STOP_INTERRUPT, /* PTRACE_EVENT_STOP of an interrupt, or of a newborn's birth */
	STOP_GROUP,     /* job control: the process is stopped */
	STOP_SYSCALL,   /* entry or exit */
	STOP_SIGNAL,    /* a signal is about to be delivered */
	STOP_EVENT,     /* clone, fork, exec ...: `event` */
	STOP_ENDED,     /* exited or killed: `status` */
};
struct stop {
	enum stop_kind kind;
	int signal; /* of STOP_SIGNAL and STOP_GROUP */
	int event;  /* PTRACE_EVENT_* */
	int status; /* as wait(2) gave it */
};
/* Waits for the next stop of @tid. Looks a few times, then sleeps in growing steps up to 1 ms. -ETIMEDOUT without a fault
 * text when @patience_ns passed (UINT64_MAX: wait as long as it takes). */
int ptrace_wait_stop(pid_t tid, uint64_t patience_ns, struct stop *ret_stop, struct fault *fault);
/* Is there a stop, or its end, that nobody has waited for yet? */
bool ptrace_has_stopped(pid_t tid);
int ptrace_resume(pid_t tid, int request, int signal, struct fault *fault); /* PTRACE_CONT, PTRACE_SYSCALL */
int ptrace_release(pid_t tid, struct fault *fault);                        /* PTRACE_DETACH */

int ptrace_get_registers(pid_t tid, struct registers *ret_registers, struct fault *fault);
int ptrace_set_registers(pid_t tid, const struct registers *registers, struct fault *fault);
/* NT_X86_XSTATE or its like; *@size is the room in and the size out. */
int ptrace_get_xstate(pid_t tid, void *xstate, size_t *size, struct fault *fault);
int ptrace_set_xstate(pid_t tid, const void *xstate, size_t size, struct fault *fault);
enum { XSTATE_MAX = 64 * 1024 };
int ptrace_get_mask(pid_t tid, uint64_t *ret_blocked, struct fault *fault);
int ptrace_set_mask(pid_t tid, uint64_t blocked, struct fault *fault);
/* Up to @space queued signals, from number @from on; of the process when @shared. Returns their number. */
int ptrace_peek_signals(pid_t tid, bool shared, uint64_t from, siginfo_t *ret_signals, int space, struct fault *fault);

struct rseq_place {
	uint64_t address; /* 0: none registered */
	uint32_t size, signature, flags;
};
/* PTRACE_GET_RSEQ_CONFIGURATION (5.13). */
int ptrace_get_rseq(pid_t tid, struct rseq_place *ret_place, struct fault *fault);

/* Memory of the stopped thread's address space; all or nothing. ptrace_poke writes through page protections, a copy is made of a
 * private page: by @memory, a descriptor of ptrace_open_memory (-1: there is none), or PTRACE_POKEDATA: @size is a multiple of 8. */
int memory_read(pid_t pid, uint64_t address, void *data, size_t size, struct fault *fault);
int memory_write(pid_t pid, uint64_t address, const void *data, size_t size, struct fault *fault);
int ptrace_open_memory(pid_t tid);
int ptrace_poke(pid_t tid, int memory, uint64_t address, const void *data, size_t size, struct fault *fault);
