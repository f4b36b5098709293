/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The command line: tables of options that parse themselves and print their own --help, and the one
 * place where faults become lines and exit statuses. Only this folder prints to the user.
 *
 * A subcommand is a table, a struct that the table fills, and a function:
 *
 *	struct restore_options { bool detach; const char *pidfile; int pids; struct cmd_list maps; };
 *	static const struct cmd_option options[] = {
 *		{ "detach", 'd', CMD_FLAG, NULL, "return once it runs", offsetof(struct restore_options, detach) },
 *		{ "pidfile", 0, CMD_STRING, "FILE", "write the root PID to FILE", offsetof(...) },
 *		{ "pids", 0, CMD_CHOICE, "auto|same|private|any", "which PIDs it gets", offsetof(...) },
 *		{ NULL },
 *	};
 *	static const struct cmd_syntax syntax = { "restore", "IMAGE", "bring IMAGE back", options, 1, 1 };
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/fault.h"

/* What a row of a table writes, at its offset, when its option is given. Defaults are the caller's. */
enum cmd_type {
	CMD_FLAG,     /* bool: true */
	CMD_STRING,   /* const char *, into argv */
	CMD_LIST,     /* struct cmd_list: one element each time the option is given */
	CMD_CHOICE,   /* int: index in `argument`, which is "one|two|three" */
	CMD_NUMBER,   /* uint64_t */
	CMD_SIZE,     /* uint64_t bytes: 4096, 64k, 10M, 2G (powers of 1024) */
	CMD_DURATION, /* double seconds: 90, 1.5, 10m, 2h, 1d */
};

struct cmd_option {
	const char *name;     /* without the dashes; NULL ends the table */
	char letter;          /* 0: none */
	enum cmd_type type;
	const char *argument; /* as --help shows it; NULL for a flag */
	const char *help;     /* what it does, a phrase without a full stop */
	size_t offset;        /* of its value in the subcommand's struct */
	bool bare;            /* CMD_CHOICE only: "--name" alone means the first word, "--name=two" another */
};

struct cmd_list {
	const char **at; /* into argv; cmd_list_finish frees the array */
	size_t count, space;
};
void cmd_list_finish(struct cmd_list *list);

struct cmd_syntax {
	const char *name;     /* "restore" */
	const char *operands; /* as --help shows them: "[TARGET | IMAGE]" */
	const char *summary;  /* one line */
	const struct cmd_option *options; /* NULL: only the common ones */
	int least, most;      /* number of operands; most < 0: any */
	bool stops;           /* options end at the first operand: the rest is another program's command line */
};

enum cmd_progress { CMD_PROGRESS_AUTO, CMD_PROGRESS_NEVER, CMD_PROGRESS_ALWAYS };

/* The options that every subcommand has. */
struct cmd_common {
	const char *command; /* the syntax's name */
	int verbosity;       /* number of -v, already handed to log_to */
	bool quiet;
	bool json;
	double timeout_s;    /* of the whole operation; 0: none */
	int progress;        /* enum cmd_progress */
	char **operands;     /* into argv, ends with NULL */
	int operand_count;
};

/* Fills @options (the struct of the table's offsets; NULL without a table) and @ret_common, and sets the
 * log level. 0: go on; 1: --help or --version was printed, end with 0; negative: FAULT_USAGE in @fault.
 * @ret_common is usable by cmd_report in every case. argv[0] is the subcommand's name. */
int cmd_parse(const struct cmd_syntax *syntax, int argc, char **argv, void *options,
	      struct cmd_common *ret_common, struct fault *fault);

/* Prints "cairn: ..." on stderr (and an object {"event":"fault",...} on stdout with --json) and returns
 * the exit status of the fault's class. @common may be NULL. */
int cmd_report(const struct cmd_common *common, const struct fault *fault);
/* All of them, one line each; the status is that of the first. An empty list is status 1. */
int cmd_report_list(const struct cmd_common *common, const struct fault_list *list);

/* One JSON object as one line on stdout, flushed; takes over the reference to @object. */
void cmd_json(json_t *object);
/* A JSON string of any bytes: what is not UTF-8 (a path need not be) loses its bytes above 0x7f to '?'. */
json_t *cmd_text(const char *text);
/* Whether a bar is wanted on stderr. */
bool cmd_wants_progress(const struct cmd_common *common);
/* --timeout from now on; no signal_fd (-1). */
struct deadline cmd_deadline(const struct cmd_common *common);
/* stdout is complete: 0, or a fault (a full disk under `cairn inspect > file`). */
int cmd_flush(struct fault *fault);

/* Options that more than one subcommand has. */
#define DECRYPT_KEY_HELP "the image is encrypted, with the key in FILE"

/* The subcommands: argv[0] is their name; they print their own faults and return the exit status. */
int cmd_checkpoint(int argc, char **argv);
int cmd_init(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_verify(int argc, char **argv);
