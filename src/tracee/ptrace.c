/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/ptrace.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/procfs.h"

static int fail(struct fault *fault, const char *what, pid_t tid)
{
	int error = errno;
	/* ECHILD of wait(2): another thread of its process has run exec, and its number with it if it was the first, or Cairn has taken note of its end (capture/reaper.c). */
	if (error == ESRCH || error == ECHILD)
		return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", tid);
	return fault_set(fault, fault_class_of(error), error, "thread %d: %s: %s", tid, what, strerror(error));
}

static bool is_ending(pid_t tid)
{
	enum { PF_EXITING = 4 }; /* include/linux/sched.h */
	struct proc_stat stat;
	return proc_stat_read(tid, 0, &stat, NULL) < 0 || stat.state == 'Z' || stat.state == 'X' ||
	       (stat.flags & PF_EXITING);
}

static pid_t tracer_of(pid_t tid)
{
	struct arena arena = { 0 };
	struct proc_status status = { 0 };
	int error = errno;
	proc_status_read(tid, 0, &arena, &status, NULL);
	arena_finish(&arena);
	errno = error;
	return status.tracer;
}

static unsigned long options_of(bool newborn)
{
	return PTRACE_O_TRACESYSGOOD | (newborn ? PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
							  PTRACE_O_TRACEEXEC : 0);
}

/* A thread that execs takes the number of its process's first one, if it is another (fs/exec.c de_thread). Who was waiting then for the exec to end, as
 * PTRACE_SEIZE does, is told EPERM for the end of the old one: the new one has to be asked. */
static int seize(pid_t tid, unsigned long options)
{
	enum { MOST_TRIES = 15, AT_ONCE = 3 }; /* a program that does nothing but exec was met in the middle of one three times in a row */
	int error = 0;
	for (int i = 0; i < MOST_TRIES; i++) {
		if (i >= AT_ONCE)
			clock_sleep_ns(1000000);
		if (ptrace(PTRACE_SEIZE, tid, NULL, options) == 0)
			return 0;
		error = errno;
		if (error != EPERM || is_ending(tid) || tracer_of(tid))
			break;
	}
	return -error;
}

int ptrace_seize(pid_t tid, bool newborn, struct fault *fault)
{
	int rc = seize(tid, options_of(newborn));
	if (rc == 0)
		return 0;
	/* EPERM is also what an ending thread gives (kernel/ptrace.c ptrace_attach looks at exit_state). */
	if (rc == -EPERM && is_ending(tid))
		return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", tid);
	pid_t tracer = rc == -EPERM ? tracer_of(tid) : 0;
	/* Born by clone(2) with CLONE_PTRACE of one that is seized already: it is too, in the same way (kernel/ptrace.h ptrace_init_task). */
	if (tracer == getpid())
		return 0;
	if (tracer)
		return fault_set(fault, FAULT_UNSUPPORTED, EBUSY,
				 "is traced by process %d already; try again when that debugger or tracer is detached",
				 tracer);
	if (rc == -EPERM)
		return fault_set(fault, FAULT_PERMISSION, EPERM,
				 "the kernel does not let this user trace it; try as root, or as the user it "
				 "belongs to (and see /proc/sys/kernel/yama/ptrace_scope)");
	errno = -rc;
	return fail(fault, "seize", tid);
}

int ptrace_suspend_seccomp(pid_t tid, bool newborn, struct fault *fault)
{
	if (ptrace(PTRACE_SETOPTIONS, tid, NULL, options_of(newborn) | PTRACE_O_SUSPEND_SECCOMP) == 0)
		return 0;
	if (errno == EPERM || errno == EINVAL)
		return fault_set(fault, FAULT_PERMISSION, errno,
				 "thread %d: its seccomp filters cannot be suspended (%s), for which Cairn needs CAP_SYS_ADMIN in the first user "
				 "namespace and no filter of its own; try as root, outside of containers", tid, strerror(errno));
	return fail(fault, "suspend seccomp", tid);
}

int ptrace_tie(pid_t tid, bool suspended, struct fault *fault)
{
	unsigned long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | (suspended ? PTRACE_O_SUSPEND_SECCOMP : 0);
	return ptrace(PTRACE_SETOPTIONS, tid, NULL, options) ? fail(fault, "tie to Cairn", tid) : 0;
}

int ptrace_get_filter(pid_t tid, uint32_t number, struct sock_filter *instructions, uint32_t *ret_count, uint64_t *ret_flags,
		      struct fault *fault)
{
	struct { uint64_t filter, flags; } metadata = { number, 0 };
	long count = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, (unsigned long)number, instructions);
	if (count < 0 && errno == ENOENT)
		return -ENOENT;
	if (count < 0 && errno == EMEDIUMTYPE)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: the kernel keeps no program of its seccomp filter %u; try to "
				 "start it without its sandbox", tid, number);
	/* 4.16; of a kernel without it nobody knows whether it was to log. */
	if (count < 0 || ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof metadata, &metadata) < 0)
		return errno == EACCES ? fault_set(fault, FAULT_PERMISSION, EACCES,
						   "thread %d: reading its seccomp filters needs CAP_SYS_ADMIN in the first user namespace and a "
						   "Cairn without any; try as root, outside of containers", tid) :
					 fail(fault, "read seccomp filters", tid);
	*ret_count = (uint32_t)count;
	*ret_flags = metadata.flags;
	return 0;
}

/* include/uapi/linux/ptrace.h: 6.4, not in every distribution's headers. */
enum { SET_DISPATCH = 0x4210, GET_DISPATCH = 0x4211 };

int ptrace_get_dispatch(pid_t tid, struct dispatch_place *ret_place, struct fault *fault)
{
	struct dispatch_place place = { 0 };
	if (ptrace((enum __ptrace_request)GET_DISPATCH, tid, sizeof place, &place) < 0 && errno == ESRCH)
		return fail(fault, "read syscall user dispatch", tid);
	*ret_place = place;
	return 0;
}

int ptrace_set_dispatch(pid_t tid, const struct dispatch_place *place, struct fault *fault)
{
	struct dispatch_place copy = *place;
	return ptrace((enum __ptrace_request)SET_DISPATCH, tid, sizeof copy, &copy) < 0 ? fail(fault, "set syscall user dispatch", tid) : 0;
}

bool ptrace_has_ports(pid_t tid)
{
	enum { IO_PORTS = 0x201 }; /* NT_386_IOPERM */
	uint8_t ports[65536 / 8];
	struct iovec iov = { ports, sizeof ports };
	return ptrace(PTRACE_GETREGSET, tid, IO_PORTS, &iov) == 0 && iov.iov_len > 0;
}

int ptrace_interrupt(pid_t tid, struct fault *fault)
{
	return ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) ? fail(fault, "interrupt", tid) : 0;
}

static struct stop decode(int status)
{
	struct stop stop = { .status = status };
	if (!WIFSTOPPED(status)) {
		stop.kind = STOP_ENDED;
		return stop;
	}
	int signal = WSTOPSIG(status);
	stop.event = status >> 16;
	if (stop.event == PTRACE_EVENT_STOP) {
		stop.kind = signal == SIGTRAP ? STOP_INTERRUPT : STOP_GROUP;
		stop.signal = signal;
	} else if (stop.event) {
		stop.kind = STOP_EVENT;
	} else if (signal == (SIGTRAP | 0x80)) {
		stop.kind = STOP_SYSCALL;
	} else {
		stop.kind = STOP_SIGNAL;
		stop.signal = signal;
	}
	return stop;
}

int ptrace_wait_stop(pid_t tid, uint64_t patience_ns, struct stop *ret_stop, struct fault *fault)
{
	int status;
	if (patience_ns == UINT64_MAX) {
		while (waitpid(tid, &status, __WALL) < 0)
			if (errno != EINTR)
				return fail(fault, "wait", tid);
		*ret_stop = decode(status);
		return 0;
	}
	const uint64_t spin_ns = 50000, begin = clock_now_ns();
	for (uint64_t pause_ns = 20000;;) {
		pid_t pid = waitpid(tid, &status, __WALL | WNOHANG);
		if (pid == tid) {
			*ret_stop = decode(status);
			return 0;
		}
		if (pid < 0 && errno != EINTR)
			return fail(fault, "wait", tid);
		/* No sched_yield(2): on a busy processor EEVDF makes a thread that yields wait for seconds. */
		uint64_t waited_ns = clock_now_ns() - begin;
		if (waited_ns < spin_ns)
			continue;
		if (waited_ns > patience_ns)
			return -ETIMEDOUT;
		clock_sleep_ns(pause_ns);
		if (pause_ns < 1000000)
			pause_ns *= 2;
	}
}

bool ptrace_has_stopped(pid_t tid)
{
	siginfo_t info = { 0 };
	return waitid(P_PID, (id_t)tid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0 && info.si_pid;
}

int ptrace_resume(pid_t tid, int request, int signal, struct fault *fault)
{
	return ptrace(request, tid, NULL, (unsigned long)signal) ? fail(fault, "resume", tid) : 0;
}

int ptrace_release(pid_t tid, struct fault *fault)
{
	return ptrace(PTRACE_DETACH, tid, NULL, NULL) ? fail(fault, "detach", tid) : 0;
}

int ptrace_get_registers(pid_t tid, struct registers *ret_registers, struct fault *fault)
{
	struct iovec iov = { &ret_registers->raw, sizeof ret_registers->raw };
	return ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov) ? fail(fault, "read registers", tid) : 0;
}

int ptrace_set_registers(pid_t tid, const struct registers *registers, struct fault *fault)
{
	struct registers copy = *registers;
	struct iovec iov = { &copy.raw, sizeof copy.raw };
	return ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov) ? fail(fault, "set registers", tid) : 0;
}

int ptrace_get_xstate(pid_t tid, void *xstate, size_t *size, struct fault *fault)
{
	struct iovec iov = { xstate, *size };
	if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov))
		return fail(fault, "read vector registers", tid);
	*size = iov.iov_len;
	return 0;
}

int ptrace_set_xstate(pid_t tid, const void *xstate, size_t size, struct fault *fault)
{
	struct iovec iov = { (void *)xstate, size };
	return ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov) ? fail(fault, "set vector registers", tid) : 0;
}

int ptrace_get_mask(pid_t tid, uint64_t *ret_blocked, struct fault *fault)
{
	return ptrace(PTRACE_GETSIGMASK, tid, sizeof *ret_blocked, ret_blocked) ? fail(fault, "read signal mask", tid)
										: 0;
}

int ptrace_set_mask(pid_t tid, uint64_t blocked, struct fault *fault)
{
	return ptrace(PTRACE_SETSIGMASK, tid, sizeof blocked, &blocked) ? fail(fault, "set signal mask", tid) : 0;
}

int ptrace_peek_signals(pid_t tid, bool shared, uint64_t from, siginfo_t *ret_signals, int space, struct fault *fault)
{
	struct __ptrace_peeksiginfo_args args = {
		.off = from,
		.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
		.nr = space,
	};
	long count = ptrace(PTRACE_PEEKSIGINFO, tid, &args, ret_signals);
	return count < 0 ? fail(fault, "read pending signals", tid) : (int)count;
}

int ptrace_get_rseq(pid_t tid, struct rseq_place *ret_place, struct fault *fault)
{
	struct __ptrace_rseq_configuration place = { 0 };
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof place, &place) < 0)
		return fail(fault, "read rseq registration", tid);
	*ret_place = (struct rseq_place){
		.address = place.rseq_abi_pointer,
		.size = place.rseq_abi_size,
		.signature = place.signature,
		.flags = place.flags,
	};
	return 0;
}

static int memory_fail(struct fault *fault, const char *what, pid_t pid, uint64_t address, ssize_t done)
{
	int error = done < 0 ? errno : EFAULT;
	if (error == ESRCH)
		return fault_set(fault, FAULT_VANISHED, error, "process %d: ended meanwhile", pid);
	return fault_set(fault, fault_class_of(error), error, "process %d: %s memory at 0x%llx: %s", pid, what,
			 (unsigned long long)address, strerror(error));
}

int memory_read(pid_t pid, uint64_t address, void *data, size_t size, struct fault *fault)
{
	struct iovec local = { data, size }, remote = { (void *)(uintptr_t)address, size };
	ssize_t done = process_vm_readv(pid, &local, 1, &remote, 1, 0);
	return done == (ssize_t)size ? 0 : memory_fail(fault, "read", pid, address, done);
}

int memory_write(pid_t pid, uint64_t address, const void *data, size_t size, struct fault *fault)
{
	struct iovec local = { (void *)data, size }, remote = { (void *)(uintptr_t)address, size };
	ssize_t done = process_vm_writev(pid, &local, 1, &remote, 1, 0);
	return done == (ssize_t)size ? 0 : memory_fail(fault, "write", pid, address, done);
}

/* /proc/PID/mem writes through protections as PTRACE_POKEDATA does, in one call, unless the kernel was built or booted to
 * forbid it (proc_mem.force_override=, 6.12). */
int ptrace_open_memory(pid_t tid)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/mem", tid);
	return open(path, O_WRONLY | O_CLOEXEC);
}

int ptrace_poke(pid_t tid, int memory, uint64_t address, const void *data, size_t size, struct fault *fault)
{
	if (memory >= 0 && pwrite(memory, data, size, (off_t)address) == (ssize_t)size)
		return 0;
	for (size_t done = 0; done < size; done += sizeof(long)) {
		long word;
		memcpy(&word, (const char *)data + done, sizeof word);
		if (ptrace(PTRACE_POKEDATA, tid, address + done, word))
			return fail(fault, "write text", tid);
	}
	return 0;
}
