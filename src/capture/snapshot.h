/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The pages of a frozen tree, read by several threads and written to the image: private pages that exist and are not
 * zero, and contents of shared objects. Unmodified file pages, the zero page and pages full of zeros are not stored. Records of
 * what only the pages showed are added to @harvest. */
#include "base/clock.h"
#include "base/pages.h"
#include "kinds/kind.h"

int snapshot_pages(struct harvest *harvest, const struct page_sink *sink, unsigned threads,
		   const struct deadline *deadline, struct fault *fault);
