/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <sys/user.h>

struct registers {
	struct user_regs_struct raw;
};
