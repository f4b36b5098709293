/* SPDX-License-Identifier: Apache-2.0 */
/* How the kernel treats a thread otherwise than others: personality(2), what prctl(2) says of machine checks
 * (PR_MCE_KILL), the time stamp counter (PR_SET_TSC), speculation (PR_SET_SPECULATION_CTRL) and arch_prctl(2) of CPUID, PR_SET_IO_FLUSHER (two flags
 * in stat), and syscall user dispatch (PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG), which would send Cairn's calls to the program's handler: it is
 * switched off while the thread stands still (capture/freeze.c) and set again when a newborn needs no more calls (rebuild/finish.c).
 * Only what differs from Cairn's own, which newborns inherit, is set.
 *
 * Not carried: a local descriptor table (modify_ldt(2)), I/O ports (ioperm(2)), masked addresses (LAM), keyrings of the thread or process, and a session
 * keyring that is not Cairn's and holds more than the user's: a newborn has Cairn's. What nobody can see: Landlock domains, who may trace it
 * under Yama (PR_SET_PTRACER), the slack that PR_SET_TIMERSLACK 0 would give. */
#include <errno.h>
#include <linux/keyctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "kernel/features.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

/* arch/x86/include/uapi/asm/prctl.h, include/linux/sched.h */
enum { ARCH_GET_CPUID_ = 0x1011, ARCH_SET_CPUID_ = 0x1012, PF_MEMALLOC_NOIO = 0x80000, PF_LOCAL_THROTTLE = 0x100000, CAP_SYS_RESOURCE_ = 24 };
enum { SESSION_KEYS = 32 }; /* looked at; of more one is not the user's anyway */
enum { SPECULATIONS = 3 }; /* PR_SPEC_STORE_BYPASS, INDIRECT_BRANCH, L1D_FLUSH */

struct note {
	size_t personality, mce, cpuid, ldt, keyrings[2], session_ring, user_ring, session_size, speculation[SPECULATIONS];
	struct batch_place tsc, session_keys;
};

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	const int enabled = PR_TSC_ENABLE;
	(void)thread, (void)fault;
	note->personality = batch_call(batch, personality, 0xffffffff); /* asks, and changes nothing */
	note->mce = batch_try(batch, prctl, PR_MCE_KILL_GET, 0, 0, 0, 0);
	note->tsc = batch_data(batch, &enabled, sizeof enabled);
	batch_try(batch, prctl, PR_GET_TSC, note->tsc.address);
	for (size_t i = 0; i < SPECULATIONS; i++)
		note->speculation[i] = batch_try(batch, prctl, PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
#ifdef __x86_64__
	struct batch_place room = batch_room(batch, 16);
	note->cpuid = batch_try(batch, arch_prctl, ARCH_GET_CPUID_, 0);
	note->ldt = batch_try(batch, modify_ldt, 0, room.address, 16);
#endif
	note->keyrings[0] = batch_try(batch, keyctl, KEYCTL_GET_KEYRING_ID, (uint64_t)(int64_t)KEY_SPEC_THREAD_KEYRING, 0);
	note->keyrings[1] = batch_try(batch, keyctl, KEYCTL_GET_KEYRING_ID, (uint64_t)(int64_t)KEY_SPEC_PROCESS_KEYRING, 0);
	note->session_ring = batch_try(batch, keyctl, KEYCTL_GET_KEYRING_ID, (uint64_t)(int64_t)KEY_SPEC_SESSION_KEYRING, 0);
	note->user_ring = batch_try(batch, keyctl, KEYCTL_GET_KEYRING_ID, (uint64_t)(int64_t)KEY_SPEC_USER_KEYRING, 0);
	note->session_keys = batch_room(batch, SESSION_KEYS * sizeof(int32_t));
	note->session_size = batch_try(batch, keyctl, KEYCTL_READ, (uint64_t)(int64_t)KEY_SPEC_SESSION_KEYRING, note->session_keys.address,
				       SESSION_KEYS * sizeof(int32_t));
	*ret_note = note;
	return 0;
}

/* A session keyring (session-keyring(7)) is Cairn's own, or at login a new one that only leads to the user's; or the program keeps keys there. */
static bool keeps_session_keys(const struct batch *batch, const struct note *note)
{
	int64_t ring = batch_result(batch, note->session_ring), size = batch_result(batch, note->session_size);
	if (ring <= 0 || size <= 0 || ring == syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0))
		return false;
	int32_t keys[SESSION_KEYS];
	memcpy(keys, batch_bytes(batch, note->session_keys), sizeof keys);
	for (size_t i = 0; i < (size_t)size / sizeof *keys; i++)
		if (i == SESSION_KEYS || keys[i] != batch_result(batch, note->user_ring))
			return true;
	return false;
}

static int refuse_found(const struct frozen_thread *thread, const struct batch *batch, const struct note *note, struct fault *fault)
{
	for (size_t i = 0; i < 2; i++)
		if (batch_result(batch, note->keyrings[i]) > 0)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: has a %s keyring of its own (keyrings(7)), whose keys the kernel does not give "
					 "away; try again when it has none", thread->tid, i ? "process" : "thread");
	if (keeps_session_keys(batch, note))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: keeps keys in a session keyring of its own (session-keyring(7)), in which Cairn is not; try to run "
				 "cairn in the same session", thread->tid);
#ifdef __x86_64__
	if (batch_result(batch, note->ldt) > 0)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: has segments of its own (modify_ldt(2)), which this version cannot carry; try a "
				 "program that does without, as 64-bit ones can", thread->tid);
#endif
	if (thread->status.untag_mask != UINT64_MAX)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: keeps tags in its addresses (ARCH_ENABLE_TAGGED_ADDR), which this version "
				 "cannot carry; try to run it without", thread->tid);
	return ptrace_has_ports(thread->tid) ?
		fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: may use I/O ports (ioperm(2)), which belong to this machine; try again when it has "
			  "given them back", thread->tid) : 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_,
		   struct fault *fault)
{
	const struct note *note = note_;
	Cairn__ThreadModes *message = HARVEST_MESSAGE(harvest, Cairn__ThreadModes, cairn__thread_modes__init);
	int tsc, rc = refuse_found(thread, batch, note, fault);
	if (rc < 0)
		return rc;
	message->tid = (uint32_t)thread->tid;
	message->personality = (uint32_t)batch_result(batch, note->personality);
	int64_t mce = batch_result(batch, note->mce);
	message->machine_check = mce >= 0 ? (uint32_t)mce : PR_MCE_KILL_DEFAULT;
	memcpy(&tsc, batch_bytes(batch, note->tsc), sizeof tsc);
	message->no_time_stamps = tsc == PR_TSC_SIGSEGV;
#ifdef __x86_64__
	message->no_cpuid = batch_result(batch, note->cpuid) == 0;
#endif
	message->speculation = ARENA_ARRAY(&harvest->arena, uint32_t, SPECULATIONS);
	message->n_speculation = SPECULATIONS;
	for (size_t i = 0; i < SPECULATIONS; i++) {
		int64_t control = batch_result(batch, note->speculation[i]);
		message->speculation[i] = control > 0 ? (uint32_t)control : 0;
	}
	message->io_flusher = (thread->stat.flags & (PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE)) == (PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE);
	message->dispatches = thread->dispatch.mode;
	message->dispatch_selector = thread->dispatch.selector;
	message->dispatch_offset = thread->dispatch.offset;
	message->dispatch_size = thread->dispatch.size;
	harvest_add(harvest, &kind_thread_modes, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ThreadModes *message = (const Cairn__ThreadModes *)base;
	const uint64_t user_end = UINT64_C(1) << 47;
	if (message->machine_check > PR_MCE_KILL_DEFAULT || message->n_speculation > SPECULATIONS || message->dispatch_selector >= user_end ||
	    (message->dispatches && message->dispatch_offset + message->dispatch_size < message->dispatch_offset))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: impossible modes", message->tid);
	if (message->io_flusher && !feature_capability(CAP_SYS_RESOURCE_))
		return fault_set(fault, FAULT_PERMISSION, EPERM, "thread %u: flushes for others' I/O (PR_SET_IO_FLUSHER), which takes CAP_SYS_RESOURCE; try as "
				 "root", message->tid);
	return 0;
}

/* PR_SPEC_PRCTL: a thread has a say in it here. */
static void add_speculation(const Cairn__ThreadModes *message, struct batch *batch)
{
	static const uint32_t ways[] = { PR_SPEC_FORCE_DISABLE, PR_SPEC_DISABLE_NOEXEC, PR_SPEC_DISABLE, PR_SPEC_ENABLE };
	for (size_t i = 0; i < message->n_speculation; i++) {
		int here = prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
		uint32_t wanted = message->speculation[i], way = 0;
		for (size_t w = 0; !way && w < sizeof ways / sizeof *ways; w++)
			way = wanted & ways[w];
		if (!(wanted & PR_SPEC_PRCTL) || !way || (here > 0 && (uint32_t)here == wanted))
			continue;
		if (here < 0 || !(here & PR_SPEC_PRCTL))
			log_warn("thread %u: speculation cannot be controlled here (PR_SET_SPECULATION_CTRL %zu); continuing without it", message->tid, i);
		else
			batch_call(batch, prctl, PR_SET_SPECULATION_CTRL, i, way, 0, 0);
	}
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__ThreadModes *message = (const Cairn__ThreadModes *)base;
	(void)thread, (void)fault;
	if (message->personality != (uint32_t)personality(0xffffffff))
		batch_call(batch, personality, message->personality);
	if ((int)message->machine_check != prctl(PR_MCE_KILL_GET, 0, 0, 0, 0))
		batch_call(batch, prctl, PR_MCE_KILL, PR_MCE_KILL_SET, message->machine_check, 0, 0);
	if (message->no_time_stamps)
		batch_call(batch, prctl, PR_SET_TSC, PR_TSC_SIGSEGV);
#ifdef __x86_64__
	if (message->no_cpuid)
		batch_call(batch, arch_prctl, ARCH_SET_CPUID_, 0);
#endif
	add_speculation(message, batch);
	if (message->io_flusher)
		batch_call(batch, prctl, PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	return 0;
}

const struct kind kind_thread_modes = {
	.name = "modes of a thread",
	.tag = 27,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__thread_modes__descriptor,
	.owner_field = "tid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
