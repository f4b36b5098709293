/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Memory that a restore has mapped from an image: the program's own, as if it were anonymous. */
#include "kernel/maps.h"

/* Private mappings of files that are known as images by their mark (base/mapped.h) become anonymous ones with image_inode; the marks go. */
void mapped_adopt(pid_t pid, struct map_list *maps);
