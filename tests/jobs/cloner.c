/* SPDX-License-Identifier: Apache-2.0 */
/* The library's clones: argv[1] an image, argv[2] how many. Ends with 0 when all of them did. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "cairn.h"

enum { MOST = 16 };

int main(int argc, char **argv)
{
	const struct cairn_restore_options options = { .image = argc > 1 ? argv[1] : "", .signal_fd = -1 };
	const unsigned count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1;
	struct cairn_restore_result results[MOST];
	struct cairn_error error = { 0 };
	if (count > MOST)
		return 2;
	enum cairn_status status = cairn_restore_clones(&options, count, results, &error);
	for (size_t i = 0; i < error.count; i++)
		printf("fault: %s\n", error.lines[i]);
	cairn_error_free(&error);
	if (status != CAIRN_DONE)
		return (int)status;
	for (unsigned i = 0; i < count; i++)
		printf("clone %d\n", results[i].root > 0 && results[i].init > 0);
	puts("runs");
	fflush(stdout);
	int sum = 0, wait_status;
	for (unsigned i = 0; i < count; i++)
		sum += waitpid(results[i].init, &wait_status, 0) != results[i].init || wait_status;
	puts("ended");
	return sum;
}
