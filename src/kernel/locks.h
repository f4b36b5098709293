/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Lines of /proc/locks, and of "lock:" in /proc/PID/fdinfo (fs/locks.c lock_get_status). */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum lock_type { LOCK_TYPE_FLOCK, LOCK_TYPE_POSIX, LOCK_TYPE_OFD, LOCK_TYPE_LEASE, LOCK_TYPE_OTHER };

struct file_lock {
	enum lock_type type;
	bool write;
	bool waiting;  /* for another to go ("->") */
	bool breaking; /* a lease that somebody waits for */
	pid_t pid;     /* -1: no process (of this PID namespace) has it */
	uint64_t device, inode;
	uint64_t start, end; /* inclusive; UINT64_MAX: to the end of the file */
};
/* "1: POSIX  ADVISORY  WRITE 4121 fe:00:1234 0 EOF", with or without the number and colon in front; false: not understood. */
bool lock_parse(const char *line, struct file_lock *ret_lock);
/* Who holds a lock now that @lock (with its device and inode) cannot be taken beside; 0: nobody that is seen here. */
pid_t lock_holder(const struct file_lock *lock);
