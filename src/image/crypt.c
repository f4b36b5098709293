/* SPDX-License-Identifier: Apache-2.0 */
#include "image/crypt.h"

#include <dlfcn.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/memory.h"

/* What is used of libcrypto, of which only the headers are there at build time. */
#define FUNCTIONS(X) \
	X(CRYPTO_memcmp) \
	X(EVP_CIPHER_fetch) \
	X(EVP_CIPHER_free) \
	X(EVP_CIPHER_CTX_new) \
	X(EVP_CIPHER_CTX_free) \
	X(EVP_CIPHER_CTX_ctrl) \
	X(EVP_CipherInit_ex2) \
	X(EVP_CipherUpdate) \
	X(EVP_CipherFinal_ex) \
	X(EVP_Q_mac)

#define LIBRARY "libcrypto.so.3"

struct library {
	void *handle;
#define MEMBER(name) __typeof__(&(name)) name;
	FUNCTIONS(MEMBER)
#undef MEMBER
};

enum { KEY = 32 };

struct crypt {
	struct library library;
	EVP_CIPHER *cipher;
	uint8_t data_key[KEY], mark_key[KEY], check[CRYPT_CHECK];
};

static int library_load(struct library *library, struct fault *fault)
{
	library->handle = dlopen(LIBRARY, RTLD_LAZY | RTLD_LOCAL);
	if (!library->handle)
		return fault_set(fault, FAULT_FAILED, ENOENT, "encryption needs OpenSSL's " LIBRARY ", which is not here; try to install it (package libssl3)");
	bool whole = true;
#define LOAD(name) whole &= (*(void **)&library->name = dlsym(library->handle, #name)) != NULL;
	FUNCTIONS(LOAD)
#undef LOAD
	return whole ? 0 : fault_set(fault, FAULT_FAILED, ENOSYS, "encryption: " LIBRARY " lacks a function; try OpenSSL 3.0 or newer");
}

static int failed(struct fault *fault)
{
	return fault_set(fault, FAULT_FAILED, EIO, "encryption: " LIBRARY " refused AES-256-GCM or HMAC-SHA-256; try its default provider "
			 "(openssl list -providers)");
}

static bool mac(const struct library *library, const uint8_t key[KEY], const void *data, size_t size, uint8_t ret_mac[KEY])
{
	size_t length = 0;
	return library->EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, KEY, data, size, ret_mac, KEY, &length) && length == KEY;
}

/* HKDF-Expand (RFC 5869) for one block of output: the key file holds 32 random bytes, which need not be extracted from anything. */
static bool derive(const struct library *library, const struct image_key *key, const char *purpose, const uint8_t *salt, const uint8_t *id,
		   uint8_t ret_key[KEY])
{
	struct {
		char purpose[24]; /* zeros behind it */
		uint8_t salt[CRYPT_SALT], id[16], counter;
	} info = { .counter = 1 };
	memcpy(info.purpose, purpose, strlen(purpose));
	memcpy(info.salt, salt, sizeof info.salt);
	memcpy(info.id, id, sizeof info.id);
	return mac(library, key->bytes, &info, sizeof info, ret_key);
}

static int crypt_fill(struct crypt *crypt, const struct image_key *key, const uint8_t *salt, const uint8_t *id, struct fault *fault)
{
	int rc = library_load(&crypt->library, fault);
	if (rc)
		return rc;
	crypt->cipher = crypt->library.EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	bool derived = crypt->cipher && derive(&crypt->library, key, "cairn image 1 data", salt, id, crypt->data_key) &&
		       derive(&crypt->library, key, "cairn image 1 header", salt, id, crypt->mark_key) &&
		       derive(&crypt->library, key, "cairn image 1 check", salt, id, crypt->check);
	return derived ? 0 : failed(fault);
}

int crypt_new(const struct image_key *key, const uint8_t salt[CRYPT_SALT], const uint8_t id[16], struct crypt **ret_crypt, struct fault *fault)
{
	struct crypt *crypt = memory_new_secret(sizeof *crypt);
	int rc = crypt_fill(crypt, key, salt, id, fault);
	if (rc)
		crypt_free(crypt);
	else
		*ret_crypt = crypt;
	return rc;
}

void crypt_free(struct crypt *crypt)
{
	if (!crypt)
		return;
	if (crypt->cipher)
		crypt->library.EVP_CIPHER_free(crypt->cipher);
	if (crypt->library.handle)
		dlclose(crypt->library.handle);
	memory_free_secret(crypt, sizeof *crypt);
}

const uint8_t *crypt_check(const struct crypt *crypt)
{
	return crypt->check;
}

bool crypt_equal(const struct crypt *crypt, const uint8_t *a, const uint8_t *b, size_t size)
{
	return crypt->library.CRYPTO_memcmp(a, b, size) == 0;
}

int crypt_mark(const struct crypt *crypt, const void *data, size_t size, uint8_t ret_mark[CRYPT_MARK], struct fault *fault)
{
	return mac(&crypt->library, crypt->mark_key, data, size, ret_mark) ? 0 : failed(fault);
}

/* One pass over @parts, in either direction. */
static bool pass(const struct library *library, EVP_CIPHER_CTX *context, const void *open, size_t open_size, const struct crypt_part *parts,
		 size_t count)
{
	enum { STEP = 1 << 30 }; /* the library counts by int */
	int done;
	bool good = library->EVP_CipherUpdate(context, NULL, &done, open, (int)open_size);
	for (size_t i = 0; good && i < count; i++)
		for (size_t at = 0; good && at < parts[i].size; at += (size_t)done) {
			size_t left = parts[i].size - at;
			good = library->EVP_CipherUpdate(context, (unsigned char *)parts[i].to + at, &done,
							 (const unsigned char *)parts[i].from + at, left < STEP ? (int)left : STEP) &&
			       done > 0;
		}
	return good;
}

/* @seal: *tag is written, else compared. */
static bool run(const struct crypt *crypt, bool seal, uint64_t place, const void *open, size_t open_size, const struct crypt_part *parts,
		size_t count, uint8_t *tag)
{
	const struct library *library = &crypt->library;
	uint8_t nonce[12] = { 0 }, nothing[16];
	int done;
	EVP_CIPHER_CTX *context = library->EVP_CIPHER_CTX_new();
	memcpy(nonce, &place, sizeof place);
	bool good = context && library->EVP_CipherInit_ex2(context, crypt->cipher, crypt->data_key, nonce, seal, NULL);
	good = good && (seal || library->EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, CRYPT_TAG, tag) > 0);
	good = good && pass(library, context, open, open_size, parts, count) && library->EVP_CipherFinal_ex(context, nothing, &done) > 0;
	good = good && (!seal || library->EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, CRYPT_TAG, tag) > 0);
	library->EVP_CIPHER_CTX_free(context); /* and wipes it */
	return good;
}

int crypt_seal(const struct crypt *crypt, uint64_t place, const void *open, size_t open_size, const struct crypt_part *parts, size_t count,
	       uint8_t ret_tag[CRYPT_TAG], struct fault *fault)
{
	return run(crypt, true, place, open, open_size, parts, count, ret_tag) ? 0 : failed(fault);
}

bool crypt_open(const struct crypt *crypt, uint64_t place, const void *open, size_t open_size, const struct crypt_part *parts, size_t count,
		const uint8_t tag[CRYPT_TAG])
{
	uint8_t copy[CRYPT_TAG];
	memcpy(copy, tag, sizeof copy);
	return run(crypt, false, place, open, open_size, parts, count, copy);
}
