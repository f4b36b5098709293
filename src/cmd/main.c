/* SPDX-License-Identifier: Apache-2.0 */
/* cairn: which subcommand is meant. */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

struct command {
	const char *name;
	const char *operands;
	const char *summary; /* NULL: not for users */
	int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
	{ "run", "-- COMMAND [ARG...]", "start COMMAND as a job that can be checkpointed", cmd_run },
	{ "checkpoint", "TARGET", "save a process and its descendants into one file", cmd_checkpoint },
	{ "restore", "IMAGE", "bring them back", cmd_restore },
	{ "check", "[TARGET | IMAGE]", "say what can be done here, without doing it", cmd_check },
	{ "inspect", "IMAGE", "show what is inside an image", cmd_inspect },
	{ "verify", "IMAGE", "read every byte of an image and check it", cmd_verify },
	{ "merge", "IMAGE", "fold an incremental image and its ancestors into one file", cmd_merge },
	{ "ps", "", "list jobs and their checkpoints", cmd_ps },
	{ "kill", "NAME", "end a job", cmd_kill },
	{ "init", NULL, NULL, cmd_init } /* internal: PID 1 of a job */,
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage_print(FILE *out)
{
	fputs("cairn saves a running program into one file and brings it back later.\n\n", out);
	for (int i = 0; i < COMMANDS && commands[i].summary; i++) {
		char head[64];
		snprintf(head, sizeof head, "cairn %s %s", commands[i].name, commands[i].operands);
		fprintf(out, "  %-34s %s\n", head, commands[i].summary);
	}
	fputs("\nOptions of each: cairn COMMAND --help\n", out);
}

static int usage_fault(const char *word)
{
	struct fault fault;
	fault_set(&fault, FAULT_USAGE, 0, "'%s' is no command of Cairn; try cairn --help", word);
	return cmd_report(NULL, &fault);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage_print(stderr);
		return FAULT_USAGE;
	}
	const char *word = argv[1];
	if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help")) {
		usage_print(stdout);
		return 0;
	}
	if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
		puts("cairn " CAIRN_VERSION);
		return 0;
	}
	for (int i = 0; i < COMMANDS; i++)
		if (!strcmp(word, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return usage_fault(word);
}
