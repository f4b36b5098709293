/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/locks.h"

#include <string.h>
#include <sys/sysmacros.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

static bool skip_word(const char **at)
{
	const char *word = token_skip_blanks(*at);
	size_t length = strcspn(word, " \t\n");
	*at = word + length;
	return length > 0;
}

static bool take_type(const char **at, struct file_lock *lock)
{
	static const struct {
		const char *name;
		enum lock_type type;
	} types[] = {
		{ "FLOCK", LOCK_TYPE_FLOCK }, { "POSIX", LOCK_TYPE_POSIX }, { "OFDLCK", LOCK_TYPE_OFD },
		{ "LEASE", LOCK_TYPE_LEASE },
	};
	*at = token_skip_blanks(*at);
	lock->type = LOCK_TYPE_OTHER;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (token_word(at, types[i].name)) {
			lock->type = types[i].type;
			break;
		}
	return lock->type != LOCK_TYPE_OTHER || skip_word(at);
}

static bool take_place(const char **at, struct file_lock *lock)
{
	uint64_t major_, minor_;
	if (!token_number(at, 16, &major_) || *(*at)++ != ':' || !token_number(at, 16, &minor_) || *(*at)++ != ':' ||
	    !token_number(at, 10, &lock->inode))
		return false;
	lock->device = makedev((unsigned int)major_, (unsigned int)minor_);
	return true;
}

bool lock_parse(const char *line, struct file_lock *ret_lock)
{
	struct file_lock lock = { 0 };
	const char *at = line;
	uint64_t number;
	int64_t pid;
	if (token_number(&at, 10, &number) && *at++ != ':')
		return false;
	at = token_skip_blanks(at);
	lock.waiting = token_word(&at, "->");
	if (!take_type(&at, &lock))
		return false;
	at = token_skip_blanks(at);
	lock.breaking = token_word(&at, "BREAK");
	if (!skip_word(&at))
		return false;
	at = token_skip_blanks(at);
	lock.write = token_word(&at, "WRITE") || token_word(&at, "RW");
	if ((!lock.write && !skip_word(&at)) || !token_signed(&at, &pid) || !take_place(&at, &lock) ||
	    !token_number(&at, 10, &lock.start))
		return false;
	at = token_skip_blanks(at);
	if (token_word(&at, "EOF"))
		lock.end = UINT64_MAX;
	else if (!token_number(&at, 10, &lock.end))
		return false;
	lock.pid = pid > 0 ? (pid_t)pid : -1;
	*ret_lock = lock;
	return true;
}

static bool conflicts(const struct file_lock *lock, const struct file_lock *other)
{
	/* flock(2) and fcntl(2) locks do not see each other (flock(2)); OFD and POSIX locks do (fcntl(2)). */
	bool same_sort = lock->type == other->type ||
			 (lock->type == LOCK_TYPE_POSIX && other->type == LOCK_TYPE_OFD) ||
			 (lock->type == LOCK_TYPE_OFD && other->type == LOCK_TYPE_POSIX);
	return same_sort && !other->waiting && lock->inode == other->inode && lock->device == other->device &&
	       (lock->write || other->write) && lock->start <= other->end && other->start <= lock->end;
}

pid_t lock_holder(const struct file_lock *lock)
{
	struct text text = { 0 };
	pid_t pid = 0;
	if (proc_read_path("/proc/locks", &text, NULL) < 0)
		return 0;
	for (const char *line = text.at; *line && !pid; line = token_next_line(line)) {
		struct file_lock other;
		if (lock_parse(line, &other) && conflicts(lock, &other))
			pid = other.pid;
	}
	text_finish(&text);
	return pid > 0 ? pid : 0;
}
