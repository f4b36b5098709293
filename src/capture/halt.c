/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/halt.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "base/log.h"
#include "capture/reaper.h"
#include "capture/tree.h"

/* How long a thread may take to stop before the whole tree is let go and tried again. One in an uninterruptible sleep, as a vfork parent is until its
 * child execs, will not do so soon; one that could run waits for a processor, which those that have stopped leave to it. */
enum { SLEEP_PATIENCE_MS = 100, RUN_PATIENCE_MS = 3000, LAST_PATIENCE_NS = 1000000 };

/* By how much a clock of the scheduler's, which Cairn reads by running on its processor, may be misjudged: see kernel/sleep.c. */
enum { LATE_NS = 20000000 };

static bool knows_thread(const struct frozen_process *process, pid_t tid)
{
	/* Both lists ascend but for a wrap of the numbers: most are settled by a look at the last. */
	size_t count = process->threads.count;
	if (!count || process->threads.at[count - 1]->tid == tid)
		return count;
	if (tid > process->highest_tid)
		return false;
	for (size_t i = 0; i < count; i++)
		if (process->threads.at[i]->tid == tid)
			return true;
	return false;
}

/* A worker of an io_uring (iou-wrk) is listed among the threads and can be stopped, but makes no calls; what it does for the program the ring shows (kinds/files/io_uring.c).
 * It never was in the program, and has no stack there. */
static bool is_worker(const struct frozen_thread *thread, const struct proc_call *call)
{
	struct proc_stat stat;
	return !call->stack && proc_stat_read(thread->process->pid, thread->tid, &stat, NULL) == 0 && (stat.flags & PROC_PF_IO_WORKER);
}

/* A thread that was just listed may be gone when it is seized, or be a zombie leader. -ECHILD: it is none of the program's. */
static int seize_thread(struct reaper *reaper, struct frozen_thread *thread, struct fault *fault)
{
	struct proc_call call = { 0 };
	bool is_known = proc_call_read(thread->process->pid, thread->tid, &call, NULL) == 0;
	if (is_worker(thread, &call))
		return -ECHILD;
	/* Only the scheduler knows when a thread fell asleep, and only until it is woken. It is asked where that matters, as far as can be seen. */
	if (!is_known || restart_call_wants_time(call.number, call.args))
		sleep_look(thread->process->pid, thread->tid, &thread->sleep);
	reaper_watch(reaper, thread->process);
	int rc = ptrace_seize(thread->tid, false, fault);
	reaper_rest(reaper);
	if (rc < 0)
		return rc;
	thread->seized = true;
	rc = ptrace_interrupt(thread->tid, fault);
	struct stop stop;
	if (rc == -ESRCH) /* its tracer has to see its end, or its process cannot */
		thread->seized = ptrace_wait_stop(thread->tid, 10000000, &stop, NULL) < 0;
	return rc;
}

/* Threads may have lower numbers than their leader, after a wrap or in a fresh PID namespace. */
static void leader_first(pid_t leader, struct pid_list *list)
{
	for (size_t i = 1; i < list->pids.count; i++)
		if (list->pids.at[i] == leader) {
			memmove(&list->pids.at[1], list->pids.at, i * sizeof *list->pids.at);
			list->pids.at[0] = leader;
			return;
		}
}

/* Of a process that has only one nothing has to be listed: whatever it makes until it stands still is missed later (knows_all). */
static int list_threads(const struct frozen_process *process, struct pid_list *ret_list, struct fault *fault)
{
	if (process->stat.threads == 1 && process->stat.state != 'Z' && !process->threads.count) {
		*vec_add(&ret_list->pids) = process->pid;
		return 0;
	}
	int rc = proc_threads(process->pid, ret_list, fault);
	if (rc == 0)
		leader_first(process->pid, ret_list);
	return rc;
}

int halt_seize(struct harvest *harvest, struct frozen_process *process, bool *ret_new,
			     struct fault *fault)
{
	struct pid_list list = { 0 };
	int rc = list_threads(process, &list, fault);
	for (size_t i = 0; rc == 0 && i < list.pids.count; i++) {
		if (knows_thread(process, list.pids.at[i]) || (process->stat.state == 'Z' && list.pids.at[i] == process->pid))
			continue;
		rc = seize_thread(harvest->reaper, tree_add_thread(harvest, process, list.pids.at[i]), fault);
		if (rc != -ECHILD)
			*ret_new = true;
		/* The thread ended between the listing and the seizing. */
		if (rc == -ESRCH || rc == -ECHILD) {
			process->threads.count--;
			rc = process->threads.count || rc == -ECHILD ? 0 : rc;
		}
	}
	/* All that were listed are gone; or one that runs exec has taken the number of a first thread that was seen to have ended. */
	if (rc == 0 && !process->threads.count)
		rc = fault_set_transient(fault, FAULT_VANISHED, ESRCH, "is just ending, or running exec; try again");
	vec_finish(&list.pids);
	return rc;
}

static int name_vfork(const struct frozen_process *process, pid_t tid, struct fault *fault)
{
	struct pid_list children = { 0 };
	pid_t child = 0;
	if (proc_children(process->pid, &children, NULL) == 0 && children.pids.count)
		child = children.pids.at[children.pids.count - 1];
	vec_finish(&children.pids);
	if (child)
		return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT,
					   "thread %d sleeps where it cannot be stopped, likely until its vfork child "
					   "%d runs exec or ends; try again later, or a longer --timeout", tid, child);
	return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT,
				   "thread %d sleeps where it cannot be stopped (disk, driver, or a cgroup that was frozen); try again later, or "
				   "a longer --timeout", tid);
}

static int name_slow(const struct frozen_thread *thread, char state, struct fault *fault)
{
	if (state == 'Z' || state == 'X')
		return fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "thread %d: ended before others of its process", thread->tid);
	if (state == 'D')
		return name_vfork(thread->process, thread->tid, fault);
	return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT, "thread %d does not stop, likely because others leave it no processor; try again later, or a "
				   "longer --timeout", thread->tid);
}

/* The next stop of a thread that is on its way to one. */
static int await_stop(const struct frozen_thread *thread, const struct deadline *deadline, struct stop *ret_stop, struct fault *fault)
{
	for (int waited_ms = 0;; waited_ms += SLEEP_PATIENCE_MS) {
		struct proc_stat stat;
		int rc = ptrace_wait_stop(thread->tid, SLEEP_PATIENCE_MS * UINT64_C(1000000), ret_stop, fault);
		if (rc != -ETIMEDOUT)
			return rc;
		char state = proc_stat_read(thread->process->pid, thread->tid, &stat, NULL) < 0 ? 'X' : stat.state;
		if (strchr("DZX", state) || waited_ms + SLEEP_PATIENCE_MS >= RUN_PATIENCE_MS)
			return name_slow(thread, state, fault);
		rc = deadline_check(deadline, fault);
		if (rc < 0)
			return rc == -ETIMEDOUT ? name_slow(thread, state, fault) : rc;
	}
}

static int wait_thread(struct frozen_thread *thread, const struct deadline *deadline, struct fault *fault)
{
	for (;;) {
		struct stop stop;
		int rc = await_stop(thread, deadline, &stop, fault);
		if (rc < 0)
			return rc;
		switch (stop.kind) {
		case STOP_GROUP:
			thread->process->job_stopped = true;
			thread->process->stop_signal = stop.signal;
			thread->stopped = true;
			return 0;
		case STOP_INTERRUPT:
			thread->stopped = true;
			return 0;
		case STOP_ENDED:
			thread->seized = false;
			return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile",
						   thread->tid);
		default: /* a signal was on its way: it is delivered, the interrupt is still to come */
			rc = ptrace_resume(thread->tid, PTRACE_CONT, stop.kind == STOP_SIGNAL ? stop.signal : 0, fault);
			if (rc < 0 && rc != -ESRCH) /* killed: its end is still to come */
				return rc;
		}
	}
}

struct rseq_section {
	uint32_t version, flags;
	uint64_t start, length, abort;
};

/* Reads the section at @at. False: the kernel finds something wrong with it, and sends SIGSEGV when the thread goes back to its code (kernel/rseq.c
 * rseq_get_rseq_cs, 6.18). */
static bool read_section(const struct frozen_thread *thread, uint64_t at, struct rseq_section *ret_section)
{
	const uint64_t user_end = (UINT64_C(1) << 47) - 4096;
	uint32_t signature;
	if (at >= user_end || memory_read(thread->tid, at, ret_section, sizeof *ret_section, NULL) < 0)
		return false;
	return ret_section->version == 0 && ret_section->start < user_end && ret_section->length < user_end - ret_section->start &&
	       ret_section->abort < user_end && ret_section->abort - ret_section->start >= ret_section->length &&
	       memory_read(thread->tid, ret_section->abort - sizeof signature, &signature, sizeof signature, NULL) == 0 &&
	       signature == thread->rseq.signature;
}

/* A critical section of rseq does not survive the remote calls unnoticed: its abort handler is taken at once, as the kernel would after a preemption
 * (rseq_ip_fixup). With one that is wrong no call may be made: the signal would find all signals blocked, which costs the program its handler. */
static int abort_rseq(struct frozen_thread *thread, struct fault *fault)
{
	struct rseq_section section;
	uint64_t pointer;
	enum { RSEQ_CS_OFFSET = 8 };
	if (!thread->rseq.address)
		return 0;
	int rc = memory_read(thread->tid, thread->rseq.address + RSEQ_CS_OFFSET, &pointer, sizeof pointer, fault);
	if (rc < 0 || !pointer)
		return rc;
	if (!read_section(thread, pointer, &section))
		return fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "thread %d: is about to get SIGSEGV for a restartable sequence (rseq) that is none; try again",
					   thread->tid);
	if (registers_ip(&thread->guest.home) - section.start < section.length) {
		log_debug("thread %d: was in an rseq critical section, goes to its abort handler", thread->tid);
		registers_set_ip(&thread->guest.home, section.abort);
	}
	return 0;
}

/* What a program's own filters, or its handler of system calls (syscall user dispatch), would say to Cairn's calls. Filters that Cairn has as well let them pass (kinds/tasks/seccomp.c). Without a deputy
 * the death of Cairn would leave the thread to them in the middle of a call. */
static int suspend_filters(const struct harvest *harvest, struct frozen_thread *thread, struct fault *fault)
{
	bool filtered = thread->status.seccomp && !harvest->policy.filtered;
	struct dispatch_place dispatch;
	int rc = ptrace_get_dispatch(thread->tid, &dispatch, fault);
	if (rc < 0 || (!filtered && !dispatch.mode))
		return rc;
	if (!harvest->policy.by_deputy)
		return fault_set(fault, FAULT_VANISHED, EXDEV, "thread %d: went under a seccomp filter while it was looked at; try again", thread->tid);
	if (filtered)
		rc = ptrace_suspend_seccomp(thread->tid, false, fault);
	thread->is_suspended = rc == 0;
	if (rc == 0 && dispatch.mode)
		rc = ptrace_set_dispatch(thread->tid, &(struct dispatch_place){ 0 }, fault);
	if (rc == 0 && dispatch.mode) /* else: none, or switched off already */
		thread->dispatch = dispatch;
	return rc;
}

/* Everything that only the stop itself can tell, and the registers that undo what the stop did. */
static int examine_thread(struct harvest *harvest, struct frozen_thread *thread, struct sleep_clocks *clocks, struct fault *fault)
{
	struct registers before;
	int rc = ptrace_get_registers(thread->tid, &before, fault);
	/* Only now: a stop is reported before the thread has left its processor, which ptrace(2) waits for (kernel/ptrace.c ptrace_check_attach, 6.18).
	 * Until then its switches do not count the stop, and its sleep would look like another one. */
	if (rc == 0)
		rc = proc_status_read(thread->process->pid, thread->tid, &harvest->arena, &thread->status, fault);
	if (rc == 0 && thread->tid != thread->process->pid) /* else it is the process's, which is read later */
		rc = proc_stat_read(thread->process->pid, thread->tid, &thread->stat, fault);
	if (rc == 0)
		rc = ptrace_get_mask(thread->tid, &thread->guest.blocked, fault);
	if (rc == 0)
		rc = ptrace_get_rseq(thread->tid, &thread->rseq, fault);
	if (rc < 0)
		return rc;
	thread->guest.home = before;
	if (!registers_native(&before))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "thread %d runs 32-bit code, which this version cannot carry; try a 64-bit build of "
				 "the program", thread->tid);
	thread->frozen_at_ns = clock_now_ns();
	sleep_confirm(&thread->sleep, thread->status.voluntary_switches);
	uint64_t since = restart_wants_time(&before) ? sleep_since(&thread->sleep, clocks) : 0;
	const struct restart_sleep sleep = {
		/* What is known of it is late rather than early: a sleep may seem to begin after the stop that ended it. */
		.known = since && since < thread->frozen_at_ns + LATE_NS,
		.slept_ns = since && since < thread->frozen_at_ns ? thread->frozen_at_ns - since : 0,
		.where = thread->sleep.where,
		.alone = thread->status.seccomp != 0,
	};
	rc = restart_examine(thread->tid, &thread->guest.home, &sleep, &thread->restart, fault);
	if (rc == 0 && thread->restart.timed && !sleep.known)
		log_debug("thread %d: since when it has slept is not known (%" PRIu64 " switches, %s)", thread->tid, thread->status.voluntary_switches,
			  since ? "it seems later than the stop" : "not the sleep that was looked at");
	const int sequence = rc == 0 ? abort_rseq(thread, fault) : 0;
	if (rc == 0 && memcmp(&before, &thread->guest.home, sizeof before))
		rc = ptrace_set_registers(thread->tid, &thread->guest.home, fault);
	thread->examined = rc == 0;
	if (rc == 0)
		rc = sequence;
	/* Nobody can block it, so that it would come in the middle of Cairn's calls. */
	if (rc == 0 && !thread->process->job_stopped && ((thread->status.signal_pending | thread->status.shared_pending) >> (SIGSTOP - 1) & 1))
		return fault_set_transient(fault, FAULT_VANISHED, EAGAIN, "thread %d: is just being stopped by a signal; try again", thread->tid);
	return rc < 0 ? rc : suspend_filters(harvest, thread, fault);
}

/* All that are known stand still: are they as many as the process has? */
static bool knows_all(struct frozen_process *process)
{
	return process->threads.count && proc_stat_read(process->pid, 0, &process->stat, NULL) == 0 && process->stat.threads == process->threads.count;
}

/* Stops all threads of one process: new ones may appear until the last is stopped. Some may have been asked to already. */
int halt_process(struct harvest *harvest, struct frozen_process *process, const struct deadline *deadline, struct fault *fault)
{
	size_t stopped = 0;
	for (bool found = true; found;) {
		found = stopped < process->threads.count;
		int rc = found || (stopped && knows_all(process)) ? 0 : halt_seize(harvest, process, &found, fault);
		for (; rc == 0 && stopped < process->threads.count; stopped++) {
			rc = wait_thread(process->threads.at[stopped], deadline, fault);
			/* A thread that ended is no part of the process any more, unless it was the leader. */
			if (rc == -ESRCH && stopped > 0) {
				memmove(&process->threads.at[stopped], &process->threads.at[stopped + 1],
					(process->threads.count - stopped - 1) * sizeof *process->threads.at);
				process->threads.count--;
				stopped--;
				rc = 0;
			}
		}
		if (rc < 0)
			return rc;
	}
	/* Clocks are read when all are stopped: see sleep_since. */
	struct sleep_clocks clocks = { 0 };
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < process->threads.count; i++)
		rc = examine_thread(harvest, process->threads.at[i], &clocks, fault);
	sleep_clocks_finish(&clocks);
	return rc;
}

bool halt_has_ended(struct frozen_thread *thread, const struct deadline *deadline)
{
	struct fault fault; /* of what has ended nothing is said */
	struct stop stop = { .kind = STOP_INTERRUPT };
	if (thread->seized && !thread->stopped)
		return wait_thread(thread, deadline, &fault) == -ESRCH;
	return !thread->seized || (ptrace_wait_stop(thread->tid, 50000000, &stop, NULL) == 0 && stop.kind == STOP_ENDED);
}

/* What a stop does to a call has to be undone for a thread as well that was stopped, or is about to stop, when the freeze failed elsewhere. Ended, or
 * in front of a signal: false, and there is nothing to undo. */
static bool is_at_rest(struct harvest *harvest, struct frozen_thread *thread, uint64_t patience_ns)
{
	struct stop stop = { .kind = STOP_INTERRUPT };
	struct sleep_clocks clocks = { 0 };
	if (!thread->stopped && ptrace_wait_stop(thread->tid, patience_ns, &stop, NULL) < 0)
		return false;
	if (stop.kind == STOP_SIGNAL)
		ptrace(PTRACE_DETACH, thread->tid, NULL, (unsigned long)stop.signal);
	if (stop.kind == STOP_SIGNAL || stop.kind == STOP_ENDED)
		return false;
	struct fault fault; /* it is let go in any case */
	if (!thread->examined)
		examine_thread(harvest, thread, &clocks, &fault);
	sleep_clocks_finish(&clocks);
	return true;
}

/* A relative timeout that the stop interrupted has gone on running: the program waits only for the rest. */
void halt_let_go(struct harvest *harvest, struct frozen_thread *thread, uint64_t until_ns)
{
	const uint64_t now_ns = clock_now_ns(), patience_ns = until_ns > now_ns + LAST_PATIENCE_NS ? until_ns - now_ns : LAST_PATIENCE_NS;
	/* What this stop does to a call of a thread that went on by itself has to be undone as well, and only that. */
	thread->examined &= !thread->guest.adrift;
	if (!is_at_rest(harvest, thread, patience_ns))
		return;
	const struct restart *restart = &thread->restart;
	uint64_t frozen_ns = clock_now_ns() - thread->frozen_at_ns;
	uint64_t left_ns = restart->left_ns > frozen_ns ? restart->left_ns - frozen_ns : 0;
	if (thread->examined && restart->timed && restart->known && !restart->kernel_keeps) {
		struct registers registers = thread->guest.home;
		if (restart_shorten(thread->tid, &registers, left_ns, NULL) == 0)
			ptrace_set_registers(thread->tid, &registers, NULL);
	}
	if (thread->dispatch.mode)
		ptrace_set_dispatch(thread->tid, &thread->dispatch, NULL);
	struct stop stop;
	/* Killed: its end is waited for. Or adrift. */
	if (ptrace_release(thread->tid, NULL) < 0 && ptrace_wait_stop(thread->tid, patience_ns, &stop, NULL) == 0 &&
	    stop.kind != STOP_ENDED)
		ptrace(PTRACE_DETACH, thread->tid, NULL, stop.kind == STOP_SIGNAL ? (unsigned long)stop.signal : 0);
	if (thread->guest.held_stop && !thread->process->job_stopped)
		kill(thread->process->pid, SIGSTOP);
}
