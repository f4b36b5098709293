/* SPDX-License-Identifier: Apache-2.0 */
#include "api/operations.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"

struct deadline operation_deadline(double timeout_s, int signal_fd)
{
	return (struct deadline){
		.at_ns = timeout_s > 0 ? clock_now_ns() + (uint64_t)(timeout_s * 1e9) : 0,
		.signal_fd = signal_fd,
	};
}

unsigned operation_threads(unsigned wanted)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	return wanted ? wanted : processors > 0 ? (unsigned)processors : 1;
}

static void add_line(struct cairn_error *error, const char *where, const char *text)
{
	error->lines = memory_resize(error->lines, (error->count + 1) * sizeof *error->lines);
	error->lines[error->count++] = where ? memory_format("%s: %s", where, text) : memory_string(text);
}

enum cairn_status operation_failed(const struct fault_list *refusals, const struct fault *fault, const char *where,
				   struct cairn_error *error)
{
	if (refusals && refusals->count) {
		for (size_t i = 0; i < refusals->count; i++)
			add_line(error, where, refusals->at[i].text);
		return (enum cairn_status)refusals->at[0].class;
	}
	add_line(error, where, fault->text);
	return (enum cairn_status)fault->class;
}

void cairn_error_free(struct cairn_error *error)
{
	if (!error)
		return;
	for (size_t i = 0; i < error->count; i++)
		free(error->lines[i]);
	free(error->lines);
	*error = (struct cairn_error){ 0 };
}
