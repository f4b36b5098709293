/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Reading /proc: files as text, and the few formats in it that are needed. Parsing is pure (text in, struct
 * out) and separate from reading; unknown keys are skipped, malformed known ones are a fault that quotes
 * them. No opinions here: nothing decides what can be carried. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"
#include "base/memory.h"

/* A text buffer that is reused from file to file; always ends in NUL (not counted). Init by zero. */
struct text {
	char *at;
	size_t size, space;
};
void text_finish(struct text *text);

/* Whole file "/proc/@pid/@name". Faults: FAULT_VANISHED when the process is gone (ENOENT of the directory, ESRCH). */
int proc_read(pid_t pid, const char *name, struct text *text, struct fault *fault);
/* From an open file that the kernel makes in one piece (fdinfo), by one read(2) less. 0 or a negative errno. */
int proc_read_open(int fd, struct text *text);
/* Opens "/proc/@pid/@name" for paths that begin there; some may be passed through by who may not list them. A descriptor, or as proc_read. */
int proc_open_directory(pid_t pid, const char *name, bool to_list, struct fault *fault);
/* The fault of @error with "/proc/@pid/@name". */
int proc_fault(pid_t pid, const char *name, int error, struct fault *fault);
/* "/proc/@pid/task/@tid/@name", or the process's own with @tid 0: only files of one record (single_open in fs/proc/base.c: stat, status, sched, wchan,
 * syscall, personality ...), of which one read(2) gives all. */
int proc_read_record(pid_t pid, pid_t tid, const char *name, struct text *text, struct fault *fault);
/* The number that such a file begins with, to @base. */
int proc_read_number(pid_t pid, pid_t tid, const char *name, int base, long *ret_number, struct fault *fault);
/* Any file by path (also /sys, /proc/sys). */
int proc_read_path(const char *path, struct text *text, struct fault *fault);
/* readlink of "/proc/@pid/@name" into the arena. */
int proc_link(pid_t pid, const char *name, struct arena *arena, char **ret_target, struct fault *fault);

/* /proc/PID/stat, proc(5) and fs/proc/array.c do_task_stat. Addresses are 0 without ptrace access. */
struct proc_stat {
	pid_t pid;
	char command[64];
	char state; /* R S D T t Z X I */
	pid_t parent, group, session;
	uint64_t terminal; /* as st_rdev: makedev() of the decoded tty_nr, 0: none */
	pid_t foreground;  /* tpgid, -1: none */
	uint32_t flags;    /* PF_* */
	int nice;
	uint32_t threads;
	uint64_t start_time; /* clock ticks since boot: with the pid, the identity of a process */
	uint64_t start_code, end_code, start_stack;
	uint32_t exit_signal;
	uint32_t processor; /* it last ran on */
	uint32_t policy, rt_priority;
	uint64_t start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end;
	int32_t exit_code; /* wait status */
};
enum { PROC_PF_IO_WORKER = 0x10, PROC_PF_KTHREAD = 0x00200000 };
int proc_stat_parse(const char *text, struct proc_stat *ret_stat, struct fault *fault);
int proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *ret_stat, struct fault *fault); /* tid 0: the process */

/* /proc/PID/status */
struct proc_status {
	uint32_t umask;
	char state;
	pid_t tracer;
	uint32_t uid[4], gid[4]; /* real, effective, saved, fs */
	uint32_t *groups;        /* in the arena */
	size_t group_count;
	uint64_t signal_pending, shared_pending, blocked, ignored, caught;
	uint64_t cap_inheritable, cap_permitted, cap_effective, cap_bounding, cap_ambient;
	bool no_new_privs;
	uint32_t seccomp, seccomp_filters;
	uint32_t threads;
	uint64_t anonymous_kb; /* memory of its own that is there */
	bool thp_enabled;
	uint64_t voluntary_switches; /* of this thread: how often it went to sleep, or stopped */
	uint64_t untag_mask; /* bits of an address that count; all where the kernel does not say */
	pid_t ns_pid;    /* in the innermost PID namespace (last number of NSpid) */
	uint32_t ns_depth; /* how many numbers NSpid has */
};
int proc_status_parse(const char *text, struct arena *arena, struct proc_status *ret_status, struct fault *fault);
/* How many seccomp filters. */
uint32_t proc_filters(const struct proc_status *status);
int proc_status_read(pid_t pid, pid_t tid, struct arena *arena, struct proc_status *ret_status, struct fault *fault);

/* Thread ids of a process, ascending; pids of its children (all threads' children). */
struct pid_list {
	VEC(pid_t) pids;
};
int proc_threads(pid_t pid, struct pid_list *ret_list, struct fault *fault);
int proc_children(pid_t pid, struct pid_list *ret_list, struct fault *fault);
/* The same by one who knows the threads. */
int proc_children_of(pid_t pid, const pid_t *threads, size_t count, struct pid_list *ret_list, struct fault *fault);
/* All processes of this /proc, ascending. */
int proc_processes(struct pid_list *ret_list, struct fault *fault);
/* The numbers in an open directory, ascending; once. 0 or a negative errno. */
int proc_list_open(int fd, struct pid_list *ret_list);
/* Open descriptors, ascending. */
int proc_descriptors(pid_t pid, struct pid_list *ret_list, struct fault *fault);
/* Has it a descriptor whose link reads @link, and which is open for @mode (S_IRUSR, S_IWUSR: the modes of the links say that, fs/proc/fd.c tid_fd_update_inode, 6.18;
 * 0: for whatever)? */
bool proc_has_link(pid_t pid, const char *link, mode_t mode);
/* The @count numbers that descriptors of a process which stands still will get next. */
int proc_descriptors_next(pid_t pid, int *ret_numbers, size_t count, struct fault *fault);

/* /proc/PID/limits by RLIMIT number (16 of them). RLIM_INFINITY for "unlimited". */
struct proc_limits {
	uint64_t soft[16], hard[16];
};
int proc_limits_parse(const char *text, struct proc_limits *ret_limits, struct fault *fault);

/* /proc/PID/timers: identity of POSIX timers; their times need a call by the process itself. */
struct proc_timer {
	uint32_t id;
	uint32_t signal;
	uint64_t value;   /* sigev_value */
	uint32_t notify;  /* SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD; | SIGEV_THREAD_ID */
	pid_t notify_id;  /* pid or tid */
	int clock;
};
struct proc_timers {
	VEC(struct proc_timer) timers;
};
int proc_timers_parse(const char *text, struct proc_timers *ret_timers, struct fault *fault);

/* /proc/PID/task/TID/sched; zeros when the kernel has no such file (CONFIG_SCHED_DEBUG). */
struct proc_sched {
	uint64_t ran_ns;   /* se.exec_start: when the thread last ran, by the clock that stands in the same file of a running thread. An estimate of
			    * when a sleeping thread fell asleep */
	uint64_t switches; /* nr_voluntary_switches: how often it went to sleep, or stopped */
};
int proc_sched_read(pid_t pid, pid_t tid, struct proc_sched *ret_sched, struct fault *fault);

/* /proc/PID/task/TID/syscall: the system call that a thread sleeps in. */
struct proc_call {
	long number; /* -1: it runs, or sleeps outside any call */
	uint64_t args[6];
	uint64_t stack; /* pointer; 0: it runs */
};
int proc_call_parse(const char *text, struct proc_call *ret_call, struct fault *fault);
int proc_call_read(pid_t pid, pid_t tid, struct proc_call *ret_call, struct fault *fault);

/* Namespaces as the inode of /proc/PID/ns/NAME; 0 where the kernel has none. */
enum proc_namespace { NS_MNT, NS_PID, NS_NET, NS_IPC, NS_UTS, NS_USER, NS_TIME, NS_CGROUP, NS_COUNT };
extern const char *const proc_namespace_names[NS_COUNT];
int proc_namespaces(pid_t pid, uint64_t ret_inodes[NS_COUNT], struct fault *fault);
