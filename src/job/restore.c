/* SPDX-License-Identifier: Apache-2.0 */
#include "job/restore.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/operations.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/memory.h"
#include "job/control.h"
#include "kernel/features.h"

/* Who may choose PIDs in the namespace that he lives in (kernel/pid.c alloc_pid, checkpoint_restore_ns_capable). */
static bool may_choose_pids(void)
{
	return feature_capability(CAP_CHECKPOINT_RESTORE) || feature_capability(CAP_SYS_ADMIN);
}

json_t *restore_spec(const struct cairn_restore_options *options, const struct restore_way *way, const struct operation_peek *peek)
{
	char *absolute = realpath(options->image, NULL);
	json_t *spec = way->spec ? json_deep_copy(way->spec) : json_object();
	json_t *own = json_pack("{s:s, s:b, s:b, s:i, s:f, s:b, s:b, s:b, s:b, s:b}", "restore", absolute ? absolute : options->image,
				"detached", way->detached, "user", !feature_capability(CAP_SYS_ADMIN), "threads",
				(int)options->threads, "timeout", options->timeout_s, "leave_stopped", options->leave_stopped,
				"roll_back_files", options->roll_back_files, "ignore_changed_files", options->ignore_changed_files, "trust_image", options->trust_image, "ours",
				way->terminal_ours);
	json_t *maps = json_array();
	for (size_t i = 0; i < options->path_map_count; i++)
		json_array_append_new(maps, json_pack("[s, s]", options->path_maps[i].old_path, options->path_maps[i].new_path));
	json_object_set_new(own, "path_maps", maps);
	json_t *addresses = json_array();
	for (size_t i = 0; i < options->address_map_count; i++)
		json_array_append_new(addresses, json_string(options->address_maps[i]));
	json_object_set_new(own, "address_maps", addresses);
	json_t *redirects = json_array();
	for (size_t i = 0; i < options->redirect_count; i++)
		json_array_append_new(redirects, json_pack("[i, s]", options->redirects[i].fd, options->redirects[i].path));
	json_object_set_new(own, "redirects", redirects);
	json_object_set_new(own, "once", json_boolean(options->once));
	json_object_set_new(own, "lazy", json_boolean(options->lazy));
	json_object_set_new(own, "mapped", json_boolean(options->mapped));
	json_object_set_new(own, "force_cpu", json_boolean(options->force_cpu));
	json_object_set_new(own, "close_tcp", json_boolean(options->close_tcp));
	if (options->terminal)
		json_object_set_new(own, "terminal", json_string(options->terminal));
	if (peek->own_network)
		json_object_set_new(own, "network", json_true());
	if (peek->offset) {
		json_object_set_new(own, "monotonic_ns", json_integer(peek->monotonic_ns));
		json_object_set_new(own, "boottime_ns", json_integer(peek->boottime_ns));
	}
	json_object_update(spec, own);
	json_decref(own);
	free(absolute);
	return spec;
}

static enum cairn_status restore_as_job(const struct cairn_restore_options *options, const struct restore_way *way,
					const struct operation_peek *peek, struct cairn_restore_result *result, struct job *ret_job, struct cairn_error *error)
{
	uint64_t begin = clock_now_ns();
	json_t *spec = restore_spec(options, way, peek);
	enum cairn_status status = job_start(way->program, spec, options->key, NULL, ret_job, error);
	json_decref(spec);
	if (status != CAIRN_DONE)
		return status;
	*result = (struct cairn_restore_result){
		.root = ret_job->root,
		.init = ret_job->init,
		.processes = (uint32_t)json_integer_value(json_object_get(ret_job->state, "processes")),
		.threads = (uint32_t)json_integer_value(json_object_get(ret_job->state, "threads")),
		.pages = (uint64_t)json_integer_value(json_object_get(ret_job->state, "pages")),
		.total_ns = clock_now_ns() - begin,
	};
	return CAIRN_DONE;
}

/* In the caller's own namespaces: what the image wants of its own is not to be had there. */
static enum cairn_status restore_here(const struct cairn_restore_options *options, const struct operation_peek *peek,
				      struct cairn_restore_result *result, int *ret_error, struct cairn_error *error)
{
	struct operation_restored restored;
	if (options->clock == CAIRN_CLOCK_CONTINUE) {
		struct fault fault;
		*ret_error = fault_set(&fault, FAULT_USAGE, EINVAL, "--clock continue needs a time namespace; try --pids private");
		return operation_failed(NULL, &fault, NULL, error);
	}
	if (peek->continues || peek->offset)
		log_warn("%s: is of another boot or host, whose clocks stood elsewhere; continuing without them (--pids private has them)",
			 options->image);
	enum cairn_status status = operation_restore(options, NULL, result, &restored, ret_error, error);
	operation_restored_finish(&restored);
	return status;
}

static enum cairn_status restore_by(const struct cairn_restore_options *options, const struct restore_way *way,
				    struct cairn_restore_result *result, struct job *ret_job, struct cairn_error *error)
{
	bool automatic = options->pids == CAIRN_PIDS_AUTO;
	struct operation_peek peek = { 0 };
	operation_peek(options, &peek, NULL); /* what is wrong with it is said where it is read as a whole */
	bool wants_own = peek.own_network || peek.continues || peek.offset;
	if (options->pids == CAIRN_PIDS_SAME || options->pids == CAIRN_PIDS_ANY || (automatic && may_choose_pids() && !wants_own)) {
		int rc;
		enum cairn_status status = restore_here(options, &peek, result, &rc, error);
		if (!automatic || rc != -EEXIST) {
			log_info("restore: in the caller's PID namespace, %s", options->pids == CAIRN_PIDS_ANY ? "with any PIDs" : "with the old PIDs");
			return status;
		}
		log_info("restore: %s", error->count ? error->lines[0] : "");
		cairn_error_free(error);
	}
	struct fault refusal;
	if (options->mapped && operation_may_map(options->image, &refusal) < 0)
		return operation_failed(NULL, &refusal, NULL, error);
	log_info("restore: in a PID namespace of its own%s%s%s", feature_capability(CAP_SYS_ADMIN) ? "" : " and a user namespace",
		 peek.offset ? " and a time namespace" : "", peek.own_network ? " and a network namespace" : "");
	return restore_as_job(options, way, &peek, result, ret_job, error);
}

enum cairn_status restore_image(const struct cairn_restore_options *options, const struct restore_way *way,
				struct cairn_restore_result *result, struct job *ret_job, struct cairn_error *error)
{
	*result = (struct cairn_restore_result){ 0 };
	*ret_job = (struct job){ .channel = -1 };
	if (strcmp(options->image, "-") != 0)
		return restore_by(options, way, result, ret_job, error);
	if (options->once) {
		struct fault refusal;
		fault_set(&refusal, FAULT_USAGE, EINVAL, "--once needs an image with a name; try it without, or a file");
		return operation_failed(NULL, &refusal, NULL, error);
	}
	/* It can be read only once, and may be needed twice. */
	struct cairn_restore_options spooled = *options;
	struct fault fault;
	_close_ int fd = -1;
	_free_ char *path = NULL;
	if (job_spool_input(&fd, &path, &fault) < 0)
		return operation_failed(NULL, &fault, NULL, error);
	spooled.image = path;
	spooled.trust_image = true;
	return restore_by(&spooled, way, result, ret_job, error);
}

enum cairn_status cairn_restore(const struct cairn_restore_options *options, struct cairn_restore_result *result,
				struct cairn_error *error)
{
	const struct restore_way way = { .detached = true };
	struct job job;
	enum cairn_status status = restore_image(options, &way, result, &job, error);
	job_finish(&job);
	return status;
}
