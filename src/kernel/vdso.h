/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The vdso (vdso(7)): code of the kernel's in every program, which finds its entries once, when it starts. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VDSO_MOST = 65536 }; /* bytes of one, and of the data before it */

/* Makes @old, the code of another kernel's vdso, lead into @new: each of its entries becomes a jump to the one of the same name, in a vdso that lies at
 * @address. What that one does not have becomes the system call that it stands for. Both are hostile. false: it cannot be done; @why says so in words. */
bool vdso_redirect(uint8_t *old, size_t old_size, const uint8_t *new, size_t new_size, uint64_t address, char *why, size_t why_size);
