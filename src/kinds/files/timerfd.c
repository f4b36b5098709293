/* SPDX-License-Identifier: Apache-2.0 */
/* timerfd_create(2): clock, expirations not yet read, time left and interval, from fdinfo. Goes on with the time that was left;
 * expirations are put back by TFD_IOC_SET_TICKS (fs/timerfd.c, CONFIG_CHECKPOINT_RESTORE). An absolute timer of the wall clock, or of
 * any clock that goes on, is armed for the moment that it was set for, and, if it was, canceled when that clock is set. One that expired unread is counted up first. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "kinds/files/open_file.h"
#include "kinds/table.h"

/* include/uapi/linux/timerfd.h, which cannot be included beside sys/timerfd.h. */
#define TFD_IOC_SET_TICKS_ _IOW('T', 0, uint64_t)

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, "anon_inode:[timerfd]");
}

static uint64_t parse_time(const char *value)
{
	unsigned long long s = 0, ns = 0;
	sscanf(value, "(%llu, %llu)", &s, &ns);
	return s * 1000000000u + ns;
}

/* Clocks of alarms wake the machine; what they show is the same. */
static clockid_t plain_clock(int32_t clock)
{
	return clock == CLOCK_REALTIME_ALARM ? CLOCK_REALTIME : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME : clock;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Timerfd *message = (const Cairn__Timerfd *)base;
	if (message->clock < 0 || message->clock > CLOCK_BOOTTIME_ALARM || message->settime_flags > 3 ||
	    message->value_ns > INT64_MAX || message->interval_ns > INT64_MAX || message->deadline_ns > INT64_MAX)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a timerfd has impossible values");
	return 0;
}

static void take_fdinfo(char *text, Cairn__Timerfd *message)
{
	const char *key, *value;
	while (fdinfo_next(&text, &key, &value)) {
		if (!strcmp(key, "clockid"))
			message->clock = (int32_t)strtol(value, NULL, 10);
		else if (!strcmp(key, "ticks"))
			message->ticks = strtoull(value, NULL, 10);
		else if (!strcmp(key, "settime flags"))
			message->settime_flags = (uint32_t)strtoul(value, NULL, 8);
		else if (!strcmp(key, "it_value"))
			message->value_ns = parse_time(value);
		else if (!strcmp(key, "it_interval"))
			message->interval_ns = parse_time(value);
	}
}

/* Anew: what is left is told beside the clock. */
static int look(const struct frozen_file *file, Cairn__Timerfd *message, struct fault *fault)
{
	struct text text = { 0 };
	struct fdinfo info;
	struct timespec now = { 0 };
	int rc = fdinfo_read(file->pid, file->fd, &text, &info, fault);
	if (rc == 0)
		take_fdinfo(text.at, message);
	text_finish(&text);
	message->deadline_ns = 0;
	if (rc == 0 && (message->settime_flags & TFD_TIMER_ABSTIME) && message->value_ns && clock_gettime(plain_clock(message->clock), &now) == 0)
		message->deadline_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + message->value_ns;
	return rc;
}

/* One with an interval stands still once it has expired, until somebody reads it or asks for the time left: only then is it counted how often it would have
 * expired since, and is it armed for the next time (fs/timerfd.c timerfd_read_iter, do_timerfd_gettime, 6.18). Asking changes nothing that the program could see. */
static bool stands_still(const Cairn__Timerfd *message)
{
	return message->ticks && message->interval_ns && !message->value_ns;
}

static int count_overruns(struct frozen_file *file, Cairn__Timerfd *message, struct fault *fault)
{
	struct itimerspec left;
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	if (timerfd_gettime(own, &left) < 0)
		rc = fault_set(fault, fault_class_of(errno), errno, "timerfd_gettime: %s", strerror(errno));
	frozen_file_put(file);
	return rc < 0 ? rc : look(file, message, fault);
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Timerfd *message = HARVEST_MESSAGE(harvest, Cairn__Timerfd, cairn__timerfd__init);
	int rc = look(file, message, fault);
	if (rc == 0 && stands_still(message))
		rc = count_overruns(file, message, fault);
	if (rc < 0)
		return rc;
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_timerfd, &message->base);
	return 0;
}

/* Disarmed, or due at this very moment, while the processor that it was armed on has yet to see that: fdinfo shows the same. */
static bool seems_disarmed(const Cairn__Timerfd *message)
{
	return !message->value_ns && !message->ticks;
}

static Cairn__Timerfd *message_of(const struct harvest *harvest, const struct frozen_file *file)
{
	for (size_t i = 0; i < harvest->records.count; i++) {
		Cairn__Timerfd *message = (Cairn__Timerfd *)harvest->records.at[i].message;
		if (harvest->records.at[i].kind == &kind_timerfd && message->open->file == file->id)
			return message;
	}
	return NULL;
}

/* Those that seem disarmed are looked at once more when that moment has passed: one that was lost would never fire. */
static int capture_tree(struct harvest *harvest, struct fault *fault)
{
	const uint64_t moment_ns = 1000000;
	bool waited = false;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		Cairn__Timerfd *message = file->kind == &kind_timerfd ? message_of(harvest, file) : NULL;
		if (!message || !seems_disarmed(message))
			continue;
		if (!waited)
			clock_sleep_ns(moment_ns);
		waited = true;
		rc = look(file, message, fault);
		if (rc == 0 && stands_still(message))
			rc = count_overruns(file, message, fault);
	}
	return rc;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

enum { PATIENCE_MS = 10000 };

/* 1 if it has expired within that time, 0 if not. */
static int await(int fd, int most_ms)
{
	struct pollfd expired = { .fd = fd, .events = POLLIN };
	int rc = poll(&expired, 1, most_ms);
	return rc < 0 ? -errno : rc;
}

/* Made to expire now, it stands still likewise, and the next read arms it again. */
static int let_expire(int fd, const Cairn__Timerfd *message)
{
	const struct itimerspec at_once = { timespec_of(message->interval_ns), { 0, 1 } };
	int rc = timerfd_settime(fd, 0, &at_once, NULL) < 0 ? -errno : await(fd, PATIENCE_MS);
	return rc < 0 ? rc : rc ? 0 : -ETIMEDOUT;
}

static bool has_passed(const Cairn__Timerfd *message)
{
	struct timespec now;
	return clock_gettime(plain_clock(message->clock), &now) == 0 && message->deadline_ns <= (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Armed for a moment that has passed since, it expires at once, as often as it would have: that comes to what nobody had read before. */
static int arm(int fd, const Cairn__Timerfd *message, bool absolute, uint64_t *ticks)
{
	const struct itimerspec time = {
		timespec_of(message->interval_ns), timespec_of(absolute ? message->deadline_ns : message->value_ns),
	};
	uint64_t since = 0;
	if (timerfd_settime(fd, absolute ? (int)message->settime_flags : 0, &time, NULL) < 0)
		return -errno;
	if (!*ticks || !absolute || !has_passed(message))
		return 0;
	int rc = await(fd, PATIENCE_MS);
	if (rc > 0 && read(fd, &since, sizeof since) < 0)
		rc = -errno;
	*ticks += since;
	return rc < 0 ? rc : 0;
}

static int set_time(struct workshop *workshop, int fd, const Cairn__Timerfd *message)
{
	bool absolute = message->deadline_ns && (workshop->clocks_go_on || plain_clock(message->clock) == CLOCK_REALTIME);
	uint64_t ticks = message->ticks;
	int rc = stands_still(message) ? let_expire(fd, message) : arm(fd, message, absolute, &ticks);
	return rc < 0 ? rc : ticks && ioctl(fd, TFD_IOC_SET_TICKS_, &ticks) < 0 ? -errno : 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Timerfd *message = (const Cairn__Timerfd *)base;
	int fd = timerfd_create(message->clock, TFD_CLOEXEC), rc = fd < 0 ? -errno : set_time(workshop, fd, message);
	if (rc < 0 && fd >= 0)
		close(fd);
	if (rc < 0)
		return fault_set(fault, fault_class_of(-rc), -rc, "timerfd of clock %d: %s", message->clock, strerror(-rc));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_timerfd = {
	.name = "timerfd",
	.tag = 55,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__timerfd__descriptor,
	.owner_field = "open",
	.probe = probe,
	.capture_file = capture_file,
	.capture_tree = capture_tree,
	.check = check,
	.make = make,
};
