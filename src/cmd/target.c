/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/key.h"
#include "base/memory.h"
#include "cmd/check.h"
#include "job/control.h"
#include "job/registry.h"
#include "kernel/procfs.h"

int target_pid(const char *text, pid_t *ret_pid, struct fault *fault)
{
	char *end;
	errno = 0;
	long pid = strtol(text, &end, 10);
	if (end == text || *end || errno || pid <= 0 || pid > 1 << 22)
		return fault_set(fault, FAULT_USAGE, EINVAL, "\"%s\" is not a PID; try `ps` for the PIDs that exist", text);
	*ret_pid = (pid_t)pid;
	return 0;
}

static uint64_t pid_namespace(pid_t pid)
{
	uint64_t namespaces[NS_COUNT] = { 0 };
	return proc_namespaces(pid, namespaces, NULL) < 0 ? 0 : namespaces[NS_PID];
}

/* The job in whose namespace the process lives: one of its owner's. */
static bool find_job_of(pid_t pid, struct target *target)
{
	struct proc_status status;
	struct arena arena = { 0 };
	struct registry_names list = { 0 };
	uint64_t namespace = pid_namespace(pid);
	bool other = namespace && namespace != pid_namespace(getpid()) && proc_status_read(pid, 0, &arena, &status, NULL) == 0;
	if (other)
		registry_list(geteuid() ? geteuid() : status.uid[0], &list);
	for (size_t i = 0; other && i < list.names.count && target->job < 0; i++) {
		int socket;
		pid_t init;
		if (registry_connect(geteuid() ? geteuid() : status.uid[0], list.names.at[i], &socket, &init, NULL) < 0)
			continue;
		if (pid_namespace(init) == namespace) {
			target->job = socket;
			target->pid = pid == init ? 0 : status.ns_pid;
		} else {
			close(socket);
		}
	}
	registry_names_finish(&list);
	arena_finish(&arena);
	return target->job >= 0;
}

int target_find(const char *text, struct target *ret_target, struct fault *fault)
{
	struct target target = { .job = -1 };
	pid_t init;
	int rc = 0;
	if (text[0] && text[strspn(text, "0123456789")] == 0) {
		rc = target_pid(text, &target.pid, fault);
		if (rc == 0)
			find_job_of(target.pid, &target);
	} else if (registry_name_valid(text)) {
		rc = registry_connect(geteuid(), text, &target.job, &init, fault);
	} else {
		rc = target_pid(text, &target.pid, fault);
	}
	if (rc < 0)
		return rc;
	target.name = memory_string(text);
	*ret_target = target;
	return 0;
}

void target_finish(struct target *target)
{
	if (target->job >= 0)
		close(target->job);
	free(target->name);
	*target = (struct target){ .job = -1 };
}

int path_words_of(const struct cmd_list *words, struct path_words *ret_list, struct fault *fault)
{
	struct path_words list = { memory_new(words->count * sizeof *list.maps), 0 };
	for (size_t i = 0; i < words->count; i++) {
		const char *equals = strchr(words->at[i], '=');
		if (!equals) {
			path_words_finish(&list);
			return fault_set(fault, FAULT_USAGE, 0, "--map-path: '%s' has no \"=\"; try OLD=NEW, two absolute paths",
					 words->at[i]);
		}
		list.maps[list.count++] = (struct cairn_path_map){
			memory_format("%.*s", (int)(equals - words->at[i]), words->at[i]), memory_string(equals + 1),
		};
	}
	*ret_list = list;
	return 0;
}

void path_words_finish(struct path_words *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free((char *)list->maps[i].old_path);
		free((char *)list->maps[i].new_path);
	}
	free(list->maps);
	*list = (struct path_words){ 0 };
}

static enum cairn_status check_in_job(const struct target *target, struct cairn_error *error)
{
	struct fault fault;
	json_t *answer = NULL, *request = json_pack("{s:s, s:i}", "op", "check", "pid", (int)target->pid);
	int rc = control_call(target->job, request, NULL, &answer, &fault);
	if (rc < 0)
		answer = control_refused((enum cairn_status)fault.class, fault.text);
	enum cairn_status status = control_status(answer, error);
	json_decref(request);
	json_decref(answer);
	return status;
}

static enum cairn_status check_image(const char *path, const struct check_options *given, struct cairn_error *error)
{
	struct path_words maps = { 0 };
	struct fault fault;
	uint8_t *key = NULL;
	if (path_words_of(&given->maps, &maps, &fault) < 0 || (given->key && key_read(given->key, &key, &fault) < 0)) {
		path_words_finish(&maps);
		json_t *answer = control_refused((enum cairn_status)fault.class, fault.text);
		enum cairn_status status = control_status(answer, error);
		json_decref(answer);
		return status;
	}
	const struct cairn_restore_options restore = {
		.image = path, .key = key, .signal_fd = -1, .path_maps = maps.maps, .path_map_count = maps.count, .force_cpu = given->force_cpu,
		.ignore_changed_files = given->file_changed == 1, .roll_back_files = given->file_changed == 2,
		.address_maps = (const char *const *)given->addresses.at, .address_map_count = given->addresses.count,
	};
	enum cairn_status status = cairn_check_image(&restore, error);
	key_free(key);
	path_words_finish(&maps);
	return status;
}

/* Digits alone are a PID; of everything else a file comes before a job of that name. */
int check_target(const char *name, const struct check_options *given, const struct cmd_common *common)
{
	struct cairn_error error = { 0 };
	struct target target = { .job = -1 };
	struct fault fault;
	bool is_pid = name[strspn(name, "0123456789")] == 0;
	if (is_pid && target_find(name, &target, &fault) < 0)
		return cmd_report(common, &fault);
	struct stat there;
	bool is_file = stat(name, &there) == 0 && !S_ISDIR(there.st_mode);
	bool is_process = is_pid || (!is_file && registry_name_valid(name) && target_find(name, &target, NULL) == 0);
	enum cairn_status status = !is_process ? check_image(name, given, &error) :
				   target.job >= 0 ? check_in_job(&target, &error) : cairn_check_process(target.pid, &error);
	target_finish(&target);
	if (status != CAIRN_DONE)
		cmd_report_error(common, status, &error);
	else if (common->json)
		cmd_json(json_pack("{s:s, s:o, s:b}", "event", "check", "target", cmd_text(name), "ok", 1));
	else if (!common->quiet)
		printf("%s: nothing stands against a %s here\n", name, is_process ? "checkpoint" : "restore");
	cairn_error_free(&error);
	return (int)status;
}
