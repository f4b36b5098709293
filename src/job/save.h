/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A checkpoint of the whole job, made from inside its namespace by a child of the init: the init goes on reaping, and nothing
 * that goes wrong in a checkpoint is its own end. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/tracking.h"
#include "cairn.h"

struct save_job {
	pid_t root;
	const char *name;
	uint32_t generation; /* how often the tree was restored */
	const char *image;   /* where checkpoints go by default, NULL: nowhere */
	unsigned keep;       /* generations of it */
	bool periodic;       /* it is saved from time to time: incrementally, by write tracking */
	bool own_network;
	enum cairn_outside outside; /* for requests that do not say */
	enum cairn_tcp tcp;
	enum cairn_save_files save_files;
	bool lose_in_flight;
	pid_t pager;         /* loads memory behind it, 0: nobody */
	const uint8_t *key;  /* for its checkpoints, NULL: they are not encrypted */
	struct tracking *tracking; /* what the last save left, and then what this one leaves */
};

/* A request "check" only looks (pid as below). Does what a request "checkpoint" asks for: output (absolute path, or "-": @fd), after (enum cairn_after), pid (inside; 0: the whole
 * job), threads, timeout, outside, tcp, save_files, lose_in_flight, reopen_devices (paths), parent (path), track, no_live, max_extra_memory, codec, codec_level. The answer has
 * "image", "bytes", "pages", "processes", "threads", "frozen_ms", "total_ms", "copied" (bytes: "tracked", "forked", "frozen"). */
json_t *save_answer(const struct save_job *job, const json_t *request, int fd);

/* Makes @image (with @key) the youngest of its generations, from @image.next; nothing when that is not there. @keep generations stay, and those that they
 * need. A file of such a name that is no image is never touched: then there is one generation. false: it could not be moved, and stays under that name. */
bool save_rotate(const char *image, const uint8_t *key, unsigned keep);
