/* SPDX-License-Identifier: Apache-2.0 */
/* The process that clones are born of (cairn restore --clones). It loads what they have in common, then forks the init of each into a PID namespace of its
 * own: a child of the Cairn outside, which talks to it as to every other. When all of them run it is not needed any more: what they share they share. */
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "api/key.h"
#include "job/control.h"
#include "job/job.h"
#include "job/state.h"

static json_t *load(struct init *init)
{
	struct start_options options;
	struct cairn_error error = { 0 };
	uint64_t pages = 0;
	start_options(init, &options);
	enum cairn_status status = operation_template_load(&options.restore, &init->template, &pages, &error);
	start_options_finish(&options);
	if (status == CAIRN_DONE)
		return json_pack("{s:i, s:I}", "status", CAIRN_DONE, "pages", (json_int_t)pages);
	json_t *answer = control_failed(status, &error);
	cairn_error_free(&error);
	return answer;
}

/* true: this is the clone. */
static bool make_clone(const struct init *init, json_t **ret_answer)
{
	const struct namespace_wish wish = job_wish(init->spec);
	struct fault fault;
	pid_t pid = 0;
	int rc = namespace_fork(&wish, &pid, &fault);
	*ret_answer = rc > 0 ? NULL : rc < 0 ? control_refused((enum cairn_status)fault.class, fault.text) :
					       json_pack("{s:i, s:i}", "status", CAIRN_DONE, "pid", (int)pid);
	return rc > 0;
}

static json_t *use(const struct init *init)
{
	struct fault fault;
	int rc = operation_template_use(init->template, &fault);
	return rc < 0 ? control_refused((enum cairn_status)fault.class, fault.text) : json_pack("{s:i}", "status", CAIRN_DONE);
}

int template_run(struct init *init)
{
	prctl(PR_SET_NAME, "cairn-template");
	init_say(init, load(init));
	json_t *request;
	key_free(init->key);
	for (struct control_fds fds; init->template && control_receive(init->channel, &request, &fds) > 0;) {
		bool wants_clone = !strcmp(control_text(request, "op", ""), "clone");
		json_t *answer = NULL;
		json_decref(request);
		if (wants_clone && make_clone(init, &answer)) {
			close(init->channel);
			operation_template_inherit(init->template);
			return init_of_clone(fds.channel, init->template);
		}
		control_fds_close(&fds);
		init_say(init, wants_clone ? answer : use(init));
	}
	bool done = init->template != NULL;
	operation_template_free(init->template);
	return done ? 0 : 125;
}
