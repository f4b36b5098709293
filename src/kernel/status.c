/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/status: fs/proc/array.c proc_pid_status. */
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

enum line_type { LINE_STATE, LINE_DECIMAL, LINE_OCTAL, LINE_HEX, LINE_BOOL, LINE_IDS, LINE_GROUPS, LINE_NSPID, LINE_SIZE };

/* Keys that are taken, in the order of the file. A key that is not there leaves the value that proc_status_parse starts with. */
static const struct line_rule {
	const char *key;
	enum line_type type;
	size_t offset;
	size_t size;
} rules[] = {
#define RULE(key, type, member) \
	{ key, type, offsetof(struct proc_status, member), sizeof(((struct proc_status *)0)->member) }
	RULE("Umask", LINE_OCTAL, umask),
	RULE("State", LINE_STATE, state),
	RULE("TracerPid", LINE_DECIMAL, tracer),
	RULE("Uid", LINE_IDS, uid),
	RULE("Gid", LINE_IDS, gid),
	RULE("Groups", LINE_GROUPS, groups),
	RULE("NSpid", LINE_NSPID, ns_pid),
	RULE("RssAnon", LINE_SIZE, anonymous_kb),
	RULE("THP_enabled", LINE_BOOL, thp_enabled),
	RULE("untag_mask", LINE_HEX, untag_mask),
	RULE("Threads", LINE_DECIMAL, threads),
	RULE("SigPnd", LINE_HEX, signal_pending),
	RULE("ShdPnd", LINE_HEX, shared_pending),
	RULE("SigBlk", LINE_HEX, blocked),
	RULE("SigIgn", LINE_HEX, ignored),
	RULE("SigCgt", LINE_HEX, caught),
	RULE("CapInh", LINE_HEX, cap_inheritable),
	RULE("CapPrm", LINE_HEX, cap_permitted),
	RULE("CapEff", LINE_HEX, cap_effective),
	RULE("CapBnd", LINE_HEX, cap_bounding),
	RULE("CapAmb", LINE_HEX, cap_ambient),
	RULE("NoNewPrivs", LINE_BOOL, no_new_privs),
	RULE("Seccomp", LINE_DECIMAL, seccomp),
	RULE("Seccomp_filters", LINE_DECIMAL, seccomp_filters),
	RULE("voluntary_ctxt_switches", LINE_DECIMAL, voluntary_switches),
#undef RULE
};

static bool number_take(const char *at, const struct line_rule *rule, unsigned int base, void *place)
{
	uint64_t value;
	at = token_skip_blanks(at);
	if (base == 16)
		token_word(&at, "0x");
	if (!token_number(&at, base, &value) || !token_at_end(at))
		return false;
	if (rule->size == sizeof(uint64_t)) {
		memcpy(place, &value, sizeof value);
		return true;
	}
	uint32_t narrow = (uint32_t)value;
	memcpy(place, &narrow, sizeof narrow);
	return value <= UINT32_MAX;
}

/* "     132 kB" */
static bool size_take(const char *at, uint64_t *place)
{
	return token_number(&at, 10, place) && token_word(&at, " kB") && token_at_end(at);
}

static bool bool_take(const char *at, bool *place)
{
	uint64_t value;
	if (!token_number(&at, 10, &value) || value > 1 || !token_at_end(at))
		return false;
	*place = value;
	return true;
}

static bool ids_take(const char *at, uint32_t *place)
{
	for (int i = 0; i < 4; i++) {
		uint64_t value;
		if (!token_number(&at, 10, &value) || value > UINT32_MAX)
			return false;
		place[i] = (uint32_t)value;
	}
	return token_at_end(at);
}

static bool groups_take(const char *at, struct arena *arena, struct proc_status *status)
{
	VEC(uint32_t) groups = { 0 };
	uint64_t value;
	bool good = true;
	while (!token_at_end(at) && (good = token_number(&at, 10, &value) && value <= UINT32_MAX))
		*vec_add(&groups) = (uint32_t)value;
	if (good && groups.count) {
		status->groups = arena_copy(arena, groups.at, groups.count * sizeof *groups.at);
		status->group_count = groups.count;
	}
	vec_finish(&groups);
	return good;
}

static bool ns_pid_take(const char *at, struct proc_status *status)
{
	uint64_t value;
	for (status->ns_depth = 0; !token_at_end(at); status->ns_depth++) {
		if (!token_number(&at, 10, &value) || value > INT32_MAX)
			return false;
		status->ns_pid = (pid_t)value;
	}
	return true;
}

static bool line_take(const char *at, const struct line_rule *rule, struct arena *arena, struct proc_status *status)
{
	void *place = (char *)status + rule->offset;
	at = token_skip_blanks(at);
	switch (rule->type) {
	case LINE_STATE:
		status->state = *at;
		return !token_at_end(at);
	case LINE_DECIMAL:
		return number_take(at, rule, 10, place);
	case LINE_OCTAL:
		return number_take(at, rule, 8, place);
	case LINE_HEX:
		return number_take(at, rule, 16, place);
	case LINE_BOOL:
		return bool_take(at, place);
	case LINE_IDS:
		return ids_take(at, place);
	case LINE_GROUPS:
		return groups_take(at, arena, status);
	case LINE_SIZE:
		return size_take(at, place);
	case LINE_NSPID:
		return ns_pid_take(at, status);
	}
	return false;
}

/* The rule of the line at @line, then *@ret_value is behind its colon. The lines come in the order of the rules, so the one after the last is looked
 * at first; a line without a rule costs a look at all. */
static const struct line_rule *rule_of(const char *line, size_t *next, const char **ret_value)
{
	const size_t count = sizeof rules / sizeof *rules;
	for (size_t i = 0; i < count; i++) {
		const struct line_rule *rule = &rules[(*next + i) % count];
		const char *at = line;
		if (*line == *rule->key && token_word(&at, rule->key) && *at == ':') {
			*ret_value = at + 1;
			*next = (size_t)(rule - rules) + 1;
			return rule;
		}
	}
	return NULL;
}

/* The command's newlines are escaped in this file, so no line of it can be forged. */
int proc_status_parse(const char *text, struct arena *arena, struct proc_status *ret_status, struct fault *fault)
{
	struct proc_status status = { .thp_enabled = true, .untag_mask = UINT64_MAX };
	size_t next = 0;
	for (const char *line = text; *line; line = token_next_line(line)) {
		const char *value;
		const struct line_rule *rule = rule_of(line, &next, &value);
		if (rule && !line_take(value, rule, arena, &status))
			return token_malformed(fault, "status", rule->key, line);
	}
	*ret_status = status;
	return 0;
}

int proc_status_read(pid_t pid, pid_t tid, struct arena *arena, struct proc_status *ret_status, struct fault *fault)
{
	struct text text = { 0 };
	int rc = proc_read_record(pid, tid, "status", &text, fault);
	if (rc == 0)
		rc = proc_status_parse(text.at, arena, ret_status, fault);
	text_finish(&text);
	return rc;
}

/* Kernels before 5.9 do not count: one at least. */
uint32_t proc_filters(const struct proc_status *status)
{
	return status->seccomp != SECCOMP_MODE_FILTER ? 0 : status->seccomp_filters ? status->seccomp_filters : 1;
}
