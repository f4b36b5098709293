/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Addresses of an image's sockets as this host has them. */
#include "rebuild/plan.h"

/* @words: "OLD=NEW". Changes the records of the plan. */
int plan_map_addresses(struct plan *plan, const char *const *words, size_t count, struct fault *fault);
