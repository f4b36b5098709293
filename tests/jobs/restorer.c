/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own restore: argv[1] an image. Says how it went, and ends with the program's status. */
#include <stdio.h>
#include <sys/wait.h>

#include "cairn.h"

int main(int argc, char **argv)
{
	const struct cairn_restore_options options = {
		.image = argc > 1 ? argv[1] : "", .pids = CAIRN_PIDS_PRIVATE, .ignore_changed_files = true, .signal_fd = -1,
	};
	struct cairn_restore_result result;
	struct cairn_error error = { 0 };
	int wait_status = 0;
	enum cairn_status status = cairn_restore(&options, &result, &error);
	for (size_t i = 0; i < error.count; i++)
		printf("fault: %s\n", error.lines[i]);
	cairn_error_free(&error);
	if (status != CAIRN_DONE)
		return (int)status;
	printf("restored %d\n", result.init != 0);
	fflush(stdout);
	waitpid(result.init, &wait_status, 0);
	return WEXITSTATUS(wait_status);
}
