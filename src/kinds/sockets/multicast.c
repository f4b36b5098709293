/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/multicast.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"

enum { SOURCES_MOST = 64, MEMBERSHIPS_MOST = 1024 };

struct filter {
	struct group_filter head;
	struct sockaddr_storage more[SOURCES_MOST];
};

struct ask {
	struct harvest *harvest;
	int own;
	VEC(Cairn__Membership *) found;
};

static int level_of(int domain)
{
	return domain == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
}

static socklen_t size_of(int domain)
{
	return domain == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* A group that the host is in, at one interface. */
struct host_group {
	int domain;
	uint32_t index;
	char interface[IF_NAMESIZE];
	struct sockaddr_storage group;
};

struct multicast_groups {
	VEC(struct host_group) at;
};

/* Is the socket in @group? */
static void ask_for(struct ask *ask, const struct host_group *group)
{
	struct filter filter = { .head = { .gf_interface = group->index, .gf_numsrc = SOURCES_MOST, .gf_group = group->group } };
	socklen_t size = sizeof filter;
	if (getsockopt(ask->own, level_of(group->domain), MCAST_MSFILTER, &filter, &size) < 0)
		return;
	struct arena *arena = &ask->harvest->arena;
	Cairn__Membership *one = HARVEST_MESSAGE(ask->harvest, Cairn__Membership, cairn__membership__init);
	one->group = (ProtobufCBinaryData){ size_of(group->domain), arena_copy(arena, &group->group, size_of(group->domain)) };
	one->interface = arena_string(arena, group->interface);
	one->include = filter.head.gf_fmode == MCAST_INCLUDE;
	one->sources = ARENA_ARRAY(arena, ProtobufCBinaryData, SOURCES_MOST);
	const struct sockaddr_storage *sources = filter.head.gf_slist;
	for (uint32_t i = 0; i < filter.head.gf_numsrc && i < SOURCES_MOST; i++)
		one->sources[one->n_sources++] =
			(ProtobufCBinaryData){ size_of(group->domain), arena_copy(arena, &sources[i], size_of(group->domain)) };
	*vec_add(&ask->found) = one;
}

/* The kernel itself is in the group of all hosts at every interface that is up; with that one user no socket is. */
static bool is_kernels_alone(const char *interface, unsigned users)
{
	struct ifreq request = { 0 };
	_close_ int fd = users == 1 ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
	return fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP);
}

static void add_group(struct multicast_groups *groups, unsigned index, const char *interface, const void *group, int domain)
{
	struct host_group *one = vec_add(&groups->at);
	one->domain = domain;
	one->index = index;
	snprintf(one->interface, sizeof one->interface, "%s", interface);
	memcpy(&one->group, group, size_of(domain));
}

/* /proc/net/igmp: a line per interface ("2\teth0      :     2      V3"), then an indented one per group, whose address is a number in hexadecimal as
 * the processor has it, with the number of its users. */
static void list_v4(struct multicast_groups *groups, char *text)
{
	char name[IF_NAMESIZE] = "";
	unsigned index = 0, address, users;
	char *saved = NULL;
	for (char *line = strtok_r(text, "\n", &saved); line; line = strtok_r(NULL, "\n", &saved)) {
		struct sockaddr_in group = { .sin_family = AF_INET };
		if (line[0] >= '0' && line[0] <= '9') {
			sscanf(line, "%u %15s", &index, name);
			name[strcspn(name, ":")] = 0;
		} else if (line[0] == '\t' && sscanf(line, "%x %u", &address, &users) == 2 && index) {
			group.sin_addr.s_addr = address;
			if (address != htonl(INADDR_ALLHOSTS_GROUP) || !is_kernels_alone(name, users))
				add_group(groups, index, name, &group, AF_INET);
		}
	}
}

/* /proc/net/igmp6: "2    eth0            ff020000000000000000000000000001     1 0000000C 0" */
static void list_v6(struct multicast_groups *groups, char *text)
{
	static const struct in6_addr all_nodes = { .s6_addr = { 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 } },
		interface_nodes = { .s6_addr = { 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 } };
	char *saved = NULL;
	for (char *line = strtok_r(text, "\n", &saved); line; line = strtok_r(NULL, "\n", &saved)) {
		struct sockaddr_in6 group = { .sin6_family = AF_INET6 };
		char name[IF_NAMESIZE], digits[33];
		unsigned index, users;
		if (sscanf(line, "%u %15s %32[0-9a-f] %u", &index, name, digits, &users) != 4 || strlen(digits) != 32)
			continue;
		for (size_t i = 0; i < 16; i++) {
			char pair[3] = { digits[2 * i], digits[2 * i + 1], 0 };
			group.sin6_addr.s6_addr[i] = (uint8_t)strtoul(pair, NULL, 16);
		}
		bool is_all = IN6_ARE_ADDR_EQUAL(&group.sin6_addr, &all_nodes) || IN6_ARE_ADDR_EQUAL(&group.sin6_addr, &interface_nodes);
		if (!is_all || !is_kernels_alone(name, users))
			add_group(groups, index, name, &group, AF_INET6);
	}
}

static void groups_end(void *thing)
{
	struct multicast_groups *groups = thing;
	vec_finish(&groups->at);
	free(groups);
}

/* All groups of the host, once; the tree stands still. */
static const struct multicast_groups *host_groups(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	struct text text = { 0 };
	if (scene->groups)
		return scene->groups;
	scene->groups = memory_new(sizeof *scene->groups);
	*vec_add(&harvest->at_end) = (struct scoped_end){ groups_end, scene->groups };
	if (proc_read_path("/proc/net/igmp6", &text, NULL) == 0)
		list_v6(scene->groups, text.at);
	if (proc_read_path("/proc/net/igmp", &text, NULL) == 0)
		list_v4(scene->groups, text.at);
	text_finish(&text);
	return scene->groups;
}

void multicast_capture(struct harvest *harvest, int domain, int own, Cairn__Membership ***ret_memberships, size_t *ret_count)
{
	struct ask ask = { harvest, own, { 0 } };
	const struct multicast_groups *groups = host_groups(harvest);
	/* A socket of IPv6 may be in groups of IPv4 as well. */
	for (size_t i = 0; i < groups->at.count; i++)
		if (groups->at.at[i].domain == AF_INET || domain == AF_INET6)
			ask_for(&ask, &groups->at.at[i]);
	*ret_memberships = arena_copy(&harvest->arena, ask.found.at, ask.found.count * sizeof *ask.found.at);
	*ret_count = ask.found.count;
	vec_finish(&ask.found);
}

static bool is_address(const ProtobufCBinaryData *bytes)
{
	struct inet_address address;
	return address_parse(bytes->data, bytes->len, &address);
}

int multicast_check(Cairn__Membership *const *memberships, size_t count, int domain, struct fault *fault)
{
	(void)domain;
	for (size_t i = 0; i < count; i++) {
		bool is_good = count <= MEMBERSHIPS_MOST && is_address(&memberships[i]->group) &&
			       memberships[i]->n_sources <= SOURCES_MOST && strlen(memberships[i]->interface) < IF_NAMESIZE;
		for (size_t s = 0; is_good && s < memberships[i]->n_sources; s++)
			is_good = is_address(&memberships[i]->sources[s]);
		if (!is_good)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "a multicast membership has impossible values");
	}
	return 0;
}

static int join_one(int fd, const Cairn__Membership *one, uint32_t index)
{
	int level = one->group.len == sizeof(struct sockaddr_in6) ? IPPROTO_IPV6 : IPPROTO_IP;
	struct group_req group = { .gr_interface = index };
	memcpy(&group.gr_group, one->group.data, one->group.len);
	if (!one->include && setsockopt(fd, level, MCAST_JOIN_GROUP, &group, sizeof group) < 0)
		return -errno;
	for (size_t i = 0; i < one->n_sources; i++) {
		struct group_source_req source = { .gsr_interface = index, .gsr_group = group.gr_group };
		memcpy(&source.gsr_source, one->sources[i].data, one->sources[i].len);
		if (setsockopt(fd, level, one->include ? MCAST_JOIN_SOURCE_GROUP : MCAST_BLOCK_SOURCE, &source, sizeof source) < 0)
			return -errno;
	}
	return 0;
}

int multicast_join(int domain, int fd, Cairn__Membership *const *memberships, size_t count, struct fault *fault)
{
	(void)domain;
	for (size_t i = 0; i < count; i++) {
		const Cairn__Membership *one = memberships[i];
		uint32_t index = if_nametoindex(one->interface);
		int rc = index ? join_one(fd, one, index) : -errno;
		struct inet_address group;
		char text[ADDRESS_TEXT];
		if (rc == 0)
			continue;
		address_parse(one->group.data, one->group.len, &group);
		return fault_set(fault, fault_class_of(-rc), -rc,
				 "multicast group %s at interface %s: %s; try on a host with an interface of that name",
				 address_host(&group, text), one->interface, strerror(-rc));
	}
	return 0;
}
