/* SPDX-License-Identifier: Apache-2.0 */
#include "job/save.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/operations.h"
#include "base/memory.h"
#include "job/control.h"

/* At every moment there is a complete `image`: the new one is complete under the name image.next before anything is moved. */
void save_rotate(const char *image, unsigned keep)
{
	_free_ char *next = memory_format("%s.next", image);
	if (access(next, F_OK) < 0)
		return;
	for (unsigned n = keep > 1 ? keep - 1 : 0; n > 1; n--) {
		_free_ char *older = memory_format("%s.%u", image, n);
		_free_ char *younger = memory_format("%s.%u", image, n - 1);
		rename(younger, older);
	}
	if (keep > 1) {
		_free_ char *first = memory_format("%s.1", image);
		unlink(first);
		if (link(image, first) < 0) {
			/* There was none yet, or this file system has no links: fewer generations, but always one. */
		}
	}
	rename(next, image);
}

static json_t *succeeded(const char *image, const struct cairn_checkpoint_result *result)
{
	return json_pack("{s:i, s:s, s:I, s:I, s:i, s:i, s:f, s:f}", "status", CAIRN_DONE, "image", image, "bytes",
			 (json_int_t)result->bytes, "pages", (json_int_t)result->pages, "processes", (int)result->processes,
			 "threads", (int)result->threads, "frozen_ms", (double)result->frozen_ns / 1e6, "total_ms",
			 (double)result->total_ns / 1e6);
}

static json_t *save_to(const struct save_job *job, const json_t *request, const char *output)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(request, "pid"));
	json_t *devices = json_object_get(request, "reopen_devices");
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
		.outside = (enum cairn_outside)json_integer_value(json_object_get(request, "outside")),
		.tcp = (enum cairn_tcp)json_integer_value(json_object_get(request, "tcp")),
		.lose_in_flight = json_is_true(json_object_get(request, "lose_in_flight")),
		.reopen_devices = paths,
		.reopen_device_count = json_array_size(devices),
		.parent = json_string_value(json_object_get(request, "parent")),
		.no_live = json_is_true(json_object_get(request, "no_live")),
		.max_extra_memory = (uint64_t)json_integer_value(json_object_get(request, "max_extra_memory")),
		/* The job's own periodic saves ask for nothing: the default. */
		.codec = json_object_get(request, "codec") ? (enum cairn_codec)json_integer_value(json_object_get(request, "codec")) :
							     CAIRN_CODEC_LZ4,
		.codec_level = (int)json_integer_value(json_object_get(request, "codec_level")),
		.signal_fd = -1,
	};
	const struct operation_job within = {
		.adopter = pid && pid != job->root ? 0 : getppid(), .name = job->name, .generation = job->generation,
		.own_network = job->own_network,
	};
	struct cairn_checkpoint_result result;
	struct cairn_error error = { 0 };
	enum cairn_status status = operation_checkpoint(pid ? pid : job->root, &options, &within, &result, &error);
	json_t *answer = status == CAIRN_DONE ? succeeded(output, &result) : control_failed(status, &error);
	cairn_error_free(&error);
	return answer;
}

/* The same tree as a checkpoint would save, only looked at. */
static json_t *check_answer(const struct save_job *job, const json_t *request)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(request, "pid"));
	const struct operation_job within = { .adopter = pid && pid != job->root ? 0 : getppid() };
	struct cairn_error error = { 0 };
	enum cairn_status status = operation_check(pid ? pid : job->root, &within, &error);
	json_t *answer = status == CAIRN_DONE ? json_pack("{s:i}", "status", CAIRN_DONE) : control_failed(status, &error);
	cairn_error_free(&error);
	return answer;
}

json_t *save_answer(const struct save_job *job, const json_t *request, int fd)
{
	if (!strcmp(control_text(request, "op", ""), "check"))
		return check_answer(job, request);
	const char *output = control_text(request, "output", job->image);
	if (!output)
		return control_refused(CAIRN_USAGE, "the job has no image of its own; try -o FILE, or cairn run --image FILE");
	if (!strcmp(output, "-")) {
		if (fd < 0 || dup2(fd, 1) < 0)
			return control_refused(CAIRN_USAGE, "no descriptor for the image came along; try -o FILE");
		return save_to(job, request, output);
	}
	if (job->image && !strcmp(output, job->image) && json_object_get(request, "parent"))
		return control_refused(CAIRN_USAGE, "the job's own image is replaced by each save, and an incremental one needs its parents; try -o "
				       "FILE");
	if (!job->image || strcmp(output, job->image) != 0 || job->keep < 2)
		return save_to(job, request, output);
	_free_ char *next = memory_format("%s.next", output);
	json_t *answer = save_to(job, request, next);
	if (json_integer_value(json_object_get(answer, "status")) == CAIRN_DONE) {
		save_rotate(output, job->keep);
		json_object_set_new(answer, "image", json_string(output));
	}
	return answer;
}
