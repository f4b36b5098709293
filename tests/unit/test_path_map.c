/* SPDX-License-Identifier: Apache-2.0 */
/* --map-path: which paths of an image it changes, and into what. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kinds/kind.h"
#include "rebuild/path_map.h"

/* @wanted NULL: the path stays as it is. */
static void expect(struct path_maps *maps, const char *path, const char *wanted)
{
	char *mapped;
	struct fault fault;
	assert_int_equal(path_maps_apply(maps, path, &mapped, &fault), 0);
	if (wanted)
		assert_string_equal(mapped ? mapped : path, wanted);
	else
		assert_null(mapped);
	free(mapped);
}

static void whole_components_count(void **state)
{
	(void)state;
	struct path_map map = { "/a", "/new/place", 0 };
	struct path_maps maps = { &map, 1 };
	expect(&maps, "/a", "/new/place");
	expect(&maps, "/a/b", "/new/place/b");
	expect(&maps, "/ab", NULL);
	expect(&maps, "/", NULL);
	expect(&maps, "/b/a", NULL);
	expect(&maps, "a", NULL);
	expect(&maps, "", NULL);
	assert_int_equal(map.uses, 2);
}

static void the_longest_prefix_wins(void **state)
{
	(void)state;
	struct path_map at[] = { { "/a/b/", "/long", 0 }, { "/a", "/short", 0 }, { "/a", "/later", 0 } };
	struct path_maps maps = { at, 3 };
	expect(&maps, "/a/b/c", "/long/c");
	expect(&maps, "/a/b", "/long");
	expect(&maps, "/a/bc", "/later/bc");
	expect(&maps, "/a/c", "/later/c");
	assert_int_equal(at[1].uses, 0);
}

static void the_root_can_be_mapped_and_be_mapped_to(void **state)
{
	(void)state;
	struct path_map map = { "/", "/new/", 0 };
	struct path_maps maps = { &map, 1 };
	expect(&maps, "/", "/new");
	expect(&maps, "/a/b", "/new/a/b");
	map = (struct path_map){ "/a//", "/", 0 };
	expect(&maps, "/a", "/");
	expect(&maps, "/a/b", "/b");
	map = (struct path_map){ "/", "/", 0 };
	expect(&maps, "/", "/");
	expect(&maps, "/a", "/a");
}

static void a_result_that_is_too_long_is_a_fault(void **state)
{
	(void)state;
	char path[PATH_MAX + 1] = "/a/", *mapped;
	struct path_map map = { "/a", "/12", 0 };
	struct path_maps maps = { &map, 1 };
	struct fault fault;
	memset(path + 3, 'x', PATH_MAX - 5);
	assert_int_equal(strlen(path), PATH_MAX - 2);
	assert_int_equal(path_maps_apply(&maps, path, &mapped, &fault), 0);
	assert_int_equal(strlen(mapped), PATH_MAX - 1);
	free(mapped);
	path[PATH_MAX - 2] = 'x';
	assert_int_equal(path_maps_apply(&maps, path, &mapped, &fault), -ENAMETOOLONG);
	assert_int_equal(fault.class, FAULT_FAILED);
	assert_non_null(strstr(fault.text, "; try a shorter NEW"));
}

static void only_absolute_paths_are_taken(void **state)
{
	(void)state;
	struct path_map at[] = { { "/a", "/b", 0 }, { "/a", "b", 0 } };
	struct path_maps maps = { at, 1 };
	struct fault fault;
	assert_int_equal(path_maps_check(&maps, &fault), 0);
	maps.count = 2;
	assert_true(path_maps_check(&maps, &fault) < 0);
	assert_int_equal(fault.class, FAULT_USAGE);
	at[1] = (struct path_map){ "", "/b", 0 };
	assert_true(path_maps_check(&maps, &fault) < 0);
}

/* A kind whose record has a path and that does not say so would go on looking in the old place. */
static void every_kind_says_where_its_path_is(void **state)
{
	(void)state;
	for (const struct kind *const *kind = kinds; *kind; kind++) {
		const ProtobufCMessageDescriptor *descriptor = (*kind)->descriptor;
		for (unsigned i = 0; i < descriptor->n_fields; i++) {
			const char *name = descriptor->fields[i].name;
			if (strcmp(name, "path") && strcmp(name, "cwd"))
				continue;
			if (!(*kind)->path_field || strcmp((*kind)->path_field, name))
				fail_msg("kind \"%s\" has a field \"%s\" that is not its path_field", (*kind)->name, name);
		}
		if ((*kind)->path_field) {
			const ProtobufCFieldDescriptor *field =
				protobuf_c_message_descriptor_get_field_by_name(descriptor, (*kind)->path_field);
			assert_non_null(field);
			assert_int_equal(field->type, PROTOBUF_C_TYPE_STRING);
			assert_int_not_equal(field->label, PROTOBUF_C_LABEL_REPEATED);
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_components_count),
		cmocka_unit_test(the_longest_prefix_wins),
		cmocka_unit_test(the_root_can_be_mapped_and_be_mapped_to),
		cmocka_unit_test(a_result_that_is_too_long_is_a_fault),
		cmocka_unit_test(only_absolute_paths_are_taken),
		cmocka_unit_test(every_kind_says_where_its_path_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
