/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The image that an incremental one builds on. */
#include "base/fault.h"
#include "base/pages.h"
#include "capture/track.h"
#include "image/image.h"

/* All of a chain have one key, or none. */
int parent_open(const char *path, const struct image_key *key, struct image_reader **ret_parent, struct fault *fault);
/* -EEXIST: a save to @output would replace an image that the new one needs. */
int parent_check(const struct image_reader *parent, const char *output, struct fault *fault);
/* Which address space was whose: entered in @snapshot. */
int parent_note(const struct image_reader *parent, struct snapshot *snapshot, struct fault *fault);
/* Gives the stores of what has been tracked since the parent all that it has of them. */
void parent_seed(const struct image_reader *parent, struct track *track, struct snapshot *snapshot);
/* page_sink: known and forget; the context is the parent. */
bool parent_has(const struct image_reader *parent, void **cursor, uint32_t space, uint64_t address, const void *page,
		struct page_place *ret_place);
void parent_forget(void *cursor);
