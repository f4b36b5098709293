/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Socket options: which there are, how long their values are, and when they are put back. */
#include "kinds/sockets/socket.h"

enum option_form {
	OPTION_INT,   /* int */
	OPTION_TIME,  /* struct timeval */
	OPTION_BYTES, /* up to OPTION_MOST bytes */
	OPTION_BUFFER, /* SO_SNDBUF, SO_RCVBUF: the kernel doubles what is set */
	OPTION_FILTER, /* SO_ATTACH_FILTER: a classic filter's instructions */
	OPTION_FIELDS, /* a structure: as BYTES, and put back although unchanged in length */
};
enum option_when {
	OPTION_FIRST, /* before bind(2) */
	OPTION_MADE,  /* bound and connected */
	OPTION_LAST,  /* when the queues are filled: they would hinder that */
};
enum { OPTION_MOST = 4096 };
enum { DOMAIN_ANY = 0 };

struct socket_option {
	uint16_t level, name, set; /* set: another name to put it back under, 0: the same */
	uint16_t domain, type;     /* 0: any */
	uint8_t form, when;
	const char *text;
};
extern const struct socket_option socket_options[];
extern const size_t socket_option_count;
const struct socket_option *socket_option_find(uint32_t level, uint32_t name); /* NULL: unknown */

/* The options of Cairn's own copy of @file's socket that differ from those of a fresh one. With the first, those of all sockets are read, by
 * several threads: about 90 calls for each. */
void options_read_ahead(struct harvest *harvest);
void options_capture(struct harvest *harvest, const struct frozen_file *file, int own, Cairn__Socket *message);
/* Those that were read ahead, in a message that has nothing else; false: they were not. */
bool options_known(struct harvest *harvest, const struct frozen_file *file, Cairn__Socket *ret_message);
/* Takes one out again. */
void options_drop(Cairn__Socket *message, int level, int name);
int options_check(const Cairn__Socket *message, struct fault *fault);
int options_set(int fd, const Cairn__Socket *message, enum option_when when, struct fault *fault);
/* An option's int, @otherwise if the record has none. */
int options_int(const Cairn__Socket *message, int level, int name, int otherwise);
