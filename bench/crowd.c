/* SPDX-License-Identifier: Apache-2.0 */
/* Many small things for the benchmark: crowd processes N | threads N | mappings N | descriptors N | connections N |
 * small. Says ready, waits to be killed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static void *wait_for_ever(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&barrier);
	for (;;)
		pause();
	return NULL;
}

/* Neighbours differ in their protection, and every second one has a page. */
static int make_mappings(int count)
{
	char *area = mmap(NULL, (size_t)count * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return 1;
	for (int i = 0; i < count; i += 2) {
		area[(size_t)i * 4096] = 1;
		if (mprotect(area + (size_t)i * 4096, 4096, PROT_READ))
			return 1;
	}
	return 0;
}

static void allow_descriptors(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int make_descriptors(int count)
{
	allow_descriptors();
	for (int i = 0; i < count; i++)
		if (open("/dev/null", O_RDONLY) < 0)
			return 1;
	return 0;
}

/* @count sockets, every two of which are the ends of a TCP connection. */
static int make_connections(int count)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	allow_descriptors();
	if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 8) ||
	    getsockname(listener, (struct sockaddr *)&address, &size))
		return 1;
	for (int i = 0; i < count; i += 2) {
		int end = socket(AF_INET, SOCK_STREAM, 0);
		if (end < 0 || connect(end, (struct sockaddr *)&address, size) || accept(listener, NULL, NULL) < 0)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int count = argc > 2 ? atoi(argv[2]) : 0;
	if (argc > 1 && !strcmp(argv[1], "processes")) {
		for (int i = 1; i < count; i++)
			if (fork() == 0)
				for (;;)
					pause();
	} else if (argc > 1 && !strcmp(argv[1], "threads")) {
		pthread_attr_t attributes;
		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 65536);
		pthread_barrier_init(&barrier, NULL, (unsigned)count);
		for (int i = 1; i < count; i++) {
			pthread_t thread;
			if (pthread_create(&thread, &attributes, wait_for_ever, NULL))
				return 1;
		}
		if (count > 1)
			pthread_barrier_wait(&barrier);
	} else if (argc > 1 && !strcmp(argv[1], "mappings")) {
		if (make_mappings(count))
			return 1;
	} else if (argc > 1 && !strcmp(argv[1], "connections")) {
		if (make_connections(count))
			return 1;
	} else if (argc > 1 && !strcmp(argv[1], "descriptors")) {
		if (make_descriptors(count))
			return 1;
	} else {
		static char memory[2 << 20];
		memset(memory, 1, sizeof memory);
	}
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
