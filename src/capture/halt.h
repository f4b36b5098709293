/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The threads of one process: brought to their stops, looked at there, and let go as if nothing had been. For freeze.c, which does it with a tree. */
#include "base/clock.h"
#include "kinds/kind.h"

/* Asks all threads of @process to stop that were not known yet, and sets @ret_new if there were any. A process that has ended: -ESRCH. */
int halt_seize(struct harvest *harvest, struct frozen_process *process, bool *ret_new, struct fault *fault);
/* Waits for their stops, and for those of threads that have been made meanwhile; then reads what only a stop can tell. */
int halt_process(struct harvest *harvest, struct frozen_process *process, const struct deadline *deadline, struct fault *fault);
/* Has this thread, which was asked to stop, ended instead? */
bool halt_has_ended(struct frozen_thread *thread, const struct deadline *deadline);
/* On it goes; what the stop did to its call is undone. One that has not come to its stop is waited for until @until_ns, and a little. Never fails. */
void halt_let_go(struct harvest *harvest, struct frozen_thread *thread, uint64_t until_ns);
