/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/key.h"
#include "job/control.h"
#include "job/handover.h"
#include "job/save.h"
#include "job/state.h"
#include "kernel/bulletin.h"
#include "kernel/procfs.h"

/* The fork's end is its exit status. */
__attribute__((noreturn)) static void save(struct init *init, const json_t *request, const struct control_fds *fds, int channel)
{
	struct save_job job = {
		.root = init->root, .name = init->name, .generation = init->generation, .image = spec_text(init, "image"), .key = init->key,
		.keep = (unsigned)spec_number(init, "keep"), .periodic = init->every_ns > 0, .own_network = spec_true(init, "network"),
		.tracking = &init->tracking, .pager = init->restored.pager, .outside = (enum cairn_outside)spec_number(init, "outside"),
		.tcp = (enum cairn_tcp)spec_number(init, "tcp"), .save_files = (enum cairn_save_files)spec_number(init, "save_files"),
		.lose_in_flight = spec_true(init, "lose_in_flight"),
	};
	prctl(PR_SET_NAME, "cairn-save");
	json_t *go = NULL;
	if (control_receive(channel, &go, NULL) <= 0)
		_exit(1);
	json_decref(go);
	operation_restored_finish(&init->restored); /* memory counts as loaded when nobody holds these any more */
	if (fds->key >= 0)
		job.key = key_take(fds->key);
	json_t *answer = fds->key >= 0 && !job.key ? control_refused(CAIRN_FAILED, "the key did not arrive; try again") :
						     save_answer(&job, request, fds->output);
	int rc = control_send(channel, answer, NULL);
	if (rc == 0 && strcmp(control_text(request, "op", ""), "check") != 0)
		handover_send(channel, &init->tracking, true);
	_exit(rc < 0);
}

static void start_saving(struct init *init, json_t *request, const struct control_fds *fds, int client)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		init_answer(init, client, control_refused(CAIRN_FAILED, strerror(errno)));
		return;
	}
	bool only_looks = !strcmp(control_text(request, "op", ""), "check");
	pid_t worker = fork();
	if (worker == 0) {
		close(ends[0]);
		save(init, request, fds, ends[1]);
	}
	/* Who makes a checkpoint goes on from the tracking, and begins when it has the only descriptors: if it closes one that registration is over. */
	if (!only_looks && worker > 0)
		tracking_finish(&init->tracking);
	json_t *go = json_pack("{s:s}", "op", "go");
	control_send(ends[0], go, NULL);
	json_decref(go);
	close(ends[1]);
	if (worker < 0) {
		close(ends[0]);
		init_answer(init, client, control_refused(CAIRN_FAILED, "no process for the checkpoint; try a higher limit of processes"));
		return;
	}
	init->saving = (struct saving){
		.worker = worker, .answer = ends[0], .client = client,
		.ends = json_integer_value(json_object_get(request, "after")) == CAIRN_KILL,
		.only_looks = only_looks,
	};
}

void saving_ask(struct init *init, const json_t *request, struct control_fds *fds, int client)
{
	if (init->waiting.count >= MOST_CLIENTS) {
		init_answer(init, client, control_refused(CAIRN_FAILED, "too many checkpoints of this job wait for their turn; try again later"));
		return;
	}
	*vec_add(&init->waiting) = (struct waiting){ json_deep_copy(request), *fds, client };
	*fds = CONTROL_NO_FDS;
}

static struct waiting take_waiting(struct init *init, size_t index)
{
	struct waiting waiting = init->waiting.at[index];
	init->waiting.count--;
	memmove(&init->waiting.at[index], &init->waiting.at[index + 1], (init->waiting.count - index) * sizeof waiting);
	return waiting;
}

static void waiting_finish(struct waiting *waiting)
{
	json_decref(waiting->request);
	control_fds_close(&waiting->fds);
}

/* In the order in which they came. Who stops a job in the middle of a periodic checkpoint is to have one of this moment. */
static void serve_waiting(struct init *init)
{
	while (init->waiting.count && !init->saving.worker && !init->ended) {
		struct waiting waiting = take_waiting(init, 0);
		start_saving(init, waiting.request, &waiting.fds, waiting.client);
		waiting_finish(&waiting);
	}
}

void saving_close(struct init *init)
{
	while (init->waiting.count) {
		struct waiting waiting = take_waiting(init, 0);
		init_answer(init, waiting.client, control_refused(CAIRN_VANISHED, "the job has ended meanwhile; try `cairn ps` for those that run"));
		waiting_finish(&waiting);
	}
}

void saving_forget(struct init *init, int client)
{
	/* Its end is safe at every moment. */
	if (init->saving.worker && init->saving.client == client) {
		kill(init->saving.worker, SIGKILL);
		init->saving.client = -1;
	}
	for (size_t i = init->waiting.count; i-- > 0;)
		if (init->waiting.at[i].client == client) {
			struct waiting waiting = take_waiting(init, i);
			waiting_finish(&waiting);
		}
}

static void saving_failed(struct init *init, const json_t *answer)
{
	const json_t *lines = json_object_get(answer, "lines");
	for (size_t i = 0; i < json_array_size(lines); i++)
		init_say(init, json_pack("{s:s, s:o}", "event", "message", "line",
				    json_sprintf("checkpoint of %s failed, it runs on: %s", init->name,
						 json_string_value(json_array_get(lines, i)))));
}

#define PUT(asker, address, field, value, size) bulletin_write((asker)->pid, (address), offsetof(struct bulletin, field), (value), (size))

/* A program of the job is told what became of the checkpoint that it asked for. */
static void tell_asker(const struct asker *asker, const json_t *answer)
{
	struct bulletin bulletin;
	uint64_t address = bulletin_find(asker->pid);
	if (!address || bulletin_read(asker->pid, address, &bulletin) < 0)
		return;
	const int32_t status = (int32_t)json_integer_value(json_object_get(answer, "status"));
	const char *line = json_string_value(json_array_get(json_object_get(answer, "lines"), 0));
	char text[BULLETIN_ANSWER] = "";
	snprintf(text, sizeof text, "%s", line ? line : "");
	PUT(asker, address, answer, text, sizeof text);
	PUT(asker, address, status, &status, sizeof status);
	PUT(asker, address, answered, &asker->number, sizeof asker->number);
	bulletin_wake(asker->pid, bulletin.waiter);
}

/* One after the other; all that have asked by now were waiting when the checkpoint began. */
static void serve_askers(struct init *init)
{
	if (!init->askers.count || init->saving.worker || init->ended)
		return;
	struct asker asker = init->askers.at[0];
	memmove(&init->askers.at[0], &init->askers.at[1], --init->askers.count * sizeof asker);
	json_t *request = json_pack("{s:i}", "after", CAIRN_RUN_ON);
	start_saving(init, request, &CONTROL_NO_FDS, -1);
	json_decref(request);
	init->saving.asker = asker;
	if (!init->saving.worker) {
		json_t *answer = control_refused(CAIRN_FAILED, "no process for the checkpoint; try a higher limit of processes");
		tell_asker(&asker, answer);
		json_decref(answer);
		init->saving = (struct saving){ 0 };
	}
}

/* Its answer, and the tracking that it leaves. */
bool saving_hear(struct init *init)
{
	struct saving *saving = &init->saving;
	for (;;) {
		json_t *other;
		int rc = handover_receive(saving->answer, MSG_DONTWAIT, &init->tracking, &other);
		if (rc <= 0)
			return rc == -EAGAIN;
		if (other && !saving->said)
			saving->said = other;
		else
			json_decref(other);
	}
}

/* What it said goes to who asked. */
void saving_done(struct init *init)
{
	saving_hear(init);
	struct saving saving = init->saving;
	close(saving.answer);
	init->saving = (struct saving){ 0 };
	json_t *answer = saving.said;
	if (!answer)
		answer = control_refused(CAIRN_FAILED, "the checkpoint was ended from outside");
	bool done = json_integer_value(json_object_get(answer, "status")) == CAIRN_DONE;
	if (done && !saving.only_looks) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		init->saves++;
		init->saved_at = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
		init->saved_last = saving.ends;
	} else if (!done && saving.client < 0 && !saving.asker.pid && !init->ended) { /* one that came to its end meanwhile needs none */
		saving_failed(init, answer);
	}
	if (saving.asker.pid)
		tell_asker(&saving.asker, answer);
	if (saving.client < 0 && done) {
		json_object_set_new(answer, "event", json_string("saved"));
		init_say(init, json_incref(answer));
	}
	init_answer(init, saving.client, answer);
}

static void save_in_time(struct init *init)
{
	uint64_t now = clock_now_ns();
	if (!init->every_ns || now < init->next_ns || init->saving.worker)
		return;
	init->next_ns = now + init->every_ns;
	json_t *request = json_pack("{s:i}", "after", spec_true(init, "exit_after") ? CAIRN_KILL : CAIRN_RUN_ON);
	start_saving(init, request, &CONTROL_NO_FDS, -1);
	json_decref(request);
}

void saving_go_on(struct init *init)
{
	serve_waiting(init);
	serve_askers(init);
	if (!init->ended)
		save_in_time(init);
}

int saving_wait_ms(const struct init *init)
{
	if (!init->every_ns || init->saving.worker)
		return -1;
	uint64_t now = clock_now_ns();
	return now >= init->next_ns ? 0 : (int)((init->next_ns - now) / 1000000 < 3600000 ? (init->next_ns - now) / 1000000 + 1 : 3600000);
}
