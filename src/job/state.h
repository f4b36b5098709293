/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What PID 1 of a job knows, for the files that it consists of: start.c begins, saving.c makes the job's checkpoints, init.c hears who asks. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "api/operations.h"
#include "base/memory.h"
#include "job/control.h"
#include "job/terminal.h"

enum { MOST_CLIENTS = 16 };

/* A program of the job that asked for a checkpoint (cairn_checkpoint_me). */
struct asker {
	pid_t pid; /* 0: none */
	uint32_t number;
};

/* A checkpoint that is being made. */
struct saving {
	pid_t worker;     /* 0: none */
	int answer;       /* socket from it */
	json_t *said;     /* its answer, NULL: not yet */
	bool silent;      /* it will say no more */
	int client;       /* who waits for it: a client, the channel, or -1: it was time for one, or a program asked */
	bool ends;        /* the job ends with it */
	bool only_looks;  /* it is no checkpoint but a check */
	struct asker asker;
};

/* A checkpoint or a check that has to wait for the one before it. */
struct waiting {
	json_t *request;
	struct control_fds fds; /* what came with it */
	int client;
};

struct init {
	json_t *spec;
	uint8_t *key;     /* of its image and its checkpoints (api/key.h), NULL: they are not encrypted */
	int channel;      /* -1: the Cairn that started the job is gone */
	int signals, listener;
	char *name, *socket_path, *command;
	struct terminal terminal;
	pid_t root;
	int root_status;
	bool ended, killed, saved_last;
	uint32_t generation;
	uint64_t saves, every_ns, next_ns, started_ns;
	double saved_at;  /* CLOCK_REALTIME, seconds; 0: never */
	struct saving saving;
	struct operation_template *template; /* it is a clone of this; NULL: it is none */
	struct operation_restored restored; /* its pager, until all memory is loaded */
	struct tracking tracking; /* what the last checkpoint left for the next one */
	VEC(int) clients;
	VEC(struct waiting) waiting;
	VEC(struct asker) askers; /* whose turn is still to come */
};

/* Of the spec (init.h). NULL, false or 0: not said. */
const char *spec_text(const struct init *init, const char *key);
bool spec_true(const struct init *init, const char *key);
uint64_t spec_number(const struct init *init, const char *key);
/* To the Cairn that started the job, if it is there. Takes the reference to @message. */
void init_say(struct init *init, json_t *message);
/* @client: -1 for nobody. Takes the reference to @answer. */
void init_answer(struct init *init, int client, json_t *answer);

/* What the spec says of a restore; `restore` points into the others and the spec. */
struct start_options {
	struct cairn_restore_options restore;
	const char **addresses;
	struct cairn_path_map *maps;
	struct cairn_redirect *redirects;
};
void start_options(struct init *init, struct start_options *ret_options);
void start_options_finish(struct start_options *options);

/* template.c. What clones are made from, until the channel is closed; the process's exit status. Returns in each clone as well, with that one's. */
int template_run(struct init *init);
/* init.c. A clone's init, from its spec on. */
int init_of_clone(int channel, struct operation_template *template);

/* start.c. Starts @command or, without one, restores the spec's image. The answer's status says whether that was done. */
json_t *start_tree(struct init *init, char *const command[]);
/* The job is not to be found any more. */
void start_undo_name(const struct init *init);

/* saving.c. Puts a checkpoint or a check in line; borrows @request, and takes @fds. */
void saving_ask(struct init *init, const json_t *request, struct control_fds *fds, int client);
/* Begins what has its turn: what stands in line, what programs of the job ask for, what it is time for. */
void saving_go_on(struct init *init);
/* Milliseconds until saving_go_on has to be called again, -1: not by time. */
int saving_wait_ms(const struct init *init);
/* What the worker has said by now. false: there will be no more. */
bool saving_hear(struct init *init);
/* The worker has ended. */
void saving_done(struct init *init);
/* The client is gone, and what it asked for is wanted by nobody. */
void saving_forget(struct init *init, int client);
/* The job has ended: who stands in line is told. */
void saving_close(struct init *init);
