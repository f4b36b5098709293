/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Queues of pending signals, of a thread or of a process: the same siginfo_t both ways. */
#include <signal.h>

#include "kinds/kind.h"

/* All queued signals, oldest first, into the arena. */
int siginfo_capture(struct harvest *harvest, pid_t tid, bool shared, ProtobufCBinaryData **ret_pending,
		    size_t *ret_count, struct fault *fault);
int siginfo_check(const ProtobufCBinaryData *pending, size_t count, struct fault *fault);
int siginfo_signal(const ProtobufCBinaryData *pending);
/* Can it be queued only when no batch follows? */
bool siginfo_is_late(const ProtobufCBinaryData *pending);
/* As it is to be queued here: its sender, if it is one of the tree, under its number. */
siginfo_t siginfo_here(const struct workshop *workshop, const ProtobufCBinaryData *pending);
