/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A fault is why an operation ended: its class decides the exit status, its text is the one line that
 * the user reads. It is made where the cause is known, in the return expression; callers on the way up
 * put "where" in front of it. Functions that can fail return 0 or a negative errno and take a
 * `struct fault *` last; the fault is only meaningful after a negative return. */
#include <stdarg.h>
#include <stddef.h>

enum fault_class {
	FAULT_FAILED = 1,      /* the operation failed */
	FAULT_USAGE = 2,       /* the command line is wrong */
	FAULT_UNSUPPORTED = 3, /* something in the program cannot be carried; nothing was touched */
	FAULT_PERMISSION = 4,  /* the kernel does not permit it */
	FAULT_VANISHED = 5,    /* the target vanished, or changed under us */
	FAULT_IMAGE = 6,       /* the image is damaged, foreign or of a newer format */
	FAULT_TIMEOUT = 7,     /* out of time, rolled back */
};

enum { FAULT_TEXT_SIZE = 1024 };

struct fault {
	enum fault_class class;
	int error;     /* positive errno, 0 when no system call failed */
	int transient; /* the cause passes by itself (a vfork, a thread about to exit): thaw and try again */
	char text[FAULT_TEXT_SIZE];
};

/* Fills @fault and returns a negative errno (-EINVAL when @error is 0). The text reads
 * "what: why; try remedy" and does not end in a full stop. When @error is not 0 its strerror is put in
 * place of "%m"-like use by the caller: pass it in the format. @fault may be NULL. */
__attribute__((format(printf, 4, 5))) int fault_set(struct fault *fault, enum fault_class class, int error,
						    const char *format, ...);

/* As fault_set, and marks it as passing. */
__attribute__((format(printf, 4, 5))) int fault_set_transient(struct fault *fault, enum fault_class class,
							      int error, const char *format, ...);

/* Puts "where: " in front of the text and returns @rc, so that `return fault_at(f, rc, "fd %d", fd)`. */
__attribute__((format(printf, 3, 4))) int fault_at(struct fault *fault, int rc, const char *format, ...);

/* The class that an errno of a kernel call usually means: EPERM and EACCES permission, ESRCH vanished,
 * ETIMEDOUT timeout, everything else failed. */
enum fault_class fault_class_of(int error);

/* Refusals are collected, so that the user sees all of them at once. Init by zero. */
struct fault_list {
	struct fault *at;
	size_t count, space;
};
void fault_list_add(struct fault_list *list, const struct fault *fault);
void fault_list_finish(struct fault_list *list);
