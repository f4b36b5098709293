/* SPDX-License-Identifier: Apache-2.0 */
/* A restore in the caller's PID namespace: joins the image and the newborn world. The calling thread makes the newborns. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/lease.h"
#include "api/operations.h"
#include "api/own.h"
#include "api/trust.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/features.h"
#include "rebuild/address_map.h"
#include "rebuild/rebuild.h"
#include "rebuild/template.h"

/* How long the processes that were just killed may take to be gone. */
#define PID_PATIENCE_NS UINT64_C(3000000000)

struct restore {
	const struct cairn_restore_options *options;
	struct image_reader *reader;
	struct plan plan;
	struct deadline deadline;
	struct lease lease;
	bool lazy; /* wanted, and possible here */
	struct operation_template *template; /* it is a clone of this one; NULL: it is none */
	bool is_clone;
};

struct operation_template {
	struct template *memory;
	struct lease lease;
};

static uint32_t count_threads(const struct plan *plan)
{
	uint32_t count = 0;
	for (size_t i = 0; i < plan->processes.count; i++)
		count += (uint32_t)plan->processes.at[i]->threads.count;
	return count;
}

/* Faults of the kernel itself, and what becomes of memory meanwhile, are only told to who has CAP_SYS_PTRACE in the first user namespace
 * (fs/userfaultfd.c userfaultfd_api and userfaultfd_syscall_allowed, 6.18). */
static bool may_be_lazy(const struct cairn_restore_options *options)
{
	if (options->lazy && options->pids == CAIRN_PIDS_ANY)
		log_warn("--lazy does not go together with --pids any; continuing with --eager");
	else if (options->lazy && !feature_events())
		log_warn("loading memory behind a running program needs CAP_SYS_PTRACE in the first user namespace (try as root); "
			 "continuing with --eager");
	else
		return options->lazy;
	return false;
}

/* Makes the newborns in this process's PID namespace and lets them run. */
static int restore_here(struct restore *restore, struct rebuild_result *result, struct operation_restored *restored, struct fault *fault)
{
	const struct cairn_restore_options *options = restore->options;
	struct progress progress = PROGRESS_INIT(options->progress, options->progress_context);
	const struct rebuild_options rebuild_options = {
		.threads = operation_threads(options->threads),
		.any_pids = options->pids == CAIRN_PIDS_ANY,
		.leave_stopped = options->leave_stopped,
		.lazy = restore->lazy,
		.mapped = options->mapped,
		.template = restore->template ? restore->template->memory : NULL,
		.roll_back = options->roll_back_files,
		.close_tcp = options->close_tcp,
		.maps_addresses = options->address_map_count > 0,
		.terminal = options->terminal,
		.deadline = &restore->deadline,
		.progress = &progress,
	};
	const struct image_block *blocks;
	for (size_t i = image_reader_blocks(restore->reader, &blocks); i-- > 0;)
		progress_expect(&progress, (uint64_t)blocks[i].pages * PAGES_SIZE);
	struct own own;
	struct rebuild *rebuild;
	own_note(&own);
	int rc = rebuild_prepare(&restore->plan, restore->reader, &rebuild_options, &rebuild, fault);
	if (rc < 0) {
		own_put_back(&own);
		return rc;
	}
	if (options->ready && options->ready(options->context, rebuild_root(rebuild), rebuild_foreground_group(rebuild)))
		rc = fault_set(fault, FAULT_FAILED, ECANCELED, "undone by the caller");
	if (rc == 0)
		rc = lease_use(&restore->lease, fault);
	if (rc == 0)
		rc = rebuild_release(rebuild, result, fault);
	if (rc == 0)
		restored->pager = rebuild_watch_pager(rebuild, &restored->held, &restored->held_count);
	rebuild_free(rebuild);
	own_put_back(&own);
	return rc;
}

/* ---- the whole ---- */

/* As root, an image decides what runs as root: who could have written it? Standard input is the caller's own choice. */
static int open_image(const struct cairn_restore_options *options, struct image_reader **ret_reader, struct fault *fault)
{
	_close_ int fd = image_reader_descriptor(options->image, fault);
	if (fd < 0)
		return fd;
	bool is_asked = geteuid() == 0 && !options->trust_image && strcmp(options->image, "-");
	int rc = is_asked ? trust_check(options->image, fd, fault) : 0;
	if (rc == 0 && options->mapped)
		rc = trust_check_mapped(options->image, fd, fault);
	if (rc == 0)
		rc = image_reader_open_fd(fd_steal(&fd), options->image, (const struct image_key *)options->key, ret_reader, fault);
	/* Pages of an incremental image come from its ancestors. */
	for (size_t i = 0; rc == 0 && is_asked; i++) {
		const char *path;
		int ancestor;
		if (!image_reader_ancestor(*ret_reader, i, &path, &ancestor))
			break;
		rc = trust_check(path, ancestor, fault);
	}
	return rc;
}

int operation_may_map(const char *path, struct fault *fault)
{
	_close_ int fd = image_reader_descriptor(path, fault);
	return fd < 0 ? fd : trust_check_mapped(path, fd, fault);
}

static int take_maps(const struct cairn_restore_options *options, struct path_maps *ret_maps, struct fault *fault)
{
	struct path_maps maps = { memory_new(options->path_map_count * sizeof *maps.at), options->path_map_count };
	for (size_t i = 0; i < maps.count; i++)
		maps.at[i] = (struct path_map){ options->path_maps[i].old_path, options->path_maps[i].new_path, 0 };
	int rc = path_maps_check(&maps, fault);
	if (rc < 0)
		free(maps.at);
	else
		*ret_maps = maps;
	return rc;
}

static int load_plan(struct restore *restore, const struct path_maps *maps, struct fault *fault)
{
	int rc = plan_load(restore->reader, maps, &restore->plan, fault);
	if (rc < 0)
		return fault_at(fault, rc, "%s", restore->options->image);
	for (size_t i = 0; i < maps->count; i++)
		if (maps->at[i].uses == 0)
			log_warn("%s: holds no path that is or lies below %s; continuing without that --map-path",
				 restore->options->image, maps->at[i].old_path);
	return 0;
}

static int load(struct restore *restore, struct fault_list *refusals, struct fault *fault)
{
	const struct plan_policy policy = {
		.ignore_changed_files = restore->options->ignore_changed_files,
		.roll_back = restore->options->roll_back_files,
		.force_cpu = restore->options->force_cpu,
		.any_pids = restore->options->pids == CAIRN_PIDS_ANY,
		.closes_tcp = restore->options->close_tcp,
		.is_clone = restore->is_clone,
	};
	struct path_maps maps = { 0 };
	int rc = take_maps(restore->options, &maps, fault);
	if (rc == 0)
		rc = open_image(restore->options, &restore->reader, fault);
	if (rc == 0)
		rc = load_plan(restore, &maps, fault);
	for (size_t i = 0; rc == 0 && i < restore->options->redirect_count; i++)
		rc = plan_redirect(&restore->plan, restore->options->redirects[i].fd, restore->options->redirects[i].path, fault);
	if (rc == 0)
		rc = plan_map_addresses(&restore->plan, restore->options->address_maps, restore->options->address_map_count, fault);
	if (rc == 0) {
		plan_check_host(&restore->plan, &policy, refusals);
		rc = refusals->count ? -ENOTSUP : 0;
	}
	free(maps.at);
	return rc;
}

static int take_lease(struct restore *restore, struct fault *fault)
{
	uint8_t id[16];
	if (!restore->options->once)
		return 0;
	image_reader_id(restore->reader, id);
	int rc = lease_take(restore->options->image, id, &restore->lease, fault);
	return rc < 0 ? fault_at(fault, rc, "%s", restore->options->image) : 0;
}

void operation_restored_finish(struct operation_restored *restored)
{
	for (size_t i = 0; i < restored->held_count; i++)
		close(restored->held[i]);
	free(restored->held);
	free(restored->job);
	free(restored->command);
	*restored = (struct operation_restored){ 0 };
}

static int load_template(struct restore *restore, struct template **ret_memory, struct fault *fault)
{
	const struct rebuild_options options = { .threads = operation_threads(restore->options->threads), .deadline = &restore->deadline };
	return template_load(&restore->plan, restore->reader, &options, ret_memory, fault);
}

enum cairn_status operation_template_load(const struct cairn_restore_options *options, struct operation_template **ret_template, uint64_t *ret_pages,
					  struct cairn_error *error)
{
	struct restore restore = { .options = options, .deadline = operation_deadline(options->timeout_s, options->signal_fd), .lease.fd = -1, .is_clone = true };
	struct operation_template template = { .lease.fd = -1 };
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	int rc = load(&restore, &refusals, &fault);
	if (rc == 0)
		rc = take_lease(&restore, &fault);
	if (rc == 0)
		rc = load_template(&restore, &template.memory, &fault);
	if (rc < 0) {
		lease_give_back(&restore.lease);
		lease_finish(&restore.lease);
	} else {
		template.lease = restore.lease;
		*ret_pages = template_pages(template.memory);
		*ret_template = memory_new(sizeof **ret_template);
		**ret_template = template;
	}
	plan_finish(&restore.plan);
	image_reader_free(restore.reader);
	enum cairn_status status = rc < 0 ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}

void operation_template_inherit(struct operation_template *template)
{
	lease_finish(&template->lease);
}

int operation_template_use(struct operation_template *template, struct fault *fault)
{
	int rc = lease_use(&template->lease, fault);
	lease_finish(&template->lease);
	template->lease = (struct lease){ .fd = -1 };
	return rc;
}

void operation_template_free(struct operation_template *template)
{
	if (!template)
		return;
	lease_give_back(&template->lease);
	lease_finish(&template->lease);
	template_free(template->memory);
	free(template);
}

enum cairn_status operation_restore(const struct cairn_restore_options *options, struct operation_template *template, struct cairn_restore_result *result,
				    struct operation_restored *ret_restored, int *ret_error, struct cairn_error *error)
{
	struct restore restore = {
		.options = options, .deadline = operation_deadline(options->timeout_s, options->signal_fd), .lease.fd = -1,
		.template = template, .is_clone = template != NULL,
	};
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	struct rebuild_result made = { 0 };
	uint64_t begin = clock_now_ns();
	*result = (struct cairn_restore_result){ 0 };
	*ret_restored = (struct operation_restored){ 0 };
	int rc = load(&restore, &refusals, &fault);
	if (rc == 0)
		log_info("restore: image read and checked: %zu records, %.2f ms", restore.plan.records.count,
			 (double)(clock_now_ns() - begin) / 1e6);
	if (rc == 0 && options->pids == CAIRN_PIDS_ANY && restore.plan.processes.count > 1)
		log_warn("%s: its %zu processes get other PIDs; one that remembers its children by theirs (a shell) does not find them; "
			 "continuing without the old ones", options->image, restore.plan.processes.count);
	if (rc == 0 && options->pids != CAIRN_PIDS_ANY)
		rc = rebuild_check_pids(&restore.plan, PID_PATIENCE_NS, &fault);
	restore.lazy = rc == 0 && may_be_lazy(options);
	if (rc == 0)
		rc = take_lease(&restore, &fault);
	if (rc == 0)
		rc = restore_here(&restore, &made, ret_restored, &fault);
	if (rc < 0)
		lease_give_back(&restore.lease);
	lease_finish(&restore.lease);
	if (rc == 0) {
		result->root = made.root_pid;
		result->processes = (uint32_t)restore.plan.processes.count;
		result->threads = count_threads(&restore.plan);
		result->pages = made.pages;
		ret_restored->job = memory_string(restore.plan.info->job);
		ret_restored->command = memory_string(restore.plan.info->command);
		ret_restored->generation = restore.plan.info->generation + 1;
	}
	plan_finish(&restore.plan);
	image_reader_free(restore.reader);
	result->total_ns = clock_now_ns() - begin;
	*ret_error = rc;
	enum cairn_status status = rc < 0 ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}

enum cairn_status cairn_check_image(const struct cairn_restore_options *options, struct cairn_error *error)
{
	struct cairn_restore_options trusting = *options;
	trusting.trust_image = true;
	struct restore restore = { .options = &trusting, .deadline = operation_deadline(0, -1) };
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	int rc = load(&restore, &refusals, &fault);
	plan_finish(&restore.plan);
	image_reader_free(restore.reader);
	enum cairn_status status = rc < 0 ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}
