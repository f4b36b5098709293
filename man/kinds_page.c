/* SPDX-License-Identifier: Apache-2.0 */
/* Prints cairn-kinds(7) from the table of kinds. */
#include <stdio.h>

#include "kinds/table.h"
#include "kinds/words.h"

static const struct kind_words *words_of(const struct kind *kind)
{
	for (const struct kind_words *words = kind_words; words->kind; words++)
		if (words->kind == kind)
			return words;
	return NULL;
}

/* A line that begins with a dot or a quote would be a request, and a hyphen is a minus sign to be copied. */
static void print_text(const char *text)
{
	for (; *text; text++)
		*text == '-' ? fputs("\\-", stdout) : putchar(*text);
	putchar('\n');
}

int main(void)
{
	printf(".\\\" SPDX-License-Identifier: Apache-2.0\n.\\\" Made from src/kinds/table.c and words.c.\n.TH CAIRN\\-KINDS 7 \"\" \"cairn %s\" Cairn\n", CAIRN_VERSION);
	printf(".SH NAME\ncairn\\-kinds \\- what of a program Cairn carries, and what it refuses\n.SH DESCRIPTION\n"
	       "A kind is one sort of kernel object. What a kind refuses is refused by name, with the process, the object and a remedy, before anything "
	       "is changed. A descriptor of a kind that is not here (userfaultfd, perf events ...) is refused.\n");
	for (const struct kind *const *kind = kinds; *kind; kind++) {
		const struct kind_words *words = words_of(*kind);
		printf(".SS ");
		print_text((*kind)->name);
		if (!words)
			printf("Nothing is said of it.\n");
		if (words && words->carried[0])
			print_text(words->carried);
		if (words && words->refused[0]) {
			printf(".br\n.I Refused:\n");
			print_text(words->refused);
		}
	}
	printf(".SH SEE ALSO\n.BR cairn (1),\n.BR cairn\\-checkpoint (1),\n.BR cairn\\-restore (1)\n");
	return 0;
}
