/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Keys of encrypted images: CAIRN_KEY_SIZE bytes of secret memory (memory_new_secret). */
#include <stdint.h>

#include "base/fault.h"

/* From a file: the bytes, or twice as many hexadecimal digits. Refused: what is readable by others, and what can hardly be random. */
int key_read(const char *path, uint8_t **ret_key, struct fault *fault);
void key_free(uint8_t *key); /* NULL too */

/* From one of Cairn's processes to another: the read end of a pipe that holds the key, so that it stands in no file, argument or message. -errno. */
int key_give(const uint8_t *key);
/* NULL: there is none in it. Does not close @fd. */
uint8_t *key_take(int fd);
