/* SPDX-License-Identifier: Apache-2.0 */
#include "inside/inside.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static struct bulletin *mapped; /* once it is there it stays */
/* What a child of fork keeps of its parent's page: a value that the parent compared with before must not come again. */
static struct {
	uint32_t generation;
	uint8_t restore_id[16];
} inherited;

static void *page_at(uint64_t address, int flags)
{
	void *page = mmap((void *)(uintptr_t)address, BULLETIN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (address && page != (void *)(uintptr_t)address) {
		munmap(page, BULLETIN_SIZE);
		return NULL;
	}
	return page;
}

/* Another copy of this library in the same process has made it already. */
static bool is_there(void)
{
	char magic[8];
	struct iovec here = { magic, sizeof magic }, there = { (void *)(uintptr_t)BULLETIN_ADDRESS, sizeof magic };
	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == sizeof magic && !memcmp(magic, BULLETIN_MAGIC, sizeof magic);
}

static void renew(struct bulletin *page)
{
	page->generation = page->greeted = inherited.generation;
	memcpy(page->restore_id, inherited.restore_id, sizeof page->restore_id);
	memcpy(page->magic, BULLETIN_MAGIC, sizeof page->magic);
}

static void before_fork(void)
{
	const struct bulletin *page = inside_bulletin();
	if (!page)
		return;
	inherited.generation = page->generation;
	memcpy(inherited.restore_id, page->restore_id, sizeof inherited.restore_id);
}

static void in_child(void)
{
	inside_bulletin();
}

static struct bulletin *make(void)
{
	struct bulletin *page = page_at(BULLETIN_ADDRESS, MAP_FIXED_NOREPLACE);
	if (!page && is_there())
		return (struct bulletin *)(uintptr_t)BULLETIN_ADDRESS;
	if (!page)
		page = page_at(0, 0);
	if (!page)
		return NULL;
	madvise(page, BULLETIN_SIZE, MADV_WIPEONFORK);
	/* Without CONFIG_ANON_VMA_NAME only the address tells; with it people see what the page is. */
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, page, BULLETIN_SIZE, BULLETIN_NAME);
	memcpy(page->magic, BULLETIN_MAGIC, sizeof page->magic);
	pthread_atfork(before_fork, NULL, in_child);
	return page;
}

struct bulletin *inside_bulletin(void)
{
	static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
	struct bulletin *page = __atomic_load_n(&mapped, __ATOMIC_ACQUIRE);
	if (!page) {
		pthread_mutex_lock(&making);
		page = mapped ? mapped : make();
		__atomic_store_n(&mapped, page, __ATOMIC_RELEASE);
		pthread_mutex_unlock(&making);
	}
	/* A child of fork finds zeros. */
	if (page && !page->magic[0])
		renew(page);
	return page;
}

static void urgent_only(sigset_t *ret_set)
{
	sigemptyset(ret_set);
	sigaddset(ret_set, SIGURG);
}

/* A SIGURG that is waiting, or comes in time. Is it Cairn's, sent to this thread? glibc's sigtimedwait hides that (it says SI_USER for SI_TKILL). */
static bool take_urgent(const struct timespec *time, siginfo_t *ret_info)
{
	enum { KERNEL_SET = 8 };
	sigset_t urgent;
	urgent_only(&urgent);
	return syscall(SYS_rt_sigtimedwait, &urgent, ret_info, time, KERNEL_SET) == SIGURG;
}

void inside_listen(void *ret_mask)
{
	sigset_t urgent;
	urgent_only(&urgent);
	pthread_sigmask(SIG_BLOCK, &urgent, ret_mask);
}

void inside_listen_no_more(const void *mask)
{
	const struct timespec at_once = { 0, 0 };
	siginfo_t info;
	/* Cairn's own last word is nobody else's. */
	if (!sigismember((const sigset_t *)mask, SIGURG) && take_urgent(&at_once, &info) && info.si_code != SI_TKILL)
		syscall(SYS_rt_sigqueueinfo, getpid(), SIGURG, &info);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

void inside_await(long milliseconds)
{
	const struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 }, shortly = { 0, 10000000 };
	siginfo_t info;
	if (!take_urgent(&time, &info) || info.si_code == SI_TKILL)
		return;
	/* Sent to the process, not by Cairn to this thread: back to the process, and others first. */
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGURG, &info);
	nanosleep(&shortly, NULL);
}
