/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's credentials: ids, groups, capability sets and no_new_privs from /proc/PID/task/TID/status, securebits (of which PR_SET_KEEPCAPS is one) by prctl.
 * Put back per thread, after everything that needs privilege. The order is forced by the kernel (capabilities(7)): with
 * SECBIT_NO_SETUID_FIXUP the ids can change and the capabilities stay; ambient ones need the others first; the final capset
 * comes last. Changing ids resets dumpable and the parent-death signal (kernel/cred.c commit_creds), which are set after. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

struct note {
	size_t securebits;
};

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	(void)thread, (void)fault;
	note->securebits = batch_try(batch, prctl, PR_GET_SECUREBITS);
	*ret_note = note;
	return 0;
}

static void fill(Cairn__Credentials *message, const struct proc_status *status)
{
	message->uid = status->uid[0];
	message->euid = status->uid[1];
	message->suid = status->uid[2];
	message->fsuid = status->uid[3];
	message->gid = status->gid[0];
	message->egid = status->gid[1];
	message->sgid = status->gid[2];
	message->fsgid = status->gid[3];
	message->groups = status->groups;
	message->n_groups = status->group_count;
	message->inheritable = status->cap_inheritable;
	message->permitted = status->cap_permitted;
	message->effective = status->cap_effective;
	message->bounding = status->cap_bounding;
	message->ambient = status->cap_ambient;
	message->no_new_privs = status->no_new_privs;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__Credentials *message = HARVEST_MESSAGE(harvest, Cairn__Credentials, cairn__credentials__init);
	int64_t securebits = batch ? batch_result(batch, ((struct note *)note)->securebits) : 0; /* of one that has ended */
	(void)fault;
	message->tid = (uint32_t)thread->tid;
	fill(message, &thread->status);
	message->securebits = securebits > 0 ? (uint32_t)securebits : 0;
	harvest_add(harvest, &kind_credentials, &message->base);
	return 0;
}

/* Has @id a meaning in this user namespace? @own: one that has. The lines of a map: inside, outside, count (user_namespaces(7)). */
static bool is_mapped(const char *map, uint32_t id, uint32_t own)
{
	if (id == own)
		return true;
	struct text text = { 0 };
	bool mapped = proc_read_path(map, &text, NULL) < 0;
	unsigned long inside, count;
	int length;
	for (const char *at = text.at; !mapped && at && sscanf(at, "%lu %*u %lu\n%n", &inside, &count, &length) == 2; at += length)
		mapped = id >= inside && id - inside < count;
	text_finish(&text);
	return mapped;
}

/* setgroups(2) is given up where an ordinary user made the user namespace: his groups stay as they are. */
static bool groups_are_fixed(void)
{
	struct text text = { 0 };
	bool fixed = proc_read_path("/proc/self/setgroups", &text, NULL) == 0 && !strncmp(text.at, "deny", 4);
	text_finish(&text);
	return fixed;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Credentials *message = (const Cairn__Credentials *)base;
	const uint32_t uids[] = { message->uid, message->euid, message->suid, message->fsuid };
	const uint32_t gids[] = { message->gid, message->egid, message->sgid, message->fsgid };
	if (message->n_groups > 65536)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: %zu groups are impossible", message->tid,
				 message->n_groups);
	/* What is known to be mapped is Cairn's, then the one before. */
	for (size_t i = 0; i < sizeof uids / sizeof *uids; i++)
		if (!is_mapped("/proc/self/uid_map", uids[i], i ? uids[i - 1] : geteuid()) ||
		    !is_mapped("/proc/self/gid_map", gids[i], i ? gids[i - 1] : getegid()))
			return fault_set(fault, FAULT_PERMISSION, EPERM,
					 "thread %u runs as uid %u, gid %u, which an ordinary user's namespace does not have; try "
					 "as root", message->tid, uids[i], gids[i]);
	return 0;
}

static bool same_groups(const Cairn__Credentials *a, const Cairn__Credentials *b)
{
	return a->n_groups == b->n_groups && (!a->n_groups || !memcmp(a->groups, b->groups, a->n_groups * sizeof *a->groups));
}

/* Are these what a newborn inherits from Cairn anyway? Then no privilege is needed for them. */
static bool same_as_own(const Cairn__Credentials *own, const Cairn__Credentials *want)
{
	return own->uid == want->uid && own->euid == want->euid && own->suid == want->suid && own->fsuid == want->fsuid &&
	       own->gid == want->gid && own->egid == want->egid && own->sgid == want->sgid && own->fsgid == want->fsgid &&
	       same_groups(own, want) && own->inheritable == want->inheritable && own->permitted == want->permitted &&
	       own->effective == want->effective && own->bounding == want->bounding && own->ambient == want->ambient &&
	       own->securebits == want->securebits;
}

static void add_capset(struct batch *batch, uint64_t inheritable, uint64_t permitted, uint64_t effective)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32) },
	};
	struct batch_place header_place = batch_data(batch, &header, sizeof header);
	struct batch_place data_place = batch_data(batch, data, sizeof data);
	batch_call(batch, capset, header_place.address, data_place.address);
}

static void add_ids(const Cairn__Credentials *message, const Cairn__Credentials *own, struct batch *batch)
{
	struct batch_place groups = batch_data(batch, message->groups, message->n_groups * sizeof *message->groups);
	if (!same_groups(message, own) && !groups_are_fixed())
		batch_call(batch, setgroups, message->n_groups, groups.address);
	batch_call(batch, setresgid, message->gid, message->egid, message->sgid);
	batch_call(batch, setresuid, message->uid, message->euid, message->suid);
	batch_try(batch, setfsgid, message->fsgid);
	batch_try(batch, setfsuid, message->fsuid);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Credentials *message = (const Cairn__Credentials *)base;
	Cairn__Credentials own = CAIRN__CREDENTIALS__INIT;
	const struct proc_status *status;
	int rc = workshop_own_status(thread->process->workshop, &status, fault);
	if (rc < 0)
		return rc;
	fill(&own, status);
	own.securebits = (uint32_t)prctl(PR_GET_SECUREBITS);
	if (!same_as_own(&own, message)) {
		/* Setting them needs a capability even where nothing changes. */
		bool securebits = own.permitted >> CAP_SETPCAP & 1 || own.securebits != message->securebits;
		batch_group(batch, 160, message->n_groups * 4 + 512);
		if (securebits)
			batch_call(batch, prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
		add_ids(message, &own, batch);
		for (uint64_t cap = 0; cap < 64; cap++)
			if (own.bounding >> cap & 1 && !(message->bounding >> cap & 1))
				batch_call(batch, prctl, PR_CAPBSET_DROP, cap);
		add_capset(batch, message->inheritable, own.permitted, own.permitted);
		for (uint64_t cap = 0; cap < 64; cap++)
			if (message->ambient >> cap & 1)
				batch_call(batch, prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap);
		if (securebits)
			batch_call(batch, prctl, PR_SET_SECUREBITS, message->securebits);
		add_capset(batch, message->inheritable, message->permitted, message->effective);
	}
	if (message->no_new_privs)
		batch_call(batch, prctl, PR_SET_NO_NEW_PRIVS, 1);
	return 0;
}

const struct kind kind_credentials = {
	.name = "credentials",
	.tag = 15,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__credentials__descriptor,
	.owner_field = "tid",
	.of_zombies = true,
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
