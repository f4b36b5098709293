/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* /proc/PID/fdinfo/N: key/value pairs, offered one by one. */
#include "kernel/procfs.h"

/* Cursor over "key: value" lines; both point into @text, which is changed (NULs are put in). Lines without a colon are
 * offered with an empty key. false at the end. epoll's "tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:2" is one pair
 * with the key "tfd" and the rest of the line as value. */
bool fdinfo_next(char **cursor, const char **ret_key, const char **ret_value);

struct fdinfo {
	uint64_t position;
	uint32_t flags; /* O_*, octal in the file; includes O_CLOEXEC of this descriptor */
	uint64_t mount_id, inode;
	uint64_t object; /* a number of what is behind an anonymous inode, where the kernel has one */
};
/* The common part. @text keeps the whole file for fdinfo_next (parse on a copy: not changed by this). */
int fdinfo_read(pid_t pid, int fd, struct text *text, struct fdinfo *ret_info, struct fault *fault);
int fdinfo_parse(const char *text, struct fdinfo *ret_info, struct fault *fault);
