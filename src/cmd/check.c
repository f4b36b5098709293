/* SPDX-License-Identifier: Apache-2.0 */
/* cairn check: what this host and this user's permissions allow, each asked by doing; with a target or an image, a
 * dry run of it. Exit status 0 when some way of working is open, 4 when none is. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cmd/check.h"
#include "cmd/cmd.h"
#include "kernel/features.h"
#include "kinds/sockets/lock.h"

/* What one probe said. */
struct finding {
	const struct feature *feature;
	bool works;
	char why[512];
};

static const struct way {
	enum feature_way bit;
	const char *name;    /* in JSON */
	const char *summary; /* for people */
} ways[] = {
	{ WAY_SAME_PIDS, "same-pids", "the same PIDs (root, or CAP_CHECKPOINT_RESTORE)" },
	{ WAY_PRIVATE, "private", "a private PID namespace (root)" },
	{ WAY_USER, "user", "an ordinary user, in namespaces of its own" },
	{ WAY_ANY, "any-pids", "other PIDs (--pids any)" },
};
enum { WAYS = sizeof ways / sizeof *ways };

/* Whether @way is closed without @feature. */
static bool feature_counts(const struct feature *feature, const struct way *way)
{
	return feature->required || feature->ways & way->bit;
}

struct findings {
	VEC(struct finding) list;
};

static void findings_gather(struct findings *findings)
{
	for (const struct feature *feature = features; feature->name; feature++) {
		struct finding *finding = vec_add(&findings->list);
		finding->feature = feature;
		finding->works = feature->probe(finding->why, sizeof finding->why);
	}
}

static bool way_open(const struct findings *findings, const struct way *way)
{
	for (size_t i = 0; i < findings->list.count; i++)
		if (!findings->list.at[i].works && feature_counts(findings->list.at[i].feature, way))
			return false;
	return true;
}

static bool any_way_open(const struct findings *findings)
{
	for (int i = 0; i < WAYS; i++)
		if (way_open(findings, &ways[i]))
			return true;
	return false;
}

/* For people */

static void finding_print(const struct finding *finding)
{
	const struct feature *feature = finding->feature;
	const char *state = finding->works ? "yes" : feature->required ? "NO" : "no";
	printf("%-4s %-33s %s\n", state, feature->name, feature->purpose);
	if (!finding->works)
		printf("%38s %s\n", "", finding->why);
}

static void way_print(const struct findings *findings, const struct way *way, const char *separator)
{
	bool open = way_open(findings, way);
	printf("%s%s: %s", separator, way->summary, open ? "open" : "closed by ");
	const char *comma = "";
	for (size_t i = 0; !open && i < findings->list.count; i++) {
		const struct finding *finding = &findings->list.at[i];
		if (finding->works || !feature_counts(finding->feature, way))
			continue;
		printf("%s%s", comma, finding->feature->name);
		comma = ", ";
	}
}

static void findings_print(const struct findings *findings)
{
	for (size_t i = 0; i < findings->list.count; i++)
		finding_print(&findings->list.at[i]);
	for (int i = 0; i < WAYS; i++)
		way_print(findings, &ways[i], i ? " · " : "Ways of working: ");
	putchar('\n');
}

/* For programs */

static void finding_json(const struct finding *finding)
{
	const struct feature *feature = finding->feature;
	json_t *object = json_pack("{s:s, s:s, s:s, s:b, s:b}", "event", "feature", "name", feature->name, "purpose",
				   feature->purpose, "works", finding->works, "required", feature->required);
	if (!finding->works)
		json_object_set_new(object, "why", cmd_text(finding->why));
	cmd_json(object);
}

static void way_json(const struct findings *findings, const struct way *way)
{
	json_t *missing = json_array();
	for (size_t i = 0; i < findings->list.count; i++) {
		const struct finding *finding = &findings->list.at[i];
		if (!finding->works && feature_counts(finding->feature, way))
			json_array_append_new(missing, json_string(finding->feature->name));
	}
	cmd_json(json_pack("{s:s, s:s, s:b, s:o}", "event", "way", "name", way->name, "open", way_open(findings, way),
			   "missing", missing));
}

static void findings_json(const struct findings *findings)
{
	for (size_t i = 0; i < findings->list.count; i++)
		finding_json(&findings->list.at[i]);
	for (int i = 0; i < WAYS; i++)
		way_json(findings, &ways[i]);
	cmd_json(json_pack("{s:s, s:b}", "event", "checked", "ok", any_way_open(findings)));
}

static int check_host(const struct cmd_common *common, struct fault *fault)
{
	struct findings findings = { 0 };
	findings_gather(&findings);
	bool open = any_way_open(&findings);
	if (common->json)
		findings_json(&findings);
	else if (!common->quiet)
		findings_print(&findings);
	vec_finish(&findings.list);
	int rc = cmd_flush(fault);
	if (rc)
		return rc;
	return open ? 0 : fault_set(fault, FAULT_PERMISSION, EPERM,
				    "no way of working is open to this user on this host; try the remedies above%s",
				    common->quiet && !common->json ? " (shown without -q)" : "");
}

/* What saves with --kill or --stop left behind, for a restore that does not come any more. */
static int repair(const struct cmd_common *common, struct fault *fault)
{
	struct lock_list list;
	int rc = lock_find(&list, fault);
	for (size_t i = 0; rc == 0 && i < list.image_ids.count; i++) {
		const char *id = list.image_ids.at[i];
		rc = lock_release(id, fault);
		if (rc == 0 && common->json)
			cmd_json(json_pack("{s:s, s:s}", "event", "repaired", "image", id));
		else if (rc == 0 && !common->quiet)
			printf("nftables table cairn-%s: kept the TCP connections of an image quiet; removed\n", id);
	}
	if (rc == 0 && !list.image_ids.count && !common->json && !common->quiet)
		printf("nothing to repair\n");
	lock_list_finish(&list);
	return rc < 0 ? rc : cmd_flush(fault);
}

static int target_or_refuse(const char *target, const struct check_options *given, const struct cmd_common *common)
{
	if (check_target)
		return check_target(target, given, common);
	struct fault fault;
	fault_set(&fault, FAULT_FAILED, 0, "check of %s: a dry run is not in this version; try cairn check alone, or cairn "
		  "verify IMAGE", target);
	return cmd_report(common, &fault);
}

/* A bare call and a PID have no image whose restore the options could be for. */
static int check_any(const struct check_options *given, const struct cmd_common *common, struct fault *fault)
{
	const char *target = common->operand_count ? common->operands[0] : "";
	if ((given->maps.count || given->addresses.count || given->force_cpu || given->file_changed || given->key) && !target[strspn(target, "0123456789")]) {
		fault_set(fault, FAULT_USAGE, 0, "%s: is for the restore of an image; try cairn check with an image",
			  given->maps.count ? "--map-path" : given->addresses.count ? "--map-address" : given->file_changed ? "--file-changed" :
			  given->key ? "--decrypt-key" : "--force-cpu");
		return cmd_report(common, fault);
	}
	if (given->repair)
		return repair(common, fault) ? cmd_report(common, fault) : 0;
	if (common->operand_count)
		return target_or_refuse(target, given, common);
	return check_host(common, fault) ? cmd_report(common, fault) : 0;
}

static const struct cmd_option options[] = {
	{ "decrypt-key", 0, CMD_STRING, "FILE", DECRYPT_KEY_HELP, offsetof(struct check_options, key) },
	{ "map-path", 0, CMD_LIST, "OLD=NEW", MAP_PATH_HELP, offsetof(struct check_options, maps) },
	{ "map-address", 0, CMD_LIST, "OLD=NEW", MAP_ADDRESS_HELP, offsetof(struct check_options, addresses) },
	{ "file-changed", 0, CMD_CHOICE, "refuse|ignore|rollback", FILE_CHANGED_HELP, offsetof(struct check_options, file_changed) },
	{ "force-cpu", 0, CMD_FLAG, NULL, FORCE_CPU_HELP, offsetof(struct check_options, force_cpu) },
	{ "repair", 0, CMD_FLAG, NULL, "end what keeps the TCP connections of images quiet that will not be restored",
	  offsetof(struct check_options, repair) },
	{ NULL },
};

int cmd_check(int argc, char **argv)
{
	static const struct cmd_syntax syntax = {
		"check", "[TARGET | IMAGE]",
		"Says what can be done on this host and why not; with a target or an image, a dry run of it.", options, 0,
		1, false,
	};
	struct check_options given = { 0 };
	struct cmd_common common;
	struct fault fault;
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	int status = rc < 0 ? cmd_report(&common, &fault) : rc > 0 ? 0 : check_any(&given, &common, &fault);
	cmd_list_finish(&given.maps);
	cmd_list_finish(&given.addresses);
	return status;
}
