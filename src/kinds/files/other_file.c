/* SPDX-License-Identifier: Apache-2.0 */
/* Files without a place in any file system that are not carried, by name and with what helps: no record of this kind is ever written, and one that is
 * read is damaged. */
#include <errno.h>
#include <string.h>

#include "files.pb-c.h"
#include "kinds/files/open_file.h"
#include "kinds/table.h"

static const struct {
	const char *link, *name, *remedy;
} refused[] = {
	{ "anon_inode:[userfaultfd]", "a userfaultfd, whose faults only the program can serve", "try again when the program has closed it" },
	{ "anon_inode:[perf_event]", "a perf event, whose counts are the processor's", "try again when the program has closed it" },
	{ "anon_inode:[fscontext]", "a file system that is being set up (fsopen, fspick)", "try again when it is mounted" },
	{ "anon_inode:[landlock-ruleset]", "a Landlock rule set, which the kernel shows to nobody", "try again when the program has closed it" },
	{ "anon_inode:seccomp notify", "the supervisor's end of a seccomp filter", "try again when the program has closed it" },
	{ "anon_inode:kvm-", "a virtual machine (KVM), whose state its driver holds", "try to let the program save that by itself" },
	{ "/dmabuf:", "a buffer of a device", "try again when the program has closed it" },
	{ "mnt:[", "a mount namespace", "try again when the program has closed it" },
	{ "net:[", "a network namespace", "try again when the program has closed it" },
	{ "pid:[", "a PID namespace", "try again when the program has closed it" },
	{ "user:[", "a user namespace", "try again when the program has closed it" },
	{ "ipc:[", "an IPC namespace", "try again when the program has closed it" },
	{ "uts:[", "a UTS namespace", "try again when the program has closed it" },
	{ "cgroup:[", "a cgroup namespace", "try again when the program has closed it" },
	{ "time:[", "a time namespace", "try again when the program has closed it" },
};
enum { REFUSED = sizeof refused / sizeof *refused };

/* Which of them it is; REFUSED: none. */
static size_t find(const struct frozen_file *file)
{
	size_t i = 0;
	while (i < REFUSED && strncmp(file->link, refused[i].link, strlen(refused[i].link)))
		i++;
	return i;
}

static bool probe(const struct frozen_file *file)
{
	return find(file) < REFUSED;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	size_t which = find(file);
	(void)harvest;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: %s, cannot be carried by this version; %s", file->link,
			 which < REFUSED ? refused[which].name : "", which < REFUSED ? refused[which].remedy : "try again");
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	(void)base;
	return fault_set(fault, FAULT_IMAGE, EINVAL, "holds a file that no Cairn writes");
}

const struct kind kind_other_file = {
	.name = "file that is not carried",
	.tag = 68,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__other_file__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.check = check,
};
