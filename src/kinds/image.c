/* SPDX-License-Identifier: Apache-2.0 */
/* What the image says of itself as a whole: the driver makes the record (api/checkpoint.c). */
#include "image.pb-c.h"
#include "kinds/kind.h"
#include "kinds/table.h"

const struct kind kind_image = {
	.name = "image",
	.tag = 1,
	.scope = SCOPE_IMAGE,
	.descriptor = &cairn__image_info__descriptor,
};
