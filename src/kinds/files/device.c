/* SPDX-License-Identifier: Apache-2.0 */
/* Devices without state of their own: /dev/null, zero, full, random, urandom. Opened again by path; the device number has to
 * be the same. Every other device is refused by name, unless the user says that opening it again is enough (--device-reopen). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "kinds/files/open_file.h"
#include "kinds/table.h"

/* Documentation/admin-guide/devices.txt: major 1. */
static bool is_stateless(dev_t device)
{
	unsigned minor_ = minor(device);
	return major(device) == 1 && (minor_ == 3 || minor_ == 5 || minor_ == 7 || minor_ == 8 || minor_ == 9);
}

static bool probe(const struct frozen_file *file)
{
	return (S_ISCHR(file->stat.st_mode) || S_ISBLK(file->stat.st_mode)) && file->link[0] == '/' && !(file->info.flags & O_PATH);
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	struct stat named;
	bool allowed = S_ISCHR(file->stat.st_mode) && is_stateless(file->stat.st_rdev);
	for (size_t i = 0; !allowed && i < harvest->policy.reopen_count; i++)
		allowed = !strcmp(file->link, harvest->policy.reopen[i]) ||
			  (stat(harvest->policy.reopen[i], &named) == 0 && named.st_rdev == file->stat.st_rdev &&
			   (named.st_mode & S_IFMT) == (file->stat.st_mode & S_IFMT));
	if (allowed)
		return 0;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "%s: a device, whose state only its driver knows; try again when the program has closed it, or, if opening it again is "
			 "enough, --device-reopen %s", file->link, file->link);
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__CharacterDevice *message = HARVEST_MESSAGE(harvest, Cairn__CharacterDevice,
							  cairn__character_device__init);
	(void)fault;
	message->open = open_file_capture(harvest, file);
	message->path = (char *)file->link;
	message->device = file->stat.st_rdev;
	harvest_add(harvest, &kind_device, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__CharacterDevice *message = (const Cairn__CharacterDevice *)base;
	struct stat now;
	if (!message->open || message->path[0] != '/')
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a device has impossible values");
	if (stat(message->path, &now) < 0 || now.st_rdev != message->device || (!S_ISCHR(now.st_mode) && !S_ISBLK(now.st_mode)))
		return fault_set(fault, FAULT_FAILED, ENODEV, "%s: is not the device here that it was at the checkpoint",
				 message->path);
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__CharacterDevice *message = (const Cairn__CharacterDevice *)base;
	return open_file_make(workshop, message->open, message->path, message->open->position != 0, fault);
}

const struct kind kind_device = {
	.name = "device",
	.tag = 56,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__character_device__descriptor,
	.owner_field = "open",
	.path_field = "path",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.check = check,
	.make = make,
};
