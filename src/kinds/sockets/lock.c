/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping the packets of connections that stand still, by nftables through the nft program. During a save the table has `flags owner`: it
 * belongs to an nft that waits on a pipe from Cairn, and is gone with it, however Cairn ends. What stays after --kill or --stop is a table
 * named by the image, cairn-ID, so that the host does not answer the peers in the program's absence. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/lock.h"

extern char **environ;

struct nft {
	pid_t pid;
	int input, output;
};

/* One transaction as text; grows. */
struct script {
	char *at;
	size_t size;
	FILE *stream;
};

static void add_elements(FILE *stream, const char *table, const char *set, const struct tcp_pair *pairs, size_t count, int family,
			 bool incoming)
{
	bool any = false;
	for (size_t i = 0; i < count; i++) {
		const struct inet_address *from = incoming ? &pairs[i].remote : &pairs[i].local;
		const struct inet_address *to = incoming ? &pairs[i].local : &pairs[i].remote;
		char a[ADDRESS_TEXT], b[ADDRESS_TEXT];
		if (from->family != family)
			continue;
		if (!any)
			fprintf(stream, "add element inet %s %s { ", table, set);
		fprintf(stream, "%s%s . %u . %s . %u", any ? ", " : "", address_host(from, a), from->port, address_host(to, b),
			to->port);
		any = true;
	}
	if (any)
		fprintf(stream, " }\n");
}

static void add_direction(FILE *stream, const char *table, const char *hook, const struct tcp_pair *pairs, size_t count,
			  bool incoming)
{
	static const struct {
		int family;
		const char *type, *field, *name;
	} families[] = { { AF_INET, "ipv4_addr", "ip", "4" }, { AF_INET6, "ipv6_addr", "ip6", "6" } };
	fprintf(stream, "add chain inet %s %s { type filter hook %s priority -400; }\n", table, hook, hook);
	for (size_t i = 0; i < 2; i++) {
		char set[32];
		snprintf(set, sizeof set, "%s%s", hook, families[i].name);
		fprintf(stream, "add set inet %s %s { type %s . inet_service . %s . inet_service; }\n", table, set, families[i].type,
			families[i].type);
		add_elements(stream, table, set, pairs, count, families[i].family, incoming);
		fprintf(stream, "add rule inet %s %s %s saddr . tcp sport . %s daddr . tcp dport @%s drop\n", table, hook,
			families[i].field, families[i].field, set);
	}
}

static void write_script(struct script *script, const char *table, bool is_owned, const struct tcp_pair *pairs, size_t count)
{
	script->stream = open_memstream(&script->at, &script->size);
	fprintf(script->stream, "add table inet %s%s\n", table, is_owned ? " { flags owner; }" : "");
	add_direction(script->stream, table, "input", pairs, count, true);
	add_direction(script->stream, table, "output", pairs, count, false);
	fclose(script->stream);
}

/* ---- the program ---- */

static int nft_start(char *const *words, struct nft *ret_nft, struct fault *fault)
{
	int input[2], output[2];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	if (pipe2(input, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	/* A group of its own: what ends Cairn from the terminal ends it through the pipe. */
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	posix_spawn_file_actions_adddup2(&actions, input[0], 0);
	posix_spawn_file_actions_adddup2(&actions, output[1], 1);
	posix_spawn_file_actions_adddup2(&actions, output[1], 2);
	int error = posix_spawnp(&ret_nft->pid, "nft", &actions, &attributes, words, environ);
	if (error == ENOENT)
		error = posix_spawn(&ret_nft->pid, "/usr/sbin/nft", &actions, &attributes, words, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	close(input[0]);
	close(output[1]);
	ret_nft->input = input[1];
	ret_nft->output = output[0];
	if (!error)
		return 0;
	close(input[1]);
	close(output[0]);
	return fault_set(fault, FAULT_FAILED, error, "the program nft, which keeps TCP connections quiet: %s; try to install "
			 "nftables, or --tcp close", strerror(error));
}

static int nft_end(struct nft *nft)
{
	int status = -1;
	if (nft->input >= 0)
		close(nft->input);
	if (nft->output >= 0)
		close(nft->output);
	while (waitpid(nft->pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static int complain(char *text, struct fault *fault)
{
	for (char *c = text; *c; c++)
		if (*c == '\n')
			*c = ' ';
	return fault_set(fault, strstr(text, "not permitted") ? FAULT_PERMISSION : FAULT_FAILED, EPERM,
			 "nft, which keeps TCP connections quiet: %.300s; try as root, or --tcp close", text[0] ? text : "ended");
}

/* What it says until @word comes, or its end. */
static int nft_listen(const struct nft *nft, const char *word, struct fault *fault)
{
	char text[4096] = "";
	size_t size = 0;
	const uint64_t until = clock_now_ns() + UINT64_C(10000000000);
	while (size < sizeof text - 1 && clock_now_ns() < until) {
		struct pollfd pollfd = { .fd = nft->output, .events = POLLIN };
		if (poll(&pollfd, 1, 1000) <= 0)
			continue;
		ssize_t got = read(nft->output, text + size, sizeof text - 1 - size);
		if (got <= 0)
			break;
		size += (size_t)got;
		text[size] = 0;
		char *line_end = strchr(text, '\n');
		if (strstr(text, word))
			return 0;
		if (line_end && strstr(text, "Error"))
			break;
	}
	return complain(text, fault);
}

static void owner_end(void *thing)
{
	nft_end(thing);
	free(thing);
}

int lock_hold(struct harvest *harvest, const struct tcp_pair *pairs, size_t count, struct fault *fault)
{
	char table[32], *words[] = { (char[]){ "nft" }, (char[]){ "-i" }, NULL };
	struct script script = { 0 };
	struct nft *nft = memory_new(sizeof *nft);
	int rc = nft_start(words, nft, fault);
	if (rc < 0) {
		free(nft);
		return rc;
	}
	*vec_add(&harvest->at_end) = (struct scoped_end){ owner_end, nft };
	snprintf(table, sizeof table, "cairn-save-%d", getpid());
	write_script(&script, table, true, pairs, count);
	uint64_t begin = clock_now_ns();
	if (fd_write_full(nft->input, script.at, script.size) < 0 || dprintf(nft->input, "list tables\n") < 0)
		rc = fault_set(fault, FAULT_FAILED, errno, "nft: %s", strerror(errno));
	if (rc == 0)
		rc = nft_listen(nft, table, fault);
	free(script.at);
	if (rc == 0)
		log_info("checkpoint: packets of %zu connections are dropped, %.2f ms", count, (double)(clock_now_ns() - begin) / 1e6);
	return rc;
}

/* Runs it to its end; what it says is in @said. */
static int nft_run(char *const *words, const char *input, size_t size, char *said, size_t space, struct fault *fault)
{
	struct nft nft;
	size_t used = 0;
	ssize_t got;
	int rc = nft_start(words, &nft, fault);
	if (rc < 0)
		return rc;
	fd_write_full(nft.input, input, size);
	close(nft.input);
	nft.input = -1;
	while (used < space - 1 && (got = read(nft.output, said + used, space - 1 - used)) > 0)
		used += (size_t)got;
	said[used] = 0;
	return nft_end(&nft) == 0 ? 0 : complain(said, fault);
}

static int run_script(const char *text, size_t size, struct fault *fault)
{
	char *words[] = { (char[]){ "nft" }, (char[]){ "-f" }, (char[]){ "-" }, NULL };
	char said[1024];
	return nft_run(words, text, size, said, sizeof said, fault);
}

int lock_keep(const char *image_id, const struct tcp_pair *pairs, size_t count, struct fault *fault)
{
	char table[64];
	struct script script = { 0 };
	snprintf(table, sizeof table, "cairn-%s", image_id);
	write_script(&script, table, false, pairs, count);
	int rc = run_script(script.at, script.size, fault);
	free(script.at);
	return rc;
}

int lock_release(const char *image_id, struct fault *fault)
{
	char text[128];
	/* `add` first: deleting what is not there is an error. */
	int size = snprintf(text, sizeof text, "add table inet cairn-%s\ndelete table inet cairn-%s\n", image_id, image_id);
	return run_script(text, (size_t)size, fault);
}

int lock_find(struct lock_list *ret_list, struct fault *fault)
{
	enum { SPACE = 1 << 18, DIGITS = 32 };
	static const char head[] = "table inet cairn-";
	char *words[] = { (char[]){ "nft" }, (char[]){ "list" }, (char[]){ "tables" }, NULL };
	_free_ char *said = memory_new(SPACE);
	*ret_list = (struct lock_list){ 0 };
	int rc = nft_run(words, "", 0, said, SPACE, fault);
	for (char *at = said; rc == 0 && (at = strstr(at, head)); at++) {
		const char *id = at + sizeof head - 1;
		if (strspn(id, "0123456789abcdef") == DIGITS)
			*vec_add(&ret_list->image_ids) = memory_format("%.*s", DIGITS, id);
	}
	return rc;
}

void lock_list_finish(struct lock_list *list)
{
	for (size_t i = 0; i < list->image_ids.count; i++)
		free(list->image_ids.at[i]);
	vec_finish(&list->image_ids);
}
