/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Memory that a restore maps from the image itself (--lazy=mapped). It has to be known again by a save, for whom it is the program's own memory and no file's:
 * also when the image has no name any more, and by a user who may open neither. So a restore maps the first page of the image besides, alone
 * and readable: whatever else is mapped privately from the file that begins so is such memory. */
#define MAPPED_MARK "\x89" "CAIRN\r\n" /* with which an image begins, for ever */
enum { MAPPED_MARK_SIZE = 4096 };
