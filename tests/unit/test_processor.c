/* SPDX-License-Identifier: Apache-2.0 */
/* What one processor has and another one lacks, and vector registers from one layout to another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/processor.h"
#include "tracee/arch.h"

static void a_processor_lacks_nothing_of_itself(void **state)
{
	(void)state;
	struct processor own;
	char names[64];
	processor_read(&own);
	assert_in_range(own.word_count, 10, PROCESSOR_WORDS);
	assert_int_equal(processor_lacks(&own, names, sizeof names), 0);
	assert_string_equal(names, "");
	for (size_t i = 0; i < own.component_count; i++) {
		assert_true(own.xstate >> own.components[i].number & 1);
		assert_in_range(own.components[i].offset + own.components[i].size, 577, own.xstate_size);
	}
}

static void what_is_missing_is_named_once(void **state)
{
	(void)state;
	/* No processor has the reserved bit 10 of leaf 1, edx. A newer Cairn may record leaves and bits that have no name here. */
	const struct processor wanted = {
		.words = { { 1, 0, 3, 1u << 10 }, { 1, 0, 3, 1u << 10 }, { 0x1234, 0, 0, 1 }, { 7, 99, 7, 2 } },
		.word_count = 4,
	};
	char names[256];
	assert_int_equal(processor_lacks(&wanted, names, sizeof names), 3);
	assert_string_equal(names, "CPUID.1.0.d[10], CPUID.1234.0.a[0], CPUID.7.63.?[1]");
}

static void too_many_names_end_in_dots(void **state)
{
	(void)state;
	struct processor wanted = { .word_count = PROCESSOR_WORDS };
	char names[40];
	for (uint32_t i = 0; i < PROCESSOR_WORDS; i++)
		wanted.words[i] = (struct processor_word){ 0x1000 + i, 0, 0, UINT32_MAX };
	assert_int_equal(processor_lacks(&wanted, names, sizeof names), 32 * PROCESSOR_WORDS);
	assert_string_equal(names, "CPUID.1000.0.a[0], ...");
}

/* AVX and protection keys where Intel's and AMD's processors have them. */
static const struct processor intel = {
	.xstate = 0x207, .components = { { 2, 576, 256 }, { 9, 2688, 8 } }, .component_count = 2, .xstate_size = 2696,
};
static const struct processor amd = {
	.xstate = 0x207, .components = { { 2, 576, 256 }, { 9, 832, 8 } }, .component_count = 2, .xstate_size = 840,
};
static const struct processor older = {
	.xstate = 0x7, .components = { { 2, 576, 256 } }, .component_count = 1, .xstate_size = 832,
};

static void fill(uint8_t *xstate, uint64_t used, uint8_t rights)
{
	for (size_t i = 0; i < intel.xstate_size; i++)
		xstate[i] = (uint8_t)(i * 7);
	memset(xstate + 512, 0, 64);
	memcpy(xstate + 512, &used, sizeof used);
	memcpy(xstate + 2688, (uint8_t[8]){ rights, 0x55, 0x55, 0x55 }, 8);
}

static uint64_t used_of(const uint8_t *xstate)
{
	uint64_t used;
	memcpy(&used, xstate + 512, sizeof used);
	return used;
}

static void registers_move_to_their_places(void **state)
{
	(void)state;
	uint8_t from[2696], to[840];
	fill(from, 0x207, 0x54);
	assert_true(xstate_fits(&intel, sizeof from, &intel));
	assert_false(xstate_fits(&intel, sizeof from, &amd));
	assert_false(xstate_fits(&amd, 840, &intel));
	xstate_convert(from, sizeof from, &intel, &amd, to);
	assert_memory_equal(to, from, 512);
	assert_memory_equal(to + 576, from + 576, 256);
	assert_memory_equal(to + 832, from + 2688, 8);
	assert_true(used_of(to) == 0x207);
}

static void protection_keys_that_say_nothing_need_no_place(void **state)
{
	(void)state;
	uint8_t from[2696], to[832];
	fill(from, 0x207, 0x54);
	assert_true(xstate_used(from, sizeof from, &intel) == 0x4);
	xstate_convert(from, sizeof from, &intel, &older, to);
	assert_true(used_of(to) == 0x7);
	fill(from, 0x207, 0x56);
	assert_true(xstate_used(from, sizeof from, &intel) == 0x204);
	assert_true(xstate_used(from, sizeof from, &older) == 0x204);
	fill(from, 0x3, 0x54);
	assert_true(xstate_used(from, sizeof from, &intel) == 0);
}

static void hostile_places_are_left_out(void **state)
{
	(void)state;
	static const struct processor_component hostile[] = { { 2, 65535, 256 }, { 2, 2600, 256 }, { 2, 576, 65535 }, { 2, 576, 255 } };
	uint8_t from[2696], to[840];
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		struct processor then = { .xstate = 7, .components = { hostile[i], { 9, 65535, 8 } }, .component_count = 2 };
		fill(from, 0x207, 0x54);
		assert_true(xstate_used(from, sizeof from, &then) == 0x204);
		xstate_convert(from, sizeof from, &then, &amd, to);
		assert_true(used_of(to) == 3);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_processor_lacks_nothing_of_itself),
		cmocka_unit_test(what_is_missing_is_named_once),
		cmocka_unit_test(too_many_names_end_in_dots),
		cmocka_unit_test(registers_move_to_their_places),
		cmocka_unit_test(protection_keys_that_say_nothing_need_no_place),
		cmocka_unit_test(hostile_places_are_left_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
