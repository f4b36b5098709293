/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/tasks/siginfo.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

int siginfo_capture(struct harvest *harvest, pid_t tid, bool shared, ProtobufCBinaryData **ret_pending,
		    size_t *ret_count, struct fault *fault)
{
	enum { AT_ONCE = 32 };
	VEC(siginfo_t) all = { 0 };
	for (;;) {
		siginfo_t some[AT_ONCE];
		int count = ptrace_peek_signals(tid, shared, all.count, some, AT_ONCE, fault);
		if (count < 0) {
			vec_finish(&all);
			return count;
		}
		for (int i = 0; i < count; i++)
			*vec_add(&all) = some[i];
		if (count < AT_ONCE)
			break;
	}
	ProtobufCBinaryData *pending = ARENA_ARRAY(&harvest->arena, ProtobufCBinaryData, all.count);
	for (size_t i = 0; i < all.count; i++) {
		pending[i].data = arena_copy(&harvest->arena, &all.at[i], sizeof all.at[i]);
		pending[i].len = sizeof all.at[i];
	}
	*ret_pending = pending;
	*ret_count = all.count;
	vec_finish(&all);
	return 0;
}

int siginfo_signal(const ProtobufCBinaryData *pending)
{
	siginfo_t info;
	memcpy(&info, pending->data, sizeof info);
	return info.si_signo;
}

/* A newborn has all blocked but SIGTRAP, in which its batches end. And where one signal that the processor caused can be delivered the kernel takes the
 * first of those, be it blocked (kernel/signal.c dequeue_synchronous_signal). */
bool siginfo_is_late(const ProtobufCBinaryData *pending)
{
	siginfo_t info;
	memcpy(&info, pending->data, sizeof info);
	bool synchronous = info.si_signo == SIGSEGV || info.si_signo == SIGBUS || info.si_signo == SIGILL || info.si_signo == SIGFPE ||
			   info.si_signo == SIGSYS;
	return info.si_signo == SIGTRAP || (synchronous && info.si_code > SI_USER);
}

static bool has_sender(const siginfo_t *info)
{
	return info->si_code == SI_USER || info->si_code == SI_QUEUE || info->si_code == SI_TKILL || info->si_code == SI_MESGQ ||
	       (info->si_signo == SIGCHLD && info->si_code > 0);
}

siginfo_t siginfo_here(const struct workshop *workshop, const ProtobufCBinaryData *pending)
{
	siginfo_t info;
	memcpy(&info, pending->data, sizeof info);
	if (has_sender(&info) && info.si_pid > 0)
		info.si_pid = workshop_task(workshop, (uint32_t)info.si_pid);
	return info;
}

int siginfo_check(const ProtobufCBinaryData *pending, size_t count, struct fault *fault)
{
	for (size_t i = 0; i < count; i++)
		if (pending[i].len != sizeof(siginfo_t) || siginfo_signal(&pending[i]) < 1 ||
		    siginfo_signal(&pending[i]) > 64)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "a pending signal has an impossible number or size");
	return 0;
}
