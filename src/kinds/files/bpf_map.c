/* SPDX-License-Identifier: Apache-2.0 */
/* bpf(2) maps of the types array and hash: type, sizes, flags and whether it is frozen from fdinfo, the name from bpf(2), the entries by walking the keys.
 * Put back with bpf(2), under another id: ids are the kernel's. Each description of one map is one again, where BPF_MAP_GET_FD_BY_ID is permitted
 * (CAP_SYS_ADMIN).
 *
 * Refused: maps of other types (per processor, of maps, of sockets, with eviction by use ...), with type information (BTF) or kernel-written parts; a map
 * that a loaded program uses, as that one would go on with the old map; programs, links and BTF objects themselves, which are attached to the kernel and
 * not to the process. Not to be seen is whether a map is pinned in a bpffs or open elsewhere: the restored one is the tree's own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "files.pb-c.h"
#include "kinds/files/open_file.h"
#include "kinds/table.h"

enum {
	CARRIED_FLAGS = BPF_F_NO_PREALLOC | BPF_F_ZERO_SEED | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG | BPF_F_MMAPABLE,
	MOST_BYTES = 32 << 20, /* of keys and values */
	MOST_KEY = 512,        /* kernel/bpf/hashtab.c MAX_BPF_STACK */
};

static long bpf(int command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof *attributes) < 0 ? -errno : 0;
}

static int bpf_fd(int command, union bpf_attr *attributes)
{
	int fd = (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
	return fd < 0 ? -errno : fd;
}

static bool probe(const struct frozen_file *file)
{
	return !strncmp(file->link, "anon_inode:bpf", 14) || !strcmp(file->link, "anon_inode:btf");
}

/* What fdinfo says of a map (kernel/bpf/syscall.c bpf_map_show_fdinfo). */
struct map_info {
	uint64_t type, key_size, value_size, most_entries, flags, extra, id, frozen;
};

static struct map_info read_info(const struct frozen_file *file)
{
	struct map_info info = { 0 };
	const struct {
		const char *key;
		uint64_t *value;
	} fields[] = {
		{ "map_type", &info.type }, { "key_size", &info.key_size }, { "value_size", &info.value_size },
		{ "max_entries", &info.most_entries }, { "map_flags", &info.flags }, { "map_extra", &info.extra }, { "map_id", &info.id },
		{ "frozen", &info.frozen },
	};
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	while (fdinfo_next(&cursor, &key, &value))
		for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
			if (!strcmp(key, fields[i].key))
				*fields[i].value = strtoull(value, NULL, 0);
	return info;
}

static bool is_carried(const struct map_info *info)
{
	return (info->type == BPF_MAP_TYPE_ARRAY || info->type == BPF_MAP_TYPE_HASH) && !(info->flags & ~(uint64_t)CARRIED_FLAGS) && !info->extra;
}

/* Does a loaded program use the map? 0: as far as may be seen none. */
static uint32_t find_user(uint32_t map)
{
	enum { MOST_MAPS = 256 };
	uint32_t program = 0;
	for (;;) {
		union bpf_attr next = { .start_id = program };
		if (bpf(BPF_PROG_GET_NEXT_ID, &next) < 0)
			return 0;
		program = next.next_id;
		union bpf_attr by_id = { .prog_id = program };
		_close_ int fd = bpf_fd(BPF_PROG_GET_FD_BY_ID, &by_id);
		uint32_t maps[MOST_MAPS] = { 0 };
		struct bpf_prog_info info = { .nr_map_ids = MOST_MAPS, .map_ids = (uintptr_t)maps };
		union bpf_attr ask = { .info = { .bpf_fd = (uint32_t)fd, .info_len = sizeof info, .info = (uintptr_t)&info } };
		if (fd < 0 || bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) < 0)
			continue;
		for (uint32_t i = 0; i < info.nr_map_ids && i < MOST_MAPS; i++)
			if (maps[i] == map)
				return program;
	}
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	(void)harvest;
	if (strcmp(file->link, "anon_inode:bpf-map"))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: a bpf program, link or type information, which is the kernel's and cannot be made "
				 "again; try again when the program has closed it", file->link);
	struct map_info info = read_info(file);
	if (!is_carried(&info))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "bpf map %llu: of type %llu with flags 0x%llx; only arrays and hashes are carried; try "
				 "again when the program has closed it", (unsigned long long)info.id, (unsigned long long)info.type,
				 (unsigned long long)info.flags);
	if (info.most_entries * (info.key_size + info.value_size) > MOST_BYTES)
		return fault_set(fault, FAULT_UNSUPPORTED, EFBIG, "bpf map %llu: may hold more than %d MiB; try again when the program has closed it",
				 (unsigned long long)info.id, MOST_BYTES >> 20);
	uint32_t program = find_user((uint32_t)info.id);
	if (program)
		return fault_set(fault, FAULT_UNSUPPORTED, EBUSY, "bpf map %llu: the loaded bpf program %u uses it, and would go on with the old one; try again "
				 "when that one is unloaded", (unsigned long long)info.id, program);
	return 0;
}

/* Values of an array that are zero are there without being said. */
static bool is_zero(const uint8_t *bytes, uint64_t size)
{
	return size && !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

static int capture_entries(struct harvest *harvest, int own, Cairn__BpfMap *message, struct fault *fault)
{
	uint64_t most = message->most_entries, count = 0;
	uint8_t *keys = arena_new(&harvest->arena, most * message->key_size), *values = arena_new(&harvest->arena, most * message->value_size);
	_free_ uint8_t *last = memory_new(message->key_size), *key = memory_new(message->key_size);
	bool is_first = true;
	while (count < most) {
		union bpf_attr next = { .map_fd = (uint32_t)own, .key = is_first ? 0 : (uintptr_t)last, .next_key = (uintptr_t)key };
		long rc = bpf(BPF_MAP_GET_NEXT_KEY, &next);
		uint8_t *value = values + count * message->value_size;
		union bpf_attr look = { .map_fd = (uint32_t)own, .key = (uintptr_t)key, .value = (uintptr_t)value };
		if (rc == -ENOENT)
			break;
		if (rc == 0)
			rc = bpf(BPF_MAP_LOOKUP_ELEM, &look);
		if (rc < 0)
			return fault_set(fault, fault_class_of((int)-rc), (int)-rc, "bpf map \"%s\": read its entries: %s; try as root", message->name,
					 strerror((int)-rc));
		memcpy(last, key, message->key_size);
		is_first = false;
		if (message->type == BPF_MAP_TYPE_ARRAY && is_zero(value, message->value_size))
			continue;
		memcpy(keys + count++ * message->key_size, key, message->key_size);
	}
	message->keys = (ProtobufCBinaryData){ count * message->key_size, keys };
	message->values = (ProtobufCBinaryData){ count * message->value_size, values };
	return 0;
}

static int add_map(struct harvest *harvest, uint32_t id, int own, const struct map_info *seen, struct fault *fault)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr ask = { .info = { .bpf_fd = (uint32_t)own, .info_len = sizeof info, .info = (uintptr_t)&info } };
	long rc = bpf(BPF_OBJ_GET_INFO_BY_FD, &ask);
	if (rc < 0)
		return fault_set(fault, fault_class_of((int)-rc), (int)-rc, "bpf map %llu: %s; try as root", (unsigned long long)seen->id,
				 strerror((int)-rc));
	if (info.btf_id || info.btf_vmlinux_value_type_id || info.ifindex)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "bpf map \"%s\": has type information (BTF) or belongs to a device; try again when the "
				 "program has closed it", info.name);
	Cairn__BpfMap *message = HARVEST_MESSAGE(harvest, Cairn__BpfMap, cairn__bpf_map__init);
	message->id = id;
	message->type = (uint32_t)seen->type;
	message->key_size = (uint32_t)seen->key_size;
	message->value_size = (uint32_t)seen->value_size;
	message->most_entries = (uint32_t)seen->most_entries;
	message->flags = (uint32_t)seen->flags;
	message->frozen = seen->frozen != 0;
	message->name = arena_format(&harvest->arena, "%.*s", (int)sizeof info.name, info.name);
	int done = capture_entries(harvest, own, message, fault);
	if (done == 0)
		harvest_add(harvest, &kind_bpf_map, &message->base);
	return done;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	const uint64_t maps = UINT64_MAX; /* no device has that number: ids of maps are a space of their own */
	struct map_info info = read_info(file);
	Cairn__BpfMapFile *message = HARVEST_MESSAGE(harvest, Cairn__BpfMapFile, cairn__bpf_map_file__init);
	bool is_new;
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	message->map = harvest_object(harvest, maps, info.id, &is_new);
	if (is_new)
		rc = add_map(harvest, message->map, own, &info, fault);
	if (rc < 0)
		return rc;
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_bpf_map_file, &message->base);
	return 0;
}

/* ---- the map ---- */

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__BpfMap *message = (const Cairn__BpfMap *)base;
	const struct map_info info = { .type = message->type, .flags = message->flags };
	bool possible = message->id && is_carried(&info) && message->key_size && message->key_size <= MOST_KEY && message->value_size &&
			message->most_entries && strlen(message->name) < BPF_OBJ_NAME_LEN &&
			message->value_size <= MOST_BYTES && message->keys.len % message->key_size == 0 &&
			message->values.len % message->value_size == 0 &&
			message->keys.len / message->key_size == message->values.len / message->value_size &&
			message->keys.len / message->key_size <= message->most_entries;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "a bpf map has impossible values");
}

static int fill(const Cairn__BpfMap *message, int fd)
{
	for (uint64_t i = 0; i < message->keys.len / message->key_size; i++) {
		union bpf_attr update = { .map_fd = (uint32_t)fd, .key = (uintptr_t)(message->keys.data + i * message->key_size),
					  .value = (uintptr_t)(message->values.data + i * message->value_size) };
		long rc = bpf(BPF_MAP_UPDATE_ELEM, &update);
		if (rc < 0)
			return (int)rc;
	}
	union bpf_attr freeze = { .map_fd = (uint32_t)fd };
	return message->frozen ? (int)bpf(BPF_MAP_FREEZE, &freeze) : 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__BpfMap *message = (const Cairn__BpfMap *)base;
	union bpf_attr create = {
		.map_type = message->type, .key_size = message->key_size, .value_size = message->value_size, .max_entries = message->most_entries,
		.map_flags = message->flags,
	};
	memcpy(create.map_name, message->name, strlen(message->name));
	int fd = bpf_fd(BPF_MAP_CREATE, &create);
	int rc = fd < 0 ? fd : fill(message, fd);
	if (rc < 0) {
		if (fd >= 0)
			close(fd);
		return fault_set(fault, fault_class_of(-rc), -rc, "bpf map \"%s\": %s; try as root, or with CAP_BPF", message->name, strerror(-rc));
	}
	workshop_put(workshop, message->id, fd);
	return 0;
}

const struct kind kind_bpf_map = {
	.name = "bpf map",
	.tag = 44,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__bpf_map__descriptor,
	.owner_field = "id",
	.check = check,
	.make = make,
};

/* ---- a descriptor ---- */

static uint32_t needs(const ProtobufCMessage *base)
{
	return ((const Cairn__BpfMapFile *)base)->map;
}

static int check_file(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__BpfMapFile *message = (const Cairn__BpfMapFile *)base;
	return message->map ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "a descriptor of a bpf map has impossible values");
}

static int make_file(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__BpfMapFile *message = (const Cairn__BpfMapFile *)base;
	uint32_t mode = message->open->flags & O_ACCMODE;
	int map = workshop_fd(workshop, message->map);
	struct bpf_map_info info = { 0 };
	union bpf_attr ask = { .info = { .bpf_fd = (uint32_t)map, .info_len = sizeof info, .info = (uintptr_t)&info } };
	long rc = bpf(BPF_OBJ_GET_INFO_BY_FD, &ask);
	union bpf_attr by_id = { .map_id = info.id, .open_flags = mode == O_RDONLY ? BPF_F_RDONLY : mode == O_WRONLY ? BPF_F_WRONLY : 0 };
	int fd = rc < 0 ? (int)rc : bpf_fd(BPF_MAP_GET_FD_BY_ID, &by_id);
	/* Not everybody may, and then the description that made the map is good for those that may do as much. */
	if (fd == -EPERM && mode == O_RDWR)
		fd = fcntl(map, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fault_set(fault, fault_class_of(-fd), -fd, "bpf map \"%s\": open it: %s; try as root", info.name, strerror(-fd));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_bpf_map_file = {
	.name = "bpf map descriptor",
	.tag = 66,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__bpf_map_file__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.needs = needs,
	.check = check_file,
	.make = make_file,
};
