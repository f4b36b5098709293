/* SPDX-License-Identifier: Apache-2.0 */
/* cairn_checkpoint: joins the frozen world and the image. */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "api/hooks.h"
#include "api/operations.h"
#include "base/log.h"
#include "capture/capture.h"
#include "image.pb-c.h"
#include "image/image.h"
#include "kernel/host.h"
#include "kernel/processor.h"
#include "kinds/table.h"

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* What image.proto keeps of a processor, in arrays that last as long as the record. */
struct processor_record {
	Cairn__CpuidWord words[PROCESSOR_WORDS], *word_list[PROCESSOR_WORDS];
	Cairn__XstateComponent components[PROCESSOR_COMPONENTS], *component_list[PROCESSOR_COMPONENTS];
};

static void fill_processor(const struct processor *processor, struct processor_record *record, Cairn__ImageInfo *info)
{
	for (size_t i = 0; i < processor->word_count; i++) {
		const struct processor_word *word = &processor->words[i];
		cairn__cpuid_word__init(&record->words[i]);
		record->words[i].leaf = word->leaf;
		record->words[i].subleaf = word->subleaf;
		record->words[i].output = word->output;
		record->words[i].bits = word->bits;
		record->word_list[i] = &record->words[i];
	}
	for (size_t i = 0; i < processor->component_count; i++) {
		const struct processor_component *component = &processor->components[i];
		cairn__xstate_component__init(&record->components[i]);
		record->components[i].number = component->number;
		record->components[i].offset = component->offset;
		record->components[i].size = component->size;
		record->component_list[i] = &record->components[i];
	}
	info->xstate_features = processor->xstate;
	info->hwcap = processor->hwcap;
	info->hwcap2 = processor->hwcap2;
	info->cpuid = record->word_list;
	info->n_cpuid = processor->word_count;
	info->xstate_components = record->component_list;
	info->n_xstate_components = processor->component_count;
}

static int write_info(const struct harvest *harvest, const struct processor *processor, const struct operation_job *job,
		      struct image_writer *writer,
		      struct fault *fault)
{
	Cairn__ImageInfo info = CAIRN__IMAGE_INFO__INIT;
	struct processor_record record;
	struct utsname system;
	char boot_id[37];
	struct host_vdso vdso;
	uname(&system);
	host_boot_id(boot_id);
	host_vdso_read(&vdso);
	info.cairn_version = CAIRN_VERSION;
	info.architecture = (char *)host_architecture();
	info.page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	info.kernel_release = system.release;
	info.host = system.nodename;
	info.boot_id = boot_id;
	info.realtime_ns = clock_ns(CLOCK_REALTIME);
	info.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	info.boottime_ns = clock_ns(CLOCK_BOOTTIME);
	info.root_pid = (uint32_t)harvest->processes.at[0]->pid;
	info.command = harvest->processes.at[0]->stat.command;
	info.vdso_hash = vdso.hash;
	info.vdso_size = vdso.size;
	fill_processor(processor, &record, &info);
	info.job = (char *)(job && job->name ? job->name : "");
	info.generation = job ? job->generation : 0;
	return image_writer_record(writer, kind_image.tag, &info.base, fault);
}

static int write_records(const struct harvest *harvest, size_t first, struct image_writer *writer,
			 struct fault *fault)
{
	int rc = 0;
	for (size_t i = first; rc == 0 && i < harvest->records.count; i++)
		rc = image_writer_record(writer, harvest->records.at[i].kind->tag, harvest->records.at[i].message, fault);
	return rc;
}

static uint32_t count_threads(const struct harvest *harvest)
{
	uint32_t count = 0;
	for (size_t i = 0; i < harvest->processes.count; i++)
		count += (uint32_t)harvest->processes.at[i]->threads.count;
	return count;
}

static int put_pages(void *context, const struct page_batch *batch, struct fault *fault)
{
	return image_writer_pages(context, batch, fault);
}

/* The frozen part: everything is in the image's file (not yet on disk) when it ends. */
static int save_frozen(struct harvest *harvest, const struct processor *processor, const struct operation_job *job,
		       struct image_writer *writer, unsigned threads,
		       const struct deadline *deadline, struct fault *fault)
{
	uint64_t begin = clock_now_ns();
	const struct page_sink sink = { put_pages, writer };
	size_t before = harvest->records.count;
	int rc = write_info(harvest, processor, job, writer, fault);
	if (rc == 0)
		rc = write_records(harvest, 0, writer, fault);
	if (rc == 0)
		rc = snapshot_pages(harvest, &sink, threads, deadline, fault);
	if (rc == 0)
		rc = write_records(harvest, before, writer, fault);
	if (rc == 0)
		log_info("checkpoint: records and pages: %zu records, %.2f ms", harvest->records.count,
			 (double)(clock_now_ns() - begin) / 1e6);
	return rc;
}

static struct capture_policy policy_of(const struct cairn_checkpoint_options *options, const struct operation_job *job)
{
	return (struct capture_policy){
		.outside = (enum outside_policy)options->outside, .lose_in_flight = options->lose_in_flight,
		.reopen = options->reopen_devices, .reopen_count = options->reopen_device_count,
		.adopter = job ? job->adopter : 0,
	};
}

static int save(pid_t pid, const struct cairn_checkpoint_options *options, const struct operation_job *job, struct image_file *file,
		struct cairn_checkpoint_result *result, struct fault_list *refusals, struct fault *fault)
{
	/* Transient states get some time even if the operation has no bound. */
	struct deadline bound = operation_deadline(options->timeout_s > 0 ? options->timeout_s : 10, options->signal_fd);
	struct deadline deadline = operation_deadline(options->timeout_s, options->signal_fd);
	const struct capture_policy policy = policy_of(options, job);
	struct image_writer *writer;
	struct harvest harvest;
	struct image_stats stats = { 0 };
	int rc = image_writer_new(image_file_fd(file), &writer, fault);
	if (rc < 0)
		return rc;
	uint64_t frozen_at = 0;
	struct processor processor;
	processor_read(&processor); /* while nothing stands still */
	rc = capture_begin(&harvest, pid, &policy, &bound, &frozen_at, refusals, fault);
	if (rc < 0) {
		image_writer_free(writer);
		return rc;
	}
	log_info("checkpoint: frozen and read: %zu processes, %u threads, %.2f ms", harvest.processes.count,
		 count_threads(&harvest), (double)(clock_now_ns() - frozen_at) / 1e6);
	rc = save_frozen(&harvest, &processor, job, writer, operation_threads(options->threads), &deadline, fault);
	/* A program that runs on need not wait for the disk; one that is to end must not end before its image is safe. */
	if (rc < 0 || options->after == CAIRN_RUN_ON) {
		freeze_thaw(&harvest, FREEZE_RUN);
		result->frozen_ns = clock_now_ns() - frozen_at;
	}
	if (rc == 0)
		rc = image_writer_finish(writer, &stats, fault);
	if (rc == 0)
		rc = image_file_commit(file, fault);
	if (rc < 0)
		fault_at(fault, rc, "%s", options->output);
	if (options->after != CAIRN_RUN_ON && result->frozen_ns == 0) {
		enum freeze_end end = rc < 0 ? FREEZE_RUN : options->after == CAIRN_KILL ? FREEZE_KILL : FREEZE_STOP;
		freeze_thaw(&harvest, end);
		result->frozen_ns = clock_now_ns() - frozen_at;
	}
	result->bytes = stats.bytes;
	result->pages = stats.pages;
	result->processes = (uint32_t)harvest.processes.count;
	result->threads = harvest.thread_count;
	harvest_finish(&harvest);
	image_writer_free(writer);
	return rc;
}

/* Hooks of the tree's programs run before anything is judged: they may close what stands against a checkpoint. */
static int survey(pid_t pid, const struct capture_policy *policy, const struct deadline *deadline, struct hooks *hooks,
		  struct fault_list *refusals, struct fault *fault)
{
	struct bulletin_list bulletins = { 0 };
	int rc = capture_survey(pid, policy, refusals, &bulletins, fault);
	if (rc == 0)
		rc = hooks_before(&bulletins, deadline, hooks, fault);
	vec_finish(&bulletins.places);
	if (rc == 0 && hooks->told.count && refusals->count) {
		fault_list_finish(refusals);
		rc = capture_survey(pid, policy, refusals, NULL, fault);
	}
	if (rc < 0) {
		fault_list_finish(refusals);
		return rc;
	}
	return refusals->count ? -ENOTSUP : 0;
}

enum cairn_status operation_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options, const struct operation_job *job,
				       struct cairn_checkpoint_result *result, struct cairn_error *error)
{
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	struct image_file *file = NULL;
	const struct capture_policy policy = policy_of(options, job);
	uint64_t begin = clock_now_ns();
	struct deadline deadline = operation_deadline(options->timeout_s, options->signal_fd);
	struct hooks hooks = { 0 };
	*result = (struct cairn_checkpoint_result){ 0 };
	int rc = capture_check_target(pid, &fault);
	if (rc == 0)
		rc = survey(pid, &policy, &deadline, &hooks, &refusals, &fault);
	if (rc == 0)
		rc = image_file_create(options->output, &file, &fault);
	if (rc == 0)
		rc = save(pid, options, job, file, result, &refusals, &fault);
	if (rc < 0 || options->after != CAIRN_KILL)
		hooks_after(&hooks, rc == 0);
	hooks_finish(&hooks);
	image_file_free(file);
	result->total_ns = clock_now_ns() - begin;
	enum cairn_status status = rc < 0 ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}

enum cairn_status cairn_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options,
				   struct cairn_checkpoint_result *result, struct cairn_error *error)
{
	return operation_checkpoint(pid, options, NULL, result, error);
}

enum cairn_status cairn_check_process(pid_t pid, struct cairn_error *error)
{
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	const struct capture_policy policy = { 0 };
	int rc = capture_check_target(pid, &fault);
	if (rc == 0)
		rc = capture_survey(pid, &policy, &refusals, NULL, &fault);
	enum cairn_status status = rc < 0 || refusals.count ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}
