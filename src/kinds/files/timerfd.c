/* SPDX-License-Identifier: Apache-2.0 */
/* timerfd_create(2): clock, expirations not yet read, time left and interval, from fdinfo. Goes on with the time that was left;
 * expirations are put back by TFD_IOC_SET_TICKS (fs/timerfd.c, CONFIG_CHECKPOINT_RESTORE). An absolute timer of the wall clock, or of
 * any clock that goes on, is armed for the moment that it was set for, and, if it was, canceled when that clock is set. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>

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

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Timerfd *message = HARVEST_MESSAGE(harvest, Cairn__Timerfd, cairn__timerfd__init);
	struct text text = { 0 };
	struct fdinfo info;
	struct timespec now = { 0 };
	/* Anew: what is left is told beside the clock. */
	int rc = fdinfo_read(file->pid, file->fd, &text, &info, fault);
	if (rc < 0)
		return rc;
	char *cursor = text.at;
	const char *key, *value;
	while (fdinfo_next(&cursor, &key, &value)) {
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
	text_finish(&text);
	if ((message->settime_flags & TFD_TIMER_ABSTIME) && message->value_ns && clock_gettime(plain_clock(message->clock), &now) == 0)
		message->deadline_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + message->value_ns;
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_timerfd, &message->base);
	return 0;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Timerfd *message = (const Cairn__Timerfd *)base;
	bool absolute = message->deadline_ns && (workshop->clocks_go_on || plain_clock(message->clock) == CLOCK_REALTIME);
	struct itimerspec time = {
		timespec_of(message->interval_ns), timespec_of(absolute ? message->deadline_ns : message->value_ns),
	};
	uint64_t ticks = message->ticks;
	int fd = timerfd_create(message->clock, TFD_CLOEXEC);
	if (fd < 0 || timerfd_settime(fd, absolute ? (int)message->settime_flags : 0, &time, NULL) < 0 || (ticks && ioctl(fd, TFD_IOC_SET_TICKS_, &ticks) < 0))
		return fault_set(fault, fault_class_of(errno), errno, "timerfd of clock %d: %s", message->clock,
				 strerror(errno));
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
	.check = check,
	.make = make,
};
