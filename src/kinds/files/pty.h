/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Pseudoterminals of the tree's own: those whose master is in it. */
#include "files.pb-c.h"
#include "kinds/kind.h"

/* The pty whose slave has the device number @device, *ret_id 0: none of the tree's. Adds its record. */
int pty_find(struct harvest *harvest, uint64_t device, uint32_t *ret_id, struct fault *fault);

/* pty_data.c: what is on its way through the pty whose ends are @master and @slave, both of Cairn's own. Taken, and put back at once. */
int pty_data_capture(struct harvest *harvest, int master, int slave, Cairn__Pty *message, struct fault *fault);
int pty_data_fill(int master, int slave, const Cairn__Pty *message, struct fault *fault);
