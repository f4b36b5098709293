/* SPDX-License-Identifier: Apache-2.0 */
/* eventfd(2): its count, and whether it is a semaphore, from fdinfo ("eventfd-count", hexadecimal; "eventfd-semaphore", 6.5; before
 * that kernel nobody can tell, and it is taken for none). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "kinds/files/open_file.h"
#include "kinds/table.h"

static bool probe(const struct frozen_file *file)
{
	return !strcmp(file->link, "anon_inode:[eventfd]");
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Eventfd *message = HARVEST_MESSAGE(harvest, Cairn__Eventfd, cairn__eventfd__init);
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	(void)fault;
	while (fdinfo_next(&cursor, &key, &value)) {
		if (!strcmp(key, "eventfd-count"))
			message->count = strtoull(value, NULL, 16);
		else if (!strcmp(key, "eventfd-semaphore"))
			message->semaphore = strtoul(value, NULL, 10) != 0;
	}
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_eventfd, &message->base);
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Eventfd *message = (const Cairn__Eventfd *)base;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (message->semaphore ? EFD_SEMAPHORE : 0));
	if (fd < 0 || (message->count && eventfd_write(fd, message->count) < 0))
		return fault_set(fault, fault_class_of(errno), errno, "eventfd with count %llu: %s",
				 (unsigned long long)message->count, strerror(errno));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_eventfd = {
	.name = "eventfd",
	.tag = 52,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__eventfd__descriptor,
	.owner_field = "open",
	.probe = probe,
	.capture_file = capture_file,
	.make = make,
};
