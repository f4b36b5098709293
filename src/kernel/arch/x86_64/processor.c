/* SPDX-License-Identifier: Apache-2.0 */
/* x86: CPUID, XCR0, and AT_HWCAP, which is the kernel's view of leaf 1's edx. Left out of the table: what only the kernel can use (smep,
 * pcid, x2apic, OSXSAVE, hypervisor ...), hints that are no-ops elsewhere (prefetchw, hle, cldemote) or that only say what is fast
 * (erms, fsrm), and protection keys (kinds/memory/keys.c looks for them). */
#include "kernel/processor.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

enum { EAX, EBX, ECX, EDX };
enum { XSTATE_LEAF = 0xd, FIRST_COMPONENT = 2, PROTECTION_KEYS = 9 };

struct feature_bit {
	uint32_t leaf, subleaf;
	uint8_t output, bit;
	const char *name; /* in /proc/cpuinfo; where that has none, the kernel's constant in small letters */
};

/* Bits of one register stand together. */
static const struct feature_bit feature_bits[] = {
	{ 1, 0, ECX, 0, "pni" }, { 1, 0, ECX, 1, "pclmulqdq" }, { 1, 0, ECX, 9, "ssse3" }, { 1, 0, ECX, 12, "fma" },
	{ 1, 0, ECX, 13, "cx16" }, { 1, 0, ECX, 19, "sse4_1" }, { 1, 0, ECX, 20, "sse4_2" }, { 1, 0, ECX, 22, "movbe" },
	{ 1, 0, ECX, 23, "popcnt" }, { 1, 0, ECX, 25, "aes" }, { 1, 0, ECX, 26, "xsave" }, { 1, 0, ECX, 28, "avx" },
	{ 1, 0, ECX, 29, "f16c" }, { 1, 0, ECX, 30, "rdrand" },
	{ 1, 0, EDX, 0, "fpu" }, { 1, 0, EDX, 4, "tsc" }, { 1, 0, EDX, 8, "cx8" }, { 1, 0, EDX, 15, "cmov" },
	{ 1, 0, EDX, 19, "clflush" }, { 1, 0, EDX, 23, "mmx" }, { 1, 0, EDX, 24, "fxsr" }, { 1, 0, EDX, 25, "sse" },
	{ 1, 0, EDX, 26, "sse2" },
	{ 7, 0, EBX, 0, "fsgsbase" }, { 7, 0, EBX, 3, "bmi1" }, { 7, 0, EBX, 5, "avx2" }, { 7, 0, EBX, 8, "bmi2" },
	{ 7, 0, EBX, 11, "rtm" }, { 7, 0, EBX, 14, "mpx" }, { 7, 0, EBX, 16, "avx512f" }, { 7, 0, EBX, 17, "avx512dq" },
	{ 7, 0, EBX, 18, "rdseed" }, { 7, 0, EBX, 19, "adx" }, { 7, 0, EBX, 21, "avx512ifma" },
	{ 7, 0, EBX, 23, "clflushopt" }, { 7, 0, EBX, 24, "clwb" }, { 7, 0, EBX, 26, "avx512pf" },
	{ 7, 0, EBX, 27, "avx512er" }, { 7, 0, EBX, 28, "avx512cd" }, { 7, 0, EBX, 29, "sha_ni" },
	{ 7, 0, EBX, 30, "avx512bw" }, { 7, 0, EBX, 31, "avx512vl" },
	{ 7, 0, ECX, 1, "avx512vbmi" }, { 7, 0, ECX, 5, "waitpkg" }, { 7, 0, ECX, 6, "avx512_vbmi2" },
	{ 7, 0, ECX, 8, "gfni" }, { 7, 0, ECX, 9, "vaes" }, { 7, 0, ECX, 10, "vpclmulqdq" },
	{ 7, 0, ECX, 11, "avx512_vnni" }, { 7, 0, ECX, 12, "avx512_bitalg" }, { 7, 0, ECX, 14, "avx512_vpopcntdq" },
	{ 7, 0, ECX, 22, "rdpid" }, { 7, 0, ECX, 27, "movdiri" }, { 7, 0, ECX, 28, "movdir64b" },
	{ 7, 0, EDX, 2, "avx512_4vnniw" }, { 7, 0, EDX, 3, "avx512_4fmaps" }, { 7, 0, EDX, 8, "avx512_vp2intersect" },
	{ 7, 0, EDX, 14, "serialize" }, { 7, 0, EDX, 16, "tsxldtrk" }, { 7, 0, EDX, 22, "amx_bf16" },
	{ 7, 0, EDX, 23, "avx512_fp16" }, { 7, 0, EDX, 24, "amx_tile" }, { 7, 0, EDX, 25, "amx_int8" },
	{ 7, 1, EAX, 0, "sha512" }, { 7, 1, EAX, 1, "sm3" }, { 7, 1, EAX, 2, "sm4" }, { 7, 1, EAX, 4, "avx_vnni" },
	{ 7, 1, EAX, 5, "avx512_bf16" }, { 7, 1, EAX, 7, "cmpccxadd" }, { 7, 1, EAX, 21, "amx_fp16" },
	{ 7, 1, EAX, 23, "avx_ifma" },
	{ 7, 1, EDX, 4, "avx_vnni_int8" }, { 7, 1, EDX, 5, "avx_ne_convert" }, { 7, 1, EDX, 8, "amx_complex" },
	{ 7, 1, EDX, 10, "avx_vnni_int16" }, { 7, 1, EDX, 19, "avx10" }, { 7, 1, EDX, 21, "apx" },
	{ XSTATE_LEAF, 1, EAX, 0, "xsaveopt" }, { XSTATE_LEAF, 1, EAX, 1, "xsavec" }, { XSTATE_LEAF, 1, EAX, 2, "xgetbv1" },
	{ 0x80000001, 0, ECX, 0, "lahf_lm" }, { 0x80000001, 0, ECX, 5, "abm" }, { 0x80000001, 0, ECX, 6, "sse4a" },
	{ 0x80000001, 0, ECX, 7, "misalignsse" }, { 0x80000001, 0, ECX, 11, "xop" }, { 0x80000001, 0, ECX, 16, "fma4" },
	{ 0x80000001, 0, ECX, 21, "tbm" }, { 0x80000001, 0, ECX, 29, "mwaitx" },
	{ 0x80000001, 0, EDX, 11, "syscall" }, { 0x80000001, 0, EDX, 22, "mmxext" }, { 0x80000001, 0, EDX, 27, "rdtscp" },
	{ 0x80000001, 0, EDX, 30, "3dnowext" }, { 0x80000001, 0, EDX, 31, "3dnow" },
	{ 0x80000008, 0, EBX, 0, "clzero" },
};
enum { FEATURE_BITS = sizeof feature_bits / sizeof *feature_bits };

/* AT_HWCAP2: arch/x86/include/uapi/asm/hwcap2.h. */
static const char *const hwcap2_names[] = { "ring3mwait", "fsgsbase" };

/* Components of XCR0 by the feature that they belong to. */
static const char *component_name(unsigned number)
{
	switch (number) {
	case 0: return "fpu";
	case 1: return "sse";
	case 2: return "avx";
	case 3: case 4: return "mpx";
	case 5: case 6: case 7: return "avx512f";
	case PROTECTION_KEYS: return "pku";
	case 17: case 18: return "amx_tile";
	case 19: return "apx";
	default: return NULL;
	}
}

/* A register of a leaf that this processor does not have is 0 (it would answer with another leaf: Intel SDM, CPUID). */
static uint32_t cpuid_word(uint32_t leaf, uint32_t subleaf, uint32_t output)
{
	uint32_t outputs[4] = { 0 };
	uint32_t most, ignored;
	if (leaf == 7 && subleaf && (!__get_cpuid_count(7, 0, &most, &ignored, &ignored, &ignored) || subleaf > most))
		return 0;
	if (!__get_cpuid_count(leaf, subleaf, &outputs[EAX], &outputs[EBX], &outputs[ECX], &outputs[EDX]))
		return 0;
	return output < 4 ? outputs[output] : 0;
}

static uint64_t xcr0(void)
{
	uint32_t low, high;
	if (!(cpuid_word(1, 0, ECX) >> 27 & 1)) /* OSXSAVE */
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static void read_words(struct processor *processor)
{
	for (size_t i = 0; i < FEATURE_BITS; i++) {
		const struct feature_bit *feature = &feature_bits[i];
		struct processor_word *word = &processor->words[processor->word_count];
		bool same = processor->word_count && word[-1].leaf == feature->leaf &&
			    word[-1].subleaf == feature->subleaf && word[-1].output == feature->output;
		if (same)
			word--;
		else
			*word = (struct processor_word){ feature->leaf, feature->subleaf, feature->output, 0 };
		processor->word_count += !same;
		word->bits |= UINT32_C(1) << feature->bit;
	}
	/* Once per word: each CPUID leaves a virtual machine. */
	for (size_t i = 0; i < processor->word_count; i++) {
		struct processor_word *word = &processor->words[i];
		word->bits &= cpuid_word(word->leaf, word->subleaf, word->output);
	}
}

static void read_components(struct processor *processor)
{
	processor->xstate_size = processor->xstate ? cpuid_word(XSTATE_LEAF, 0, EBX) : 0;
	for (uint32_t number = FIRST_COMPONENT; number < 63; number++) {
		if (!(processor->xstate >> number & 1) || processor->component_count == PROCESSOR_COMPONENTS)
			continue;
		processor->components[processor->component_count++] = (struct processor_component){
			number, cpuid_word(XSTATE_LEAF, number, EBX), cpuid_word(XSTATE_LEAF, number, EAX),
		};
	}
}

void processor_read(struct processor *ret_processor)
{
	*ret_processor = (struct processor){
		.xstate = xcr0(),
		.hwcap = getauxval(AT_HWCAP),
		.hwcap2 = getauxval(AT_HWCAP2),
	};
	read_words(ret_processor);
	read_components(ret_processor);
}

/* ---- names ---- */

struct names {
	char *at;
	size_t size, count;
	bool full;
};

/* A feature shows in several places; it is named once. */
static bool is_named(const struct names *names, const char *name)
{
	size_t length = strlen(name);
	for (const char *at = names->at; (at = strstr(at, name)); at += length)
		if ((at == names->at || at[-1] == ' ') && (!at[length] || at[length] == ','))
			return true;
	return false;
}

static void add_name(struct names *names, const char *name)
{
	size_t used = strlen(names->at);
	if (is_named(names, name))
		return;
	names->count++;
	if (names->full)
		return;
	names->full = used + strlen(name) + sizeof ", , ..." > names->size;
	snprintf(names->at + used, names->size - used, "%s%s", used ? ", " : "", names->full ? "..." : name);
}

static void add_bit(struct names *names, const struct processor_word *word, unsigned bit)
{
	char number[48];
	for (size_t i = 0; i < FEATURE_BITS; i++) {
		const struct feature_bit *feature = &feature_bits[i];
		if (feature->leaf == word->leaf && feature->subleaf == word->subleaf && feature->output == word->output &&
		    feature->bit == bit) {
			add_name(names, feature->name);
			return;
		}
	}
	/* Recorded by a newer Cairn. */
	snprintf(number, sizeof number, "CPUID.%x.%x.%c[%u]", word->leaf, word->subleaf, "abcd?"[word->output < 4 ? word->output : 4],
		 bit);
	add_name(names, number);
}

static void add_word(struct names *names, const struct processor_word *word, uint32_t missing)
{
	for (unsigned bit = 0; bit < 32; bit++)
		if (missing >> bit & 1)
			add_bit(names, word, bit);
}

static void add_hwcaps(struct names *names, const struct processor *wanted)
{
	uint32_t used = 0;
	for (size_t i = 0; i < FEATURE_BITS; i++)
		if (feature_bits[i].leaf == 1 && feature_bits[i].output == EDX)
			used |= UINT32_C(1) << feature_bits[i].bit;
	const struct processor_word hwcap = { 1, 0, EDX, 0 };
	add_word(names, &hwcap, (uint32_t)(wanted->hwcap & ~getauxval(AT_HWCAP)) & used);
	for (unsigned bit = 0; bit < sizeof hwcap2_names / sizeof *hwcap2_names; bit++)
		if ((wanted->hwcap2 & ~getauxval(AT_HWCAP2)) >> bit & 1)
			add_name(names, hwcap2_names[bit]);
}

static void add_components(struct names *names, uint64_t components)
{
	for (unsigned number = 0; number < 64; number++) {
		char unknown[32];
		const char *name = component_name(number);
		snprintf(unknown, sizeof unknown, "XCR0[%u]", number);
		if (components >> number & 1)
			add_name(names, name ? name : unknown);
	}
}

size_t processor_lacks(const struct processor *wanted, char *names, size_t size)
{
	struct names list = { names, size, 0, false };
	names[0] = 0;
	for (size_t i = 0; i < wanted->word_count; i++) {
		const struct processor_word *word = &wanted->words[i];
		add_word(&list, word, word->bits & ~cpuid_word(word->leaf, word->subleaf, word->output));
	}
	add_hwcaps(&list, wanted);
	add_components(&list, wanted->xstate & ~xcr0() & ~(UINT64_C(1) << PROTECTION_KEYS));
	return list.count;
}

void processor_xstate_names(uint64_t components, char *names, size_t size)
{
	struct names list = { names, size, 0, false };
	names[0] = 0;
	add_components(&list, components);
}

/* movabs $target, %r11; jmp *%r11: the one register that neither arguments nor the caller need. */
size_t processor_jump(uint64_t target, uint8_t ret_code[PROCESSOR_JUMP])
{
	static const uint8_t load[] = { 0x49, 0xbb }, jump[] = { 0x41, 0xff, 0xe3 };
	memcpy(ret_code, load, sizeof load);
	memcpy(ret_code + sizeof load, &target, sizeof target);
	memcpy(ret_code + sizeof load + sizeof target, jump, sizeof jump);
	return sizeof load + sizeof target + sizeof jump;
}

/* mov $number, %eax; mov %rcx, %r10; syscall; ret. Or: mov $-ENOSYS, %rax; ret. */
size_t processor_call(long number, uint8_t ret_code[PROCESSOR_JUMP])
{
	static const uint8_t call[] = { 0xb8, 0, 0, 0, 0, 0x49, 0x89, 0xca, 0x0f, 0x05, 0xc3 }, none[] = { 0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3 };
	uint32_t value = (uint32_t)number;
	if (number < 0) {
		memcpy(ret_code, none, sizeof none);
		return sizeof none;
	}
	memcpy(ret_code, call, sizeof call);
	memcpy(ret_code + 1, &value, sizeof value);
	return sizeof call;
}
