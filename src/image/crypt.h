/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Authenticated encryption of one image: AES-256-GCM, by keys that are this image's alone. FORMAT.md says what is encrypted, and what that proves.
 *
 * OpenSSL's libcrypto does it, loaded when an image is encrypted and not before. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

enum {
	CRYPT_SALT = 32, /* bytes, random, of the image */
	CRYPT_CHECK = 32, /* tells the right key */
	CRYPT_MARK = 32, /* authenticates what is not encrypted */
	CRYPT_TAG = 16,  /* authenticates what is */
};

struct crypt;

/* Derives the keys of the image with that @salt and @id. */
int crypt_new(const struct image_key *key, const uint8_t salt[CRYPT_SALT], const uint8_t id[16], struct crypt **ret_crypt, struct fault *fault);
void crypt_free(struct crypt *crypt);

/* The same for the same key and image, and tells nothing of the key. */
const uint8_t *crypt_check(const struct crypt *crypt);
bool crypt_equal(const struct crypt *crypt, const uint8_t *a, const uint8_t *b, size_t size); /* in a time that does not tell where they differ */
int crypt_mark(const struct crypt *crypt, const void *data, size_t size, uint8_t ret_mark[CRYPT_MARK], struct fault *fault);

/* @to may be @from. */
struct crypt_part {
	const void *from;
	void *to;
	size_t size;
};

/* Thread-safe. No @place may be given to crypt_seal twice: it is the nonce. @open: readable and authentic. */
int crypt_seal(const struct crypt *crypt, uint64_t place, const void *open, size_t open_size, const struct crypt_part *parts, size_t count,
	       uint8_t ret_tag[CRYPT_TAG], struct fault *fault);
/* false: not what was sealed there with this key. Then what is in the parts means nothing. */
bool crypt_open(const struct crypt *crypt, uint64_t place, const void *open, size_t open_size, const struct crypt_part *parts, size_t count,
		const uint8_t tag[CRYPT_TAG]);
