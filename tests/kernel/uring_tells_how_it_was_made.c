/* SPDX-License-Identifier: Apache-2.0 */
/* What io_uring_register(2) answers to arguments that must fail tells how a ring was made, and changes nothing. */
#include <linux/io_uring.h>

#include "fact.h"

enum { REGISTER_PBUF_STATUS = 26, REGISTER_NAPI = 27, REGISTER_PBUF_RING_ = 22 };

static int ring_of(unsigned flags)
{
	struct io_uring_params parameters = { .flags = flags };
	return (int)fact_need(syscall(SYS_io_uring_setup, 8, &parameters), "io_uring_setup");
}

static int answer(int fd, unsigned operation, const void *argument, unsigned count)
{
	return syscall(SYS_io_uring_register, fd, operation, argument, count) < 0 ? -errno : 0;
}

static int restrictions(int fd)
{
	return answer(fd, IORING_REGISTER_RESTRICTIONS, NULL, 0);
}

static int busy_polling(int fd)
{
	return answer(fd, REGISTER_NAPI, (const void *)8, 1);
}

static int eventfd_of(int fd)
{
	return answer(fd, IORING_REGISTER_EVENTFD, (const void *)8, 1);
}

static int group(int fd, uint32_t number)
{
	struct {
		uint32_t group, head, reserved[8];
	} status = { .group = number };
	return answer(fd, REGISTER_PBUF_STATUS, &status, 1);
}

/* Another thread's answer: fork shares the ring as well. */
static int by_another(int fd)
{
	pid_t child = fact_fork();
	if (child == 0)
		_exit(-restrictions(fd));
	int status = 0;
	waitpid(child, &status, 0);
	return -WEXITSTATUS(status);
}

int main(void)
{
	fact_start();
	int plain = ring_of(0), disabled = ring_of(IORING_SETUP_R_DISABLED), polled = ring_of(IORING_SETUP_IOPOLL), single = ring_of(IORING_SETUP_SINGLE_ISSUER);
	if (busy_polling(plain) != -EFAULT)
		fact_skip("IORING_REGISTER_NAPI (6.9)");
	bool holds = fact(restrictions(plain) == -EBADFD && restrictions(disabled) == -EINVAL, "restrictions: of a plain ring %d, of a disabled one %d",
			  restrictions(plain), restrictions(disabled));
	holds &= fact(busy_polling(polled) == -EINVAL, "IOPOLL: %d, plain: %d", busy_polling(polled), busy_polling(plain));
	holds &= fact(by_another(single) == -EEXIST && by_another(plain) == -EBADFD, "SINGLE_ISSUER, asked by another: %d, plain: %d", by_another(single), by_another(plain));
	struct io_uring_restriction only = { .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS };
	fact_need(syscall(SYS_io_uring_register, disabled, IORING_REGISTER_RESTRICTIONS, &only, 1), "restrictions");
	fact_need(syscall(SYS_io_uring_register, disabled, IORING_REGISTER_ENABLE_RINGS, NULL, 0), "enable");
	holds &= fact(restrictions(disabled) == -EACCES, "a ring with restrictions: %d", restrictions(disabled));
	int notice = (int)fact_need(syscall(SYS_eventfd2, 0, 0), "eventfd"), before = eventfd_of(plain);
	fact_need(syscall(SYS_io_uring_register, plain, IORING_REGISTER_EVENTFD, &notice, 1), "register an eventfd");
	holds &= fact(before == -EFAULT && eventfd_of(plain) == -EBUSY, "an eventfd: without %d, with %d", before, eventfd_of(plain));
	static _Alignas(4096) char buffers[4096];
	struct io_uring_buf_reg ring = { .ring_addr = (uintptr_t)buffers, .ring_entries = 8, .bgid = 7 };
	fact_need(syscall(SYS_io_uring_register, plain, REGISTER_PBUF_RING_, &ring, 1), "a ring of buffers");
	holds &= fact(group(plain, 7) == 0 && group(plain, 8) == -ENOENT, "buffers: in the group %d, in another %d", group(plain, 7), group(plain, 8));
	return holds ? FACT_HOLDS : FACT_FAILS;
}
