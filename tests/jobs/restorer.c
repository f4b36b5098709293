/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own restore: argv[1] an image, argv[2] its key file. Says how it went, and ends with the program's status. */
#include <stdio.h>
#include <sys/wait.h>

#include "cairn.h"

int main(int argc, char **argv)
{
	unsigned char key[CAIRN_KEY_SIZE];
	struct cairn_error error = { 0 };
	if (argc > 2 && cairn_key_read(argv[2], key, &error) != CAIRN_DONE) {
		printf("no key: %s\n", error.lines[0]);
		return 1;
	}
	const struct cairn_restore_options options = {
		.image = argc > 1 ? argv[1] : "", .key = argc > 2 ? key : NULL, .pids = CAIRN_PIDS_PRIVATE, .ignore_changed_files = true, .signal_fd = -1,
	};
	struct cairn_restore_result result;
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
