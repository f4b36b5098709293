/* SPDX-License-Identifier: Apache-2.0 */
#include "job/save.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/operations.h"
#include "base/memory.h"
#include "job/control.h"

enum {
	MOST_ANCESTORS = 8, /* of a periodic save: the next one is whole again */
	MOST_GENERATIONS = 10000,
};

static char *generation_of(const char *image, unsigned number)
{
	return number ? memory_format("%s.%u", image, number) : memory_string(image);
}

static bool has_generation(const char *image, unsigned number)
{
	_free_ char *path = generation_of(image, number);
	return access(path, F_OK) == 0;
}

/* The first number that no generation has. 0: a file that is no image is in the way, and is left alone. */
static unsigned free_number(const char *image)
{
	unsigned number = 1;
	while (number < MOST_GENERATIONS && has_generation(image, number)) {
		_free_ char *path = generation_of(image, number);
		if (!operation_is_image(path))
			return 0;
		number++;
	}
	return number;
}

/* The oldest one to keep needs all of the next ones that it builds on. What cannot be read is no reason to remove anything. */
static void remove_old(const char *image, const uint8_t *key, unsigned keep)
{
	_free_ char *oldest = generation_of(image, keep - 1);
	uint8_t id[16];
	unsigned needed = 0, end = free_number(image);
	if (end <= keep || operation_lineage(oldest, key, id, &needed) < 0)
		return;
	for (unsigned n = keep + needed; n < end; n++) {
		_free_ char *path = generation_of(image, n);
		unlink(path);
	}
}

/* Moves all generations on, up to the first free number only: so none is lost if this was interrupted before. The youngest then has two names or, on a
 * file system without links, none but the new one. */
static bool move_on(const char *image)
{
	_free_ char *first = generation_of(image, 1);
	for (unsigned n = free_number(image); n > 1; n--) {
		_free_ char *older = generation_of(image, n), *younger = generation_of(image, n - 1);
		if (rename(younger, older) < 0)
			return false;
	}
	return access(image, F_OK) < 0 || link(image, first) == 0 || rename(image, first) == 0;
}

/* At every moment there is a complete `image`, or image.next, which is complete before anything is moved. */
bool save_rotate(const char *image, const uint8_t *key, unsigned keep)
{
	_free_ char *next = memory_format("%s.next", image);
	unsigned needed = 0;
	uint8_t id[16];
	if (access(next, F_OK) < 0)
		return true;
	bool whole = operation_lineage(next, key, id, &needed) == 0 && !needed;
	bool alone = whole && (keep < 2 || !free_number(image));
	if ((!alone && !move_on(image)) || rename(next, image) < 0)
		return false;
	remove_old(image, key, keep ? keep : 1);
	return true;
}

static json_t *succeeded(const char *image, const struct cairn_checkpoint_result *result)
{
	return json_pack("{s:i, s:s, s:I, s:I, s:i, s:i, s:f, s:f, s:{s:I, s:I, s:I}}", "status", CAIRN_DONE, "image", image, "bytes",
			 (json_int_t)result->bytes, "pages", (json_int_t)result->pages, "processes", (int)result->processes,
			 "threads", (int)result->threads, "frozen_ms", (double)result->frozen_ns / 1e6, "total_ms",
			 (double)result->total_ns / 1e6, "copied", "tracked", (json_int_t)result->tracked_bytes, "forked",
			 (json_int_t)result->forked_bytes, "frozen", (json_int_t)result->frozen_bytes);
}

static int number_or(const json_t *request, const char *key, int otherwise)
{
	const json_t *number = json_object_get(request, key);
	return number ? (int)json_integer_value(number) : otherwise;
}

/* @parent: NULL unless the request names one. */
static json_t *save_to(const struct save_job *job, const json_t *request, const char *output, const char *parent, bool track)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(request, "pid"));
	json_t *devices = json_object_get(request, "reopen_devices");
	const json_t *says = json_object_get(request, "lose_in_flight");
	_free_ const char **paths = memory_new((json_array_size(devices) + 1) * sizeof *paths);
	for (size_t i = 0; i < json_array_size(devices); i++) {
		const char *path = json_string_value(json_array_get(devices, i));
		paths[i] = path ? path : "";
	}
	const struct cairn_checkpoint_options options = {
		.output = output,
		.after = (enum cairn_after)json_integer_value(json_object_get(request, "after")),
		.threads = (unsigned)json_integer_value(json_object_get(request, "threads")),
		.timeout_s = json_number_value(json_object_get(request, "timeout")),
		.outside = (enum cairn_outside)number_or(request, "outside", job->outside),
		.tcp = (enum cairn_tcp)number_or(request, "tcp", job->tcp),
		.save_files = (enum cairn_save_files)number_or(request, "save_files", job->save_files),
		.lose_in_flight = says ? json_is_true(says) : job->lose_in_flight,
		.reopen_devices = paths,
		.reopen_device_count = json_array_size(devices),
		.parent = parent ? parent : json_string_value(json_object_get(request, "parent")),
		.track = (track || json_is_true(json_object_get(request, "track"))) && !json_is_true(json_object_get(request, "no_live")) &&
			 json_integer_value(json_object_get(request, "after")) == CAIRN_RUN_ON,
		.no_live = json_is_true(json_object_get(request, "no_live")),
		.max_extra_memory = (uint64_t)json_integer_value(json_object_get(request, "max_extra_memory")),
		/* The job's own periodic saves ask for nothing: the default. */
		.codec = json_object_get(request, "codec") ? (enum cairn_codec)json_integer_value(json_object_get(request, "codec")) :
							     CAIRN_CODEC_LZ4,
		.codec_level = (int)json_integer_value(json_object_get(request, "codec_level")),
		.key = job->key,
		.signal_fd = -1,
	};
	const struct operation_job within = {
		.adopter = pid && pid != job->root ? 0 : getppid(), .name = job->name, .generation = job->generation,
		.own_network = job->own_network, .pager = job->pager,
	};
	struct cairn_checkpoint_result result;
	struct cairn_error error = { 0 };
	enum cairn_status status = operation_checkpoint(pid ? pid : job->root, &options, &within, job->tracking, &result, &error);
	json_t *answer = status == CAIRN_DONE ? succeeded(output, &result) : control_failed(status, &error);
	cairn_error_free(&error);
	return answer;
}

/* The same tree as a checkpoint would save, only looked at. */
static json_t *check_answer(const struct save_job *job, const json_t *request)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(request, "pid"));
	const struct operation_job within = { .adopter = pid && pid != job->root ? 0 : getppid(), .pager = job->pager };
	struct cairn_error error = { 0 };
	enum cairn_status status = operation_check(pid ? pid : job->root, &within, job->tracking, &error);
	json_t *answer = status == CAIRN_DONE ? json_pack("{s:i}", "status", CAIRN_DONE) : control_failed(status, &error);
	cairn_error_free(&error);
	return answer;
}

/* The youngest generation, if the job's writes have been tracked since it was made and the chain is not too long yet. What ends the job is whole: it may be
 * taken elsewhere alone. */
static const char *own_parent(const struct save_job *job, const json_t *request)
{
	uint8_t id[16];
	unsigned ancestors;
	bool ends = json_integer_value(json_object_get(request, "after")) == CAIRN_KILL;
	if (!job->periodic || ends || !job->tracking->spaces.count || !free_number(job->image) || operation_lineage(job->image, job->key, id, &ancestors) < 0)
		return NULL;
	bool since = !memcmp(id, job->tracking->spaces.at[0].image, sizeof id);
	return since && ancestors < MOST_ANCESTORS ? job->image : NULL;
}

json_t *save_answer(const struct save_job *job, const json_t *request, int fd)
{
	if (!strcmp(control_text(request, "op", ""), "check"))
		return check_answer(job, request);
	const char *output = control_text(request, "output", job->image);
	if (!output)
		return control_refused(CAIRN_USAGE, "the job has no image of its own; try -o FILE, or cairn run --image FILE");
	bool own = job->image && !strcmp(output, job->image);
	if (!strcmp(output, "-")) {
		if (fd < 0 || dup2(fd, 1) < 0)
			return control_refused(CAIRN_USAGE, "no descriptor for the image came along; try -o FILE");
		return save_to(job, request, output, NULL, false);
	}
	if (own && json_object_get(request, "parent"))
		return control_refused(CAIRN_USAGE, "the job's own image is replaced by each save, and an incremental one needs its parents; try -o "
				       "FILE");
	if (!own || (job->keep < 2 && !job->periodic))
		return save_to(job, request, output, NULL, false);
	_free_ char *next = memory_format("%s.next", output);
	json_t *answer = save_to(job, request, next, own_parent(job, request), job->periodic);
	if (json_integer_value(json_object_get(answer, "status")) != CAIRN_DONE)
		return answer;
	/* It is complete, and the start of the next run takes it up under this name as well. */
	bool placed = save_rotate(output, job->key, job->keep);
	json_object_set_new(answer, "image", json_string(placed ? output : next));
	return answer;
}
