/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cmd/check.h"

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

/* Digits alone are a PID; everything else names a file. */
int check_target(const char *target, const struct check_options *given, const struct cmd_common *common)
{
	struct cairn_error error = { 0 };
	struct path_words maps;
	struct fault fault;
	pid_t pid = 0;
	bool is_pid = target[strspn(target, "0123456789")] == 0;
	if (is_pid && target_pid(target, &pid, &fault) < 0)
		return cmd_report(common, &fault);
	if (path_words_of(&given->maps, &maps, &fault) < 0)
		return cmd_report(common, &fault);
	const struct cairn_restore_options restore = {
		.image = target, .signal_fd = -1, .path_maps = maps.maps, .path_map_count = maps.count,
		.force_cpu = given->force_cpu,
	};
	enum cairn_status status = is_pid ? cairn_check_process(pid, &error) : cairn_check_image(&restore, &error);
	path_words_finish(&maps);
	if (status != CAIRN_DONE)
		cmd_report_error(common, status, &error);
	else if (common->json)
		cmd_json(json_pack("{s:s, s:o, s:b}", "event", "check", "target", cmd_text(target), "ok", 1));
	else if (!common->quiet)
		printf("%s: nothing stands against a %s here\n", target, is_pid ? "checkpoint" : "restore");
	cairn_error_free(&error);
	return (int)status;
}
