/* SPDX-License-Identifier: Apache-2.0 */
/* Option tables: parsing and --help out of the same rows, so that neither can lie about the other. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "cmd/cmd.h"

static const struct cmd_option common_options[] = {
	{ "verbose", 'v', CMD_FLAG, NULL, "say more; again for more still", 0 },
	{ "quiet", 'q', CMD_FLAG, NULL, "say nothing but errors", offsetof(struct cmd_common, quiet) },
	{ "json", 0, CMD_FLAG, NULL, "one JSON object per event or result on stdout",
	  offsetof(struct cmd_common, json) },
	{ "timeout", 0, CMD_DURATION, "SECONDS", "bound the whole operation; roll back when it is over",
	  offsetof(struct cmd_common, timeout_s) },
	{ "progress", 0, CMD_CHOICE, "auto|never|always", "a bar on standard error (default: if that is a terminal)",
	  offsetof(struct cmd_common, progress) },
	{ "help", 'h', CMD_FLAG, NULL, "print this", 0 },
	{ "version", 'V', CMD_FLAG, NULL, "print the version", 0 },
	{ NULL },
};

/* getopt_long returns these for rows of the tables, far from any letter. */
enum { VALUE_OWN = 0x1000, VALUE_COMMON = 0x2000 };

void cmd_list_finish(struct cmd_list *list)
{
	if (list)
		vec_finish(list);
}

static size_t option_count(const struct cmd_option *options)
{
	size_t count = 0;
	while (options && options[count].name)
		count++;
	return count;
}

/* --help */

static int option_head(const struct cmd_option *option, char *head, size_t size)
{
	char letter[8] = "    ";
	if (option->letter)
		snprintf(letter, sizeof letter, "-%c, ", option->letter);
	const char *argument = option->argument ? option->argument : "";
	const char *join = !option->argument ? "" : option->bare ? "[=" : " ";
	return snprintf(head, size, "  %s--%s%s%s%s", letter, option->name, join, argument,
			option->bare ? "]" : "");
}

static void option_print(const struct cmd_option *option)
{
	enum { HELP_COLUMN = 34 };
	char head[160];
	int width = option_head(option, head, sizeof head);
	if (width > HELP_COLUMN - 2)
		printf("%s\n%*s%s\n", head, HELP_COLUMN, "", option->help);
	else
		printf("%-*s%s\n", HELP_COLUMN, head, option->help);
}

static void syntax_help(const struct cmd_syntax *syntax)
{
	printf("cairn %s [options] %s\n%s\n", syntax->name, syntax->operands, syntax->summary);
	size_t own = option_count(syntax->options);
	if (own)
		puts("");
	for (size_t i = 0; i < own; i++)
		option_print(&syntax->options[i]);
	puts("\nCommon options:");
	for (const struct cmd_option *option = common_options; option->name; option++)
		option_print(option);
}

/* Values */

/* The number at the start of @text, not negative; *ret_rest is what follows it. */
static bool number_of(const char *text, double *ret_value, char **ret_rest)
{
	if ((*text < '0' || *text > '9') && *text != '.')
		return false;
	errno = 0;
	*ret_value = strtod(text, ret_rest);
	return !errno && *ret_rest != text && isfinite(*ret_value);
}

static bool whole_of(const char *text, uint64_t *ret_value, char **ret_rest)
{
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret_value = strtoull(text, ret_rest, 10);
	return !errno;
}

static bool size_of(const char *text, uint64_t *ret_value)
{
	char *rest;
	uint64_t value;
	if (!whole_of(text, &value, &rest))
		return false;
	static const char units[] = "kmgt";
	if (*rest) {
		const char *unit = strchr(units, *rest | 0x20);
		if (!unit || rest[1])
			return false;
		unsigned int shift = 10 * (unsigned int)(unit - units + 1);
		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
	}
	*ret_value = value;
	return true;
}

static bool duration_of(const char *text, double *ret_value)
{
	char *rest;
	double value;
	if (!number_of(text, &value, &rest))
		return false;
	static const struct {
		char unit;
		double seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	double scale = *rest ? 0 : 1;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (*rest == units[i].unit && !rest[1])
			scale = units[i].seconds;
	if (scale <= 0)
		return false;
	*ret_value = value * scale;
	return true;
}

/* Index of @word in "one|two|three", or -1. */
static int choice_of(const char *choices, const char *word)
{
	size_t length = strlen(word);
	for (int index = 0;; index++) {
		size_t span = strcspn(choices, "|");
		if (span == length && !memcmp(choices, word, span))
			return index;
		if (!choices[span])
			return -1;
		choices += span + 1;
	}
}

static bool value_store(const struct cmd_option *option, const char *argument, void *place)
{
	char *rest;
	int choice;
	switch (option->type) {
	case CMD_FLAG:
		*(bool *)place = true;
		return true;
	case CMD_STRING:
		*(const char **)place = argument;
		return true;
	case CMD_LIST:
		*vec_add((struct cmd_list *)place) = argument;
		return true;
	case CMD_CHOICE:
		choice = argument ? choice_of(option->argument, argument) : 0;
		if (choice >= 0)
			*(int *)place = choice;
		return choice >= 0;
	case CMD_NUMBER:
		return whole_of(argument, place, &rest) && !*rest;
	case CMD_SIZE:
		return size_of(argument, place);
	case CMD_DURATION:
		return duration_of(argument, place);
	}
	return false;
}

static const char *value_wanted(enum cmd_type type)
{
	switch (type) {
	case CMD_NUMBER:
		return "a whole number";
	case CMD_SIZE:
		return "a size such as 4096, 64k, 10M or 2G";
	case CMD_DURATION:
		return "a time such as 90, 1.5, 10m or 2h";
	default:
		return "another value";
	}
}

static int option_take(const struct cmd_option *option, const char *argument, void *base, struct fault *fault)
{
	if (value_store(option, argument, (char *)base + option->offset))
		return 0;
	return fault_set(fault, FAULT_USAGE, 0, "--%s: '%s' is not understood; try %s", option->name, argument,
			 option->type == CMD_CHOICE ? option->argument : value_wanted(option->type));
}

/* Parsing */

struct parser {
	const struct cmd_syntax *syntax;
	void *options;
	struct cmd_common *common;
	struct option *longs;
	char *shorts;
};

static void parser_add(struct parser *parser, const struct cmd_option *options, int base, size_t *longs)
{
	size_t length = strlen(parser->shorts);
	for (size_t i = 0; options && options[i].name; i++) {
		const struct cmd_option *option = &options[i];
		int has = !option->argument ? no_argument : option->bare ? optional_argument : required_argument;
		parser->longs[(*longs)++] = (struct option){ option->name, has, NULL, base + (int)i };
		if (!option->letter)
			continue;
		parser->shorts[length++] = option->letter;
		for (int colons = 0; colons < has; colons++)
			parser->shorts[length++] = ':';
	}
	parser->shorts[length] = 0;
}

/* The row behind a value of getopt_long; *ret_base is the struct that it fills. */
static const struct cmd_option *parser_find(struct parser *parser, int value, void **ret_base)
{
	*ret_base = parser->options;
	if (value >= VALUE_COMMON || value < VALUE_OWN)
		*ret_base = parser->common;
	if (value >= VALUE_COMMON)
		return &common_options[value - VALUE_COMMON];
	if (value >= VALUE_OWN)
		return &parser->syntax->options[value - VALUE_OWN];
	for (const struct cmd_option *option = common_options; option->name; option++)
		if (option->letter == value)
			return option;
	*ret_base = parser->options;
	for (const struct cmd_option *option = parser->syntax->options; option && option->name; option++)
		if (option->letter == value)
			return option;
	return NULL;
}

static int parser_refuse(struct parser *parser, int value, char **argv, struct fault *fault)
{
	const char *name = parser->syntax->name;
	if (value == ':')
		return fault_set(fault, FAULT_USAGE, 0, "%s needs a value; try cairn %s --help", argv[optind - 1],
				 name);
	if (optopt && optopt < VALUE_OWN)
		return fault_set(fault, FAULT_USAGE, 0, "cairn %s has no option -%c; try cairn %s --help", name,
				 optopt, name);
	if (optopt)
		return fault_set(fault, FAULT_USAGE, 0, "%s takes no value; try cairn %s --help",
				 argv[optind - 1], name);
	return fault_set(fault, FAULT_USAGE, 0, "cairn %s has no option %s; try cairn %s --help", name,
			 argv[optind - 1], name);
}

/* One option; 1 when it ends the program well. */
static int parser_take(struct parser *parser, int value, char **argv, struct fault *fault)
{
	if (value == ':' || value == '?')
		return parser_refuse(parser, value, argv, fault);
	void *base;
	const struct cmd_option *option = parser_find(parser, value, &base);
	if (!option)
		return parser_refuse(parser, '?', argv, fault);
	if (base != parser->common)
		return option_take(option, optarg, base, fault);
	if (!strcmp(option->name, "help")) {
		syntax_help(parser->syntax);
		return 1;
	}
	if (!strcmp(option->name, "version")) {
		puts("cairn " CAIRN_VERSION);
		return 1;
	}
	if (!strcmp(option->name, "verbose")) {
		parser->common->verbosity++;
		return 0;
	}
	return option_take(option, optarg, base, fault);
}

static int parser_run(struct parser *parser, int argc, char **argv, struct fault *fault)
{
	optind = 0; /* GNU: start anew, also after another parse in this process */
	opterr = 0;
	for (;;) {
		int value = getopt_long(argc, argv, parser->shorts, parser->longs, NULL);
		if (value == -1)
			return 0;
		int rc = parser_take(parser, value, argv, fault);
		if (rc)
			return rc;
	}
}

static int operands_check(const struct cmd_syntax *syntax, int count, struct fault *fault)
{
	if (count >= syntax->least && (syntax->most < 0 || count <= syntax->most))
		return 0;
	return fault_set(fault, FAULT_USAGE, 0, "%s operand; usage: cairn %s [options] %s",
			 count < syntax->least ? "missing" : "unexpected", syntax->name, syntax->operands);
}

int cmd_parse(const struct cmd_syntax *syntax, int argc, char **argv, void *options,
	      struct cmd_common *ret_common, struct fault *fault)
{
	size_t own = option_count(syntax->options), longs = 0;
	size_t common = sizeof common_options / sizeof *common_options;
	_free_ struct option *table = memory_new((own + common) * sizeof *table);
	_free_ char *shorts = memory_new(3 * (own + common) + 4);
	strcpy(shorts, syntax->stops ? "+:" : ":");
	*ret_common = (struct cmd_common){ .command = syntax->name };
	struct parser parser = { syntax, options, ret_common, table, shorts };
	parser_add(&parser, syntax->options, VALUE_OWN, &longs);
	parser_add(&parser, common_options, VALUE_COMMON, &longs);
	int rc = parser_run(&parser, argc, argv, fault);
	if (rc)
		return rc;
	ret_common->operands = argv + optind;
	ret_common->operand_count = argc - optind;
	log_to(ret_common->quiet ? LOG_ERROR : ret_common->verbosity > 1 ? LOG_DEBUG :
	       ret_common->verbosity ? LOG_INFO : LOG_WARN, NULL, NULL);
	return operands_check(syntax, ret_common->operand_count, fault);
}
