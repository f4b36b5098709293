/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the probes of features.c share, and the probes themselves. */
#include <stdbool.h>
#include <sys/types.h>

/* What a child of a probe found, in memory that it shares with its parent. */
struct trial {
	int error;        /* errno, 0: it works */
	const char *step; /* what failed, static text */
	const void *argument; /* the parent's */
};
/* Runs @work in a child and waits for its end. The child is a plain copy of the calling thread, made without the
 * handlers of fork(3) and with no signal at its end, so that neither other threads nor SIGCHLD's disposition
 * matter; @work may only do system calls. A child that was killed (seccomp) has EPERM. */
struct trial trial_run(void (*work)(struct trial *trial), const void *argument);
/* A child of that sort: 0 in it, its PID here, -1 with errno. */
pid_t trial_child(void);
/* Its end, SIGKILL first. */
void trial_end(pid_t child);

/* Fills @why with "STEP: errno in words; REMEDY" and returns @error == 0. */
bool trial_says(int error, const char *step, const char *remedy, char *why, unsigned long size);
/* The number in a file of /proc/sys, @otherwise where there is none. */
long sysctl_number(const char *path, long otherwise);

/* probe_trace.c: looking into a process */
bool probe_ptrace(char *why, unsigned long size);
bool probe_attach(char *why, unsigned long size);
bool probe_rseq(char *why, unsigned long size);
bool probe_seccomp_filter(char *why, unsigned long size);
bool probe_vm_readv(char *why, unsigned long size);
bool probe_kcmp(char *why, unsigned long size);
bool probe_pidfd_getfd(char *why, unsigned long size);

/* probe_memory.c */
bool probe_pagemap_scan(char *why, unsigned long size);
bool probe_guard_regions(char *why, unsigned long size);
bool probe_userfaultfd(char *why, unsigned long size);
bool probe_userfaultfd_user_mode(char *why, unsigned long size);
bool probe_wp_async(char *why, unsigned long size);
bool probe_map_files(char *why, unsigned long size);
bool probe_mm_map(char *why, unsigned long size);
bool probe_map_vdso(char *why, unsigned long size);

/* probe_process.c: making processes */
bool probe_set_tid(char *why, unsigned long size);
bool probe_pid_namespace(char *why, unsigned long size);
bool probe_user_namespace(char *why, unsigned long size);
bool probe_fresh_proc(char *why, unsigned long size);
bool probe_time_namespace(char *why, unsigned long size);
bool probe_timer_ids(char *why, unsigned long size);
bool probe_membarrier(char *why, unsigned long size);
