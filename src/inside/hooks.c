/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks run in a thread of their own, which is made for the first of them and sleeps until Cairn wakes it. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cairn.h"
#include "inside/inside.h"

/* How often an open turn's Cairn is looked for, and how long one is waited for that cannot be seen. */
enum { LOOK_MS = 1000, UNSEEN_LOOKS = 600 };

struct entry {
	struct cairn_hooks hooks;
	int id;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *entries; /* in order of registration */
static size_t entry_count;
static int last_id;
static bool helping; /* the helper is this copy's of the library */
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;

/* ---- the helper's side ---- */

/* The checkpoint that is under way: the hooks that were called before it are called after it. */
struct turn {
	uint32_t number; /* 0: none */
	struct entry *called; /* a copy, in order of registration */
	size_t count, first; /* from `first` on they were called */
	unsigned looks;
};

static struct entry *copy_entries(size_t *ret_count)
{
	pthread_mutex_lock(&lock);
	struct entry *copy = entry_count ? malloc(entry_count * sizeof *copy) : NULL;
	*ret_count = copy ? entry_count : 0;
	if (copy)
		memcpy(copy, entries, entry_count * sizeof *copy);
	pthread_mutex_unlock(&lock);
	return copy;
}

static void turn_begin(struct bulletin *page, struct turn *turn, uint32_t number)
{
	int refused = 0;
	free(turn->called);
	*turn = (struct turn){ .number = number };
	turn->called = copy_entries(&turn->count);
	for (turn->first = turn->count; turn->first > 0 && !refused; turn->first--) {
		const struct cairn_hooks *hooks = &turn->called[turn->first - 1].hooks;
		refused = hooks->before ? hooks->before(hooks->context) : 0;
	}
	__atomic_store_n(&page->refused, refused, __ATOMIC_SEQ_CST);
	__atomic_store_n(&page->before, number, __ATOMIC_SEQ_CST);
}

static void turn_end(struct bulletin *page, struct turn *turn, bool saved)
{
	for (size_t i = turn->first; i < turn->count; i++)
		if (turn->called[i].hooks.after)
			turn->called[i].hooks.after(turn->called[i].hooks.context, saved);
	__atomic_store_n(&page->after, turn->number, __ATOMIC_SEQ_CST);
	free(turn->called);
	*turn = (struct turn){ 0 };
}

static void greet(struct bulletin *page, struct turn *turn, uint32_t generation)
{
	size_t count;
	struct entry *copy = copy_entries(&count);
	for (size_t i = 0; i < count; i++)
		if (copy[i].hooks.restored)
			copy[i].hooks.restored(copy[i].hooks.context, generation);
	free(copy);
	free(turn->called);
	*turn = (struct turn){ 0 };
	__atomic_store_n(&page->before, page->turn, __ATOMIC_SEQ_CST);
	__atomic_store_n(&page->after, page->turn, __ATOMIC_SEQ_CST);
	__atomic_store_n(&page->greeted, generation, __ATOMIC_SEQ_CST);
}

/* The Cairn that opened the turn has died. */
static bool turn_is_lost(const struct bulletin *page, struct turn *turn)
{
	int32_t by = __atomic_load_n(&page->turn_by, __ATOMIC_SEQ_CST);
	turn->looks++;
	return by ? kill(by, 0) < 0 && errno == ESRCH : turn->looks > UNSEEN_LOOKS;
}

static void *help(void *argument)
{
	struct bulletin *page = argument;
	struct turn turn = { 0 };
	prctl(PR_SET_NAME, "cairn-hooks");
	pthread_mutex_lock(&lock);
	__atomic_store_n(&page->helper, (int32_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&started);
	pthread_mutex_unlock(&lock);
	for (;;) {
		uint32_t generation = __atomic_load_n(&page->generation, __ATOMIC_SEQ_CST);
		uint32_t number = __atomic_load_n(&page->turn, __ATOMIC_SEQ_CST);
		if (generation != page->greeted) {
			greet(page, &turn, generation);
		} else if (turn.number && (__atomic_load_n(&page->over, __ATOMIC_SEQ_CST) == turn.number || number != turn.number)) {
			turn_end(page, &turn, page->over == turn.number && !page->failed);
		} else if (!turn.number && number != page->before) {
			turn_begin(page, &turn, number);
		} else if (turn.number && turn_is_lost(page, &turn)) {
			turn_end(page, &turn, false);
		} else {
			inside_await(turn.number ? LOOK_MS : 3600000);
		}
	}
	return NULL;
}

/* ---- the program's side ---- */

/* A child of fork has its parent's thread only, and starts without hooks. */
static void forget(void)
{
	pthread_mutex_init(&lock, NULL);
	free(entries);
	entries = NULL;
	entry_count = 0;
	helping = false;
}

static void take_lock(void)
{
	pthread_mutex_lock(&lock);
}

static void give_lock(void)
{
	pthread_mutex_unlock(&lock);
}

/* With the lock. */
static int start_helper(struct bulletin *page)
{
	static bool prepared;
	sigset_t all, mask;
	pthread_attr_t attributes;
	pthread_t thread;
	if (page->helper)
		return helping ? 0 : EBUSY;
	if (!prepared && pthread_atfork(take_lock, give_lock, forget) == 0)
		prepared = true;
	page->before = page->after = page->turn;
	page->greeted = page->generation;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int rc = pthread_create(&thread, &attributes, help, page);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	while (rc == 0 && !page->helper)
		pthread_cond_wait(&started, &lock);
	helping = rc == 0;
	return rc;
}

int cairn_hooks_add(const struct cairn_hooks *hooks)
{
	struct bulletin *page = inside_bulletin();
	if (!page)
		return inside_failed(ENOMEM, "no memory for a page");
	pthread_mutex_lock(&lock);
	struct entry *larger = realloc(entries, (entry_count + 1) * sizeof *larger);
	if (larger)
		entries = larger;
	int rc = larger ? start_helper(page) : ENOMEM;
	int id = ++last_id;
	if (rc == 0)
		entries[entry_count++] = (struct entry){ *hooks, id };
	pthread_mutex_unlock(&lock);
	return rc ? inside_failed(rc, "no thread for hooks: %s", strerror(rc)) : id;
}

int cairn_hooks_remove(int id)
{
	int rc = ENOENT;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < entry_count && rc; i++) {
		if (entries[i].id != id)
			continue;
		memmove(&entries[i], &entries[i + 1], (entry_count - i - 1) * sizeof *entries);
		entry_count--;
		rc = 0;
	}
	pthread_mutex_unlock(&lock);
	return rc ? inside_failed(rc, "there are no hooks %d", id) : 0;
}
