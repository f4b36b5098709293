/* SPDX-License-Identifier: Apache-2.0 */
/* variant user: an ordinary user's ids and groups, real, effective, saved and of the file system, are kept */
/* variant capabilities: capability sets, securebits and no_new_privs are kept */
/* variant threads: two threads with different ids and capabilities keep them */
#include "probe.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/stat.h>

/* What /proc says of this thread, which is all of it. */
static void credentials_text(char *text, size_t size)
{
	static const char *const keys[] = { "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:",
					    "NoNewPrivs:" };
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%ld/status", syscall(SYS_gettid));
	FILE *stream = fopen(path, "re");
	char line[1024];
	size_t used = 0;
	text[0] = 0;
	while (stream && fgets(line, sizeof line, stream))
		for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				used += (size_t)snprintf(text + used, size - used, "%s", line);
	if (stream)
		fclose(stream);
	snprintf(text + used, size - used, "securebits %d keepcaps %d", prctl(PR_GET_SECUREBITS), prctl(PR_GET_KEEPCAPS));
}

static void same_text(const char *before, const char *who)
{
	char after[4096];
	credentials_text(after, sizeof after);
	if (strcmp(before, after))
		probe_differs("credentials of %s are:\n%s\nwere:\n%s", who, after, before);
}

static void capabilities_set(uint64_t permitted, uint64_t effective, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	for (int i = 0; i < 2; i++) {
		data[i].permitted = (uint32_t)(permitted >> (32 * i));
		data[i].effective = (uint32_t)(effective >> (32 * i));
		data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
	}
	PROBE(syscall(SYS_capset, &header, data));
}

static void user(void)
{
	gid_t groups[] = { 7, 12345, 33 };
	PROBE(setgroups(3, groups));
	PROBE(setresgid(1201, 1202, 1203));
	PROBE(setresuid(1101, 1102, 1103));
	char before[4096];
	credentials_text(before, sizeof before);
	probe_save();
	same_text(before, "the process");
}

static void capabilities(void)
{
	PROBE(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE));
	PROBE(prctl(PR_CAPBSET_DROP, CAP_WAKE_ALARM));
	PROBE(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS | SECBIT_NOROOT_LOCKED));
	uint64_t some = 1u << CAP_NET_BIND_SERVICE | 1u << CAP_CHOWN | 1u << CAP_SYS_NICE;
	capabilities_set(some, 1u << CAP_CHOWN, 1u << CAP_NET_BIND_SERVICE);
	PROBE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	char before[4096];
	credentials_text(before, sizeof before);
	probe_save();
	same_text(before, "the process");
}

static pthread_barrier_t barrier;

static void *other(void *unused)
{
	(void)unused;
	PROBE(syscall(SYS_setresgid, 501, 502, 503));
	PROBE(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP));
	PROBE(syscall(SYS_setresuid, 601, 602, 603));
	capabilities_set(1u << CAP_KILL | 1u << CAP_SETUID, 1u << CAP_KILL, 0);
	char before[4096];
	credentials_text(before, sizeof before);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	same_text(before, "the second thread");
	return NULL;
}

static void threads(void)
{
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_t thread;
	PROBE_SAME(pthread_create(&thread, NULL, other, NULL), 0, "set-up");
	pthread_barrier_wait(&barrier);
	char before[4096];
	credentials_text(before, sizeof before);
	probe_save();
	same_text(before, "the first thread");
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	if (getuid())
		probe_skip("needs root");
	const char *variant = argc > 1 ? argv[1] : "user";
	/* The harness's directory is root's: the word to go on must be seen by others too. */
	PROBE(chmod("..", 0755));
	if (!strcmp(variant, "user"))
		user();
	else if (!strcmp(variant, "capabilities"))
		capabilities();
	else
		threads();
	return probe_end();
}
