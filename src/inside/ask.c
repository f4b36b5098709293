/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cairn.h"
#include "inside/inside.h"

static _Thread_local char why[BULLETIN_ANSWER]; /* the last call of this thread that failed */
static _Thread_local unsigned held;             /* critical sections that this thread is in */

int inside_failed(int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	errno = error;
	return -1;
}

const char *cairn_why(void)
{
	return why;
}

/* A job's PID 1 is a Cairn that has given itself this name. It is asked by a signal: no path, no descriptor, nothing that a restore
 * under another name would make untrue. */
int cairn_is_job(void)
{
	char name[16] = "";
	int before = errno;
	int fd = open("/proc/1/comm", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
	if (fd >= 0)
		close(fd);
	errno = before;
	return got > 0 && !strcmp(name, "cairn-init\n");
}

int cairn_hold(void)
{
	struct bulletin *page = inside_bulletin();
	if (!page)
		return inside_failed(ENOMEM, "no memory for a page");
	held++;
	__atomic_add_fetch(&page->holds, 1, __ATOMIC_SEQ_CST);
	return 0;
}

int cairn_release(void)
{
	struct bulletin *page = inside_bulletin();
	if (held)
		held--;
	for (uint32_t holds = page ? __atomic_load_n(&page->holds, __ATOMIC_SEQ_CST) : 0; holds;)
		if (__atomic_compare_exchange_n(&page->holds, &holds, holds - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return 0;
	/* Also in a child of fork, which inherits the thread but not its hold. */
	return inside_failed(EINVAL, "nothing holds checkpoints off here");
}

unsigned cairn_generation(void)
{
	const struct bulletin *page = inside_bulletin();
	return page ? __atomic_load_n(&page->generation, __ATOMIC_ACQUIRE) : 0;
}

void cairn_restore_id(unsigned char ret_id[16])
{
	const struct bulletin *page = inside_bulletin();
	memset(ret_id, 0, 16);
	if (page)
		memcpy(ret_id, page->restore_id, 16);
}

static bool hooks_behind(const struct bulletin *page, bool restored)
{
	if (!__atomic_load_n(&page->helper, __ATOMIC_SEQ_CST))
		return false;
	if (restored)
		return __atomic_load_n(&page->greeted, __ATOMIC_SEQ_CST) != __atomic_load_n(&page->generation, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&page->after, __ATOMIC_SEQ_CST) != __atomic_load_n(&page->turn, __ATOMIC_SEQ_CST);
}

static int ask_and_wait(struct bulletin *page)
{
	const uint32_t before = __atomic_load_n(&page->generation, __ATOMIC_SEQ_CST), number = page->asked + 1;
	__atomic_store_n(&page->waiter, (int32_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	__atomic_store_n(&page->asked, number, __ATOMIC_SEQ_CST);
	int rc = sigqueue(1, BULLETIN_REQUEST, (union sigval){ .sival_int = (int)number }) < 0 ? errno : 0;
	bool restored = false;
	while (!rc && !restored && __atomic_load_n(&page->answered, __ATOMIC_SEQ_CST) != number) {
		inside_await(1000);
		restored = __atomic_load_n(&page->generation, __ATOMIC_SEQ_CST) != before;
	}
	/* The hooks after it are over when the call returns. */
	while (!rc && hooks_behind(page, restored))
		inside_await(2);
	__atomic_store_n(&page->waiter, 0, __ATOMIC_SEQ_CST);
	if (rc)
		return inside_failed(rc, "the job's init cannot be asked: %s", strerror(rc));
	if (restored)
		return 1;
	if (page->status != CAIRN_DONE)
		return inside_failed(page->status == CAIRN_TIMED_OUT ? ETIMEDOUT : page->status == CAIRN_UNSUPPORTED ? ENOTSUP :
				     page->status == CAIRN_NOT_PERMITTED ? EPERM : EIO,
				     "%.*s", BULLETIN_ANSWER - 1, page->answer);
	return 0;
}

int cairn_checkpoint_me(void)
{
	static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER; /* one at a time */
	struct bulletin *page = inside_bulletin();
	sigset_t mask;
	if (!cairn_is_job())
		return inside_failed(ENODEV, "this program runs in no job of Cairn's; try cairn run -- COMMAND");
	if (!page)
		return inside_failed(ENOMEM, "no memory for a page");
	if (held && page->holds)
		return inside_failed(EDEADLK, "this thread itself holds checkpoints off; try cairn_release() first");
	pthread_mutex_lock(&asking);
	inside_listen(&mask);
	int result = ask_and_wait(page), error = errno;
	inside_listen_no_more(&mask);
	pthread_mutex_unlock(&asking);
	errno = error;
	return result;
}
