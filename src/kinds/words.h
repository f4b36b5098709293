/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "kinds/kind.h"

/* What cairn-kinds(7) says of each kind: what of the object is carried, and what is refused and why ("": nothing). One row for each of kinds[]; ends
 * with NULL. */
struct kind_words {
	const struct kind *kind;
	const char *carried, *refused;
};
extern const struct kind_words kind_words[];
