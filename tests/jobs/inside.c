/* SPDX-License-Identifier: Apache-2.0 */
/* A program that uses libcairn from inside; argv[1] says what it does. It writes what happens, a line each, to standard output, and
 * ends when there is a file "finish". */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cairn.h"

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static void until_there(const char *path)
{
	while (access(path, F_OK))
		pause_ms(2);
}

static void say_id(const char *what)
{
	unsigned char id[16];
	char text[33];
	cairn_restore_id(id);
	for (int i = 0; i < 16; i++)
		sprintf(text + 2 * i, "%02x", id[i]);
	printf("%s %u %s\n", what, cairn_generation(), text);
}

static int before(void *context)
{
	printf("before %s\n", (char *)context);
	return access("object", F_OK) == 0 ? 42 : 0;
}

static void after(void *context, int saved)
{
	printf("after %s %d\n", (char *)context, saved);
}

static void restored(void *context, unsigned generation)
{
	printf("restored %s %u\n", (char *)context, generation);
}

static void add_hooks(void)
{
	static char one[] = "one", two[] = "two", three[] = "three";
	static const struct cairn_hooks hooks[] = {
		{ before, after, restored, one },
		{ NULL, after, NULL, two },
		{ before, NULL, restored, three },
	};
	for (int i = 0; i < 3; i++)
		if (cairn_hooks_add(&hooks[i]) <= 0)
			printf("differs: hooks_add: %s\n", cairn_why());
	int extra = cairn_hooks_add(&hooks[0]);
	if (cairn_hooks_remove(extra) || cairn_hooks_remove(extra) == 0)
		printf("differs: hooks_remove\n");
}

/* What is there without any Cairn. */
static void alone(void)
{
	printf("job %d\n", cairn_is_job());
	int result = cairn_checkpoint_me();
	printf("me %d errno %d\n", result, errno);
	printf("why %s\n", cairn_why());
	int held = cairn_hold(), released = cairn_release();
	printf("hold %d release %d again %d\n", held, released, cairn_release());
	say_id("id");
}

static void ask(const char *number)
{
	errno = 0;
	int result = cairn_checkpoint_me();
	printf("me%s %d %s\n", number, result, result < 0 ? cairn_why() : "");
}

/* Critical sections, one after the other with hardly a gap: a state that is saved has none in the middle. */
static int middle;
static void *hold_often(void *unused)
{
	(void)unused;
	while (access("finish", F_OK)) {
		cairn_hold();
		__atomic_store_n(&middle, 1, __ATOMIC_SEQ_CST);
		unsigned generation = cairn_generation();
		pause_ms(3);
		if (generation != cairn_generation())
			printf("differs: saved in a critical section\n");
		__atomic_store_n(&middle, 0, __ATOMIC_SEQ_CST);
		cairn_release();
		pause_ms(1);
	}
	return NULL;
}

static void children(void)
{
	cairn_hold();
	pid_t child = fork();
	if (!child) {
		/* No hold and no hooks of its parent's. */
		if (cairn_release() == 0)
			printf("differs: a child has its parent's hold\n");
		cairn_hold();
		cairn_release();
		say_id("child");
		until_there("finish");
		say_id("child");
		_exit(0);
	}
	cairn_release();
	until_there("finish");
	waitpid(child, NULL, 0);
	/* One that is born after a restore goes on counting from its parent's, and has its id. */
	unsigned char own[16], its[16];
	cairn_restore_id(own);
	unsigned generation = cairn_generation();
	child = fork();
	if (!child) {
		cairn_restore_id(its);
		_exit(cairn_generation() != generation || memcmp(own, its, sizeof own) != 0);
	}
	int status = 0;
	waitpid(child, &status, 0);
	if (status || !generation)
		printf("differs: a child of generation %u has another\n", generation);
}

static void on_urgent(int signal)
{
	(void)signal;
	(void)!write(1, "urgent\n", 7);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "alone";
	pthread_t thread;
	setvbuf(stdout, NULL, _IOLBF, 4096);
	signal(SIGURG, on_urgent);
	if (!strcmp(what, "alone"))
		return alone(), 0;
	if (!strcmp(what, "hooks"))
		add_hooks();
	if (!strcmp(what, "hold"))
		pthread_create(&thread, NULL, hold_often, NULL);
	if (!strcmp(what, "children"))
		children();
	say_id("id");
	printf("ready %d\n", cairn_is_job());
	if (argc > 2) {
		ask("");
		say_id("id");
		raise(SIGURG); /* the program's own, after all that */
		until_there("again");
		ask(" again");
	}
	until_there("finish");
	say_id("id");
	if (!strcmp(what, "hold"))
		pthread_join(thread, NULL);
	printf("end\n");
	return 0;
}
