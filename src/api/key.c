/* SPDX-License-Identifier: Apache-2.0 */
#include "api/key.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/operations.h"
#include "base/fd.h"
#include "base/memory.h"

enum { DIGITS = 2 * CAIRN_KEY_SIZE, FILE_MOST = DIGITS + 2 /* a line end, and one too many */ };
#define HOW "head -c 32 /dev/urandom >FILE"

/* All of @fd, if it is not more than FILE_MOST. -errno. */
static ssize_t read_all(int fd, uint8_t *bytes)
{
	size_t done = 0;
	while (done < FILE_MOST) {
		ssize_t n = read(fd, bytes + done, FILE_MOST - done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)done;
}

static int digit_of(uint8_t character)
{
	static const char digits[] = "0123456789abcdef";
	const char *found = character ? strchr(digits, tolower(character)) : NULL;
	return found ? (int)(found - digits) : -1;
}

static bool take_digits(const uint8_t *text, uint8_t *key)
{
	for (size_t i = 0; i < CAIRN_KEY_SIZE; i++) {
		int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		key[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* A key that was read from /dev/zero, or typed: none that is random looks so (1 in 10^77, 10^13). */
static const char *weakness(const uint8_t *key)
{
	bool same = true, text = true;
	for (size_t i = 0; i < CAIRN_KEY_SIZE; i++) {
		same &= key[i] == key[0];
		text &= key[i] >= ' ' && key[i] < 0x7f;
	}
	return same ? "the same byte again and again" : text ? "text" : NULL;
}

static int key_parse(const uint8_t *bytes, size_t size, uint8_t *key, struct fault *fault)
{
	if (size == CAIRN_KEY_SIZE)
		memcpy(key, bytes, CAIRN_KEY_SIZE);
	else if ((size != DIGITS && (size != DIGITS + 1 || bytes[DIGITS] != '\n')) || !take_digits(bytes, key))
		return fault_set(fault, FAULT_USAGE, EINVAL, "no key, which is 32 random bytes or 64 hexadecimal digits; try to make one: " HOW);
	const char *weak = weakness(key);
	return weak ? fault_set(fault, FAULT_USAGE, EINVAL, "32 bytes, but not random ones (%s); try to make a key: " HOW, weak) : 0;
}

static int mode_check(int fd, struct fault *fault)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s", strerror(errno));
	if (S_ISDIR(status.st_mode))
		return fault_set(fault, FAULT_USAGE, EISDIR, "a directory; try a file with a key: " HOW);
	/* What comes through a pipe is the affair of who sends it. */
	if (S_ISREG(status.st_mode) && status.st_mode & 077)
		return fault_set(fault, FAULT_PERMISSION, EACCES, "a key that others may read or change (mode %04o); try chmod 600, or a new key, if they "
				 "should not have read it", status.st_mode & 07777);
	return 0;
}

static int key_read_from(int fd, uint8_t *bytes, uint8_t *key, struct fault *fault)
{
	int rc = mode_check(fd, fault);
	if (rc < 0)
		return rc;
	ssize_t size = read_all(fd, bytes);
	if (size < 0)
		return fault_set(fault, FAULT_FAILED, (int)-size, "%s", strerror((int)-size));
	return key_parse(bytes, (size_t)size, key, fault);
}

int key_read(const char *path, uint8_t **ret_key, struct fault *fault)
{
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "key %s: %s; try the file that holds the key", path, strerror(errno));
	uint8_t *bytes = memory_new_secret(FILE_MOST), *key = memory_new_secret(CAIRN_KEY_SIZE);
	int rc = key_read_from(fd, bytes, key, fault);
	memory_free_secret(bytes, FILE_MOST);
	if (rc < 0) {
		key_free(key);
		return fault_at(fault, rc, "key %s", path);
	}
	*ret_key = key;
	return 0;
}

void key_free(uint8_t *key)
{
	memory_free_secret(key, CAIRN_KEY_SIZE);
}

int key_give(const uint8_t *key)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	_close_ int from = ends[0], to = ends[1];
	int rc = fd_write_full(to, key, CAIRN_KEY_SIZE);
	return rc < 0 ? rc : fd_steal(&from);
}

uint8_t *key_take(int fd)
{
	uint8_t *key = memory_new_secret(CAIRN_KEY_SIZE);
	if (fd_read_full(fd, key, CAIRN_KEY_SIZE) == 0)
		return key;
	key_free(key);
	return NULL;
}

enum cairn_status cairn_key_read(const char *path, unsigned char ret_key[CAIRN_KEY_SIZE], struct cairn_error *error)
{
	struct fault fault;
	uint8_t *key = NULL;
	if (key_read(path, &key, &fault) < 0 || !key)
		return operation_failed(NULL, &fault, NULL, error);
	memcpy(ret_key, key, CAIRN_KEY_SIZE);
	key_free(key);
	return CAIRN_DONE;
}
