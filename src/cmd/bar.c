/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/bar.h"

#include <stdio.h>
#include <unistd.h>

#define PATIENCE_NS UINT64_C(300000000)
#define STEP_NS UINT64_C(100000000)

struct bar bar_begin(const struct cmd_common *common, const char *what)
{
	uint64_t now = clock_now_ns();
	return (struct bar){ .what = what, .wanted = cmd_wants_progress(common) && !common->quiet,
			     .at_once = common->progress == CMD_PROGRESS_ALWAYS, .begin_ns = now, .last_ns = now };
}

void bar_show(void *context, uint64_t done, uint64_t total)
{
	enum { WIDTH = 40 };
	struct bar *bar = context;
	uint64_t now = clock_now_ns();
	bool is_time = bar->drawn ? now - bar->last_ns >= STEP_NS : bar->at_once || now - bar->begin_ns >= PATIENCE_NS;
	if (!bar->wanted || !total || !is_time)
		return;
	unsigned part = (unsigned)(done * WIDTH / total);
	char cells[WIDTH + 1] = { 0 };
	for (unsigned i = 0; i < WIDTH; i++)
		cells[i] = i < part ? '#' : '-';
	fprintf(stderr, "\r%s [%s] %3u %%  %llu of %llu MiB\033[K", bar->what, cells, (unsigned)(done * 100 / total),
		(unsigned long long)(done >> 20), (unsigned long long)(total >> 20));
	fflush(stderr);
	bar->last_ns = now;
	bar->drawn = true;
}

void bar_end(struct bar *bar)
{
	if (bar->drawn)
		fputs("\r\033[K", stderr);
	bar->drawn = false;
}
