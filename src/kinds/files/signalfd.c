/* SPDX-License-Identifier: Apache-2.0 */
/* signalfd(2): its mask, from fdinfo ("sigmask", hexadecimal). The signals that it would report are pending ones of the reader. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kinds/files/open_file.h"
#include "kinds/table.h"

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, "anon_inode:[signalfd]");
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Signalfd *message = HARVEST_MESSAGE(harvest, Cairn__Signalfd, cairn__signalfd__init);
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	(void)fault;
	while (fdinfo_next(&cursor, &key, &value))
		if (!strcmp(key, "sigmask"))
			message->mask = strtoull(value, NULL, 16);
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_signalfd, &message->base);
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Signalfd *message = (const Cairn__Signalfd *)base;
	uint64_t mask = message->mask;
	int fd = (int)syscall(SYS_signalfd4, -1, &mask, sizeof mask, O_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "signalfd: %s", strerror(errno));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_signalfd = {
	.name = "signalfd",
	.tag = 54,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__signalfd__descriptor,
	.owner_field = "open",
	.probe = probe,
	.capture_file = capture_file,
	.make = make,
};
