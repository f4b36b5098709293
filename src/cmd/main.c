/* SPDX-License-Identifier: Apache-2.0 */
/* cairn: which subcommand is meant. */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

struct command {
	const char *name;
	const char *operands;
	const char *summary;
	int (*run)(int argc, char **argv); /* NULL: not in this version */
};

static const struct command commands[] = {
	{ "run", "-- COMMAND [ARG...]", "start COMMAND as a job that can be checkpointed (not in this version)", NULL },
	{ "checkpoint", "TARGET", "save a process and its descendants into one file", cmd_checkpoint },
	{ "restore", "IMAGE", "bring them back", cmd_restore },
	{ "check", "[TARGET | IMAGE]", "say what can be done here, without doing it", cmd_check },
	{ "inspect", "IMAGE", "show what is inside an image", cmd_inspect },
	{ "verify", "IMAGE", "read every byte of an image and check it", cmd_verify },
	{ "ps", "", "list jobs and their checkpoints (not in this version)", NULL },
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage_print(FILE *out)
{
	fputs("cairn saves a running program into one file and brings it back later.\n\n", out);
	for (int i = 0; i < COMMANDS; i++) {
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

static int command_run(const struct command *command, int argc, char **argv)
{
	if (command->run)
		return command->run(argc, argv);
	struct fault fault;
	fault_set(&fault, FAULT_FAILED, 0, "%s: not in this version; try checkpoint and restore with a PID",
		  command->name);
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
			return command_run(&commands[i], argc - 1, argv + 1);
	return usage_fault(word);
}
