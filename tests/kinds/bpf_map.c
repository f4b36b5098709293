/* SPDX-License-Identifier: Apache-2.0 */
/* probe: bpf maps, arrays and hashes, keep their entries, sizes, names and whether they are frozen, and are shared as they were */
#include "probe.h"

#include <linux/bpf.h>

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static int make(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t entries, uint32_t flags, const char *name)
{
	union bpf_attr create = { .map_type = type, .key_size = key_size, .value_size = value_size, .max_entries = entries, .map_flags = flags };
	strcpy(create.map_name, name);
	int fd = bpf(BPF_MAP_CREATE, &create);
	if (fd < 0 && (errno == EPERM || errno == ENOSYS))
		probe_skip("bpf(2): %s", strerror(errno));
	return PROBE(fd);
}

static int put(int fd, const void *key, const void *value)
{
	union bpf_attr update = { .map_fd = (uint32_t)fd, .key = (uintptr_t)key, .value = (uintptr_t)value };
	return bpf(BPF_MAP_UPDATE_ELEM, &update);
}

static int get(int fd, const void *key, void *ret_value)
{
	union bpf_attr look = { .map_fd = (uint32_t)fd, .key = (uintptr_t)key, .value = (uintptr_t)ret_value };
	return bpf(BPF_MAP_LOOKUP_ELEM, &look);
}

int main(void)
{
	enum { ENTRIES = 1000 };
	int array = make(BPF_MAP_TYPE_ARRAY, 4, 12, 77, 0, "odd_array"), hash = make(BPF_MAP_TYPE_HASH, 5, 3, ENTRIES, BPF_F_NO_PREALLOC, "");
	int frozen = make(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_RDONLY_PROG, "frozen"), copy = PROBE(dup(array));
	for (uint32_t i = 0; i < 77; i += 7)
		PROBE(put(array, &i, (char[12]){ (char)i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, (char)~i }));
	for (int i = 0; i < ENTRIES; i++)
		PROBE(put(hash, (char[5]){ (char)i, (char)(i >> 8), 'k' }, (char[3]){ 0, (char)(i * 3), 'v' }));
	uint32_t zero = 0;
	PROBE(put(frozen, &zero, (uint64_t[1]){ 77 }));
	union bpf_attr freeze = { .map_fd = (uint32_t)frozen };
	PROBE(bpf(BPF_MAP_FREEZE, &freeze));

	probe_save();

	char value[12];
	for (uint32_t i = 0; i < 77; i++) {
		PROBE_SAME(get(array, &i, value), 0, "an element of the array");
		char wanted[12] = { (char)i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, (char)~i }, none[12] = { 0 };
		probe_same_bytes(value, i % 7 ? none : wanted, 12, "an element of the array");
	}
	for (int i = 0; i < ENTRIES; i++) {
		PROBE_SAME(get(hash, (char[5]){ (char)i, (char)(i >> 8), 'k' }, value), 0, "an entry of the hash");
		probe_same_bytes(value, (char[3]){ 0, (char)(i * 3), 'v' }, 3, "an entry of the hash");
	}
	PROBE_SAME(put(hash, (char[5]){ 'n', 'e', 'w' }, value), -1, "one entry more than the hash may have");
	PROBE_SAME(errno, E2BIG, "its error");
	uint64_t kept = 0;
	PROBE_SAME(get(frozen, &zero, &kept), 0, "the frozen one's value");
	PROBE_SAME(kept, 77, "the frozen one's value");
	PROBE_SAME(put(frozen, &zero, &kept), -1, "a write to the frozen one");
	PROBE_SAME(errno, EPERM, "its error");
	struct bpf_map_info info = { 0 };
	union bpf_attr ask = { .info = { .bpf_fd = (uint32_t)array, .info_len = sizeof info, .info = (uintptr_t)&info } };
	PROBE_SAME(bpf(BPF_OBJ_GET_INFO_BY_FD, &ask), 0, "info");
	PROBE_TRUE(!strcmp(info.name, "odd_array"), "its name");
	PROBE_SAME(info.max_entries, 77, "its size");
	PROBE_SAME(put(array, &zero, "hello world"), 0, "a write");
	PROBE_SAME(get(copy, &zero, value), 0, "a look through the copy");
	PROBE_TRUE(!strcmp(value, "hello world"), "both are one map");
	return probe_end();
}
