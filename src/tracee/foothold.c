/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/foothold.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "tracee/restart.h"

enum { PAGE = 4096 };

static uint64_t at(const struct foothold *foothold, const unsigned char *place)
{
	return foothold->code + (uint64_t)(place - stub_begin);
}

static size_t stub_size(void)
{
	return (size_t)(stub_end - stub_begin);
}

enum slack {
	SLACK_NONE, /* not enough of it */
	SLACK_FREE,
	SLACK_BUSY, /* a thread is on its way home in the stub of a Cairn that died */
};

/* Looks at the end of a mapping's last page, from the end. What holds the stub of a Cairn that died, or came late, stays as it is for ever: the way home ends in a
 * system call that unblocks signals, and a handler that came then will return there, nobody knows when. */
static enum slack slack_of(pid_t pid, const struct map *map, const uint64_t *ips, size_t ip_count, uint64_t *ret_address)
{
	unsigned char page[PAGE];
	const size_t want = (stub_size() + 31) & ~(size_t)15;
	if (memory_read(pid, map->end - PAGE, page, PAGE, NULL) < 0)
		return SLACK_NONE;
	for (size_t end = PAGE; end >= want; end -= want) {
		const size_t place = end - want + 16;
		*ret_address = map->end - PAGE + place;
		if (!memcmp(page + place, stub_begin, (size_t)(stub_data - stub_begin))) {
			for (size_t t = 0; t < ip_count; t++)
				if (ips[t] - *ret_address < stub_size())
					return SLACK_BUSY;
			continue;
		}
		size_t i = end - want;
		while (i < end && !page[i])
			i++;
		return i == end ? SLACK_FREE : SLACK_NONE;
	}
	return SLACK_NONE;
}

static uint64_t instruction_of(pid_t pid, const struct map *map)
{
	for (uint64_t address = map->start; address < map->end; address += PAGE) {
		unsigned char page[PAGE];
		if (memory_read(pid, address, page, PAGE, NULL) < 0)
			return 0;
		const unsigned char *found = memmem(page, PAGE, registers_syscall_instruction, REGISTERS_SYSCALL_SIZE);
		if (found)
			return address + (uint64_t)(found - page);
	}
	return 0;
}

/* Only private text: what is written must never reach a file. */
static bool is_private_text(const struct map *map)
{
	return (map->protection & PROT_EXEC) && !(map->protection & PROT_WRITE) && !map->shared && map->inode;
}

static bool is_candidate(const struct map *map)
{
	return is_private_text(map) || !strcmp(map->name, "[vdso]");
}

/* Memory of the program's own, with nothing behind it for longer than a stack there would want to grow. */
static bool may_grow(const struct map *map, const struct map *next)
{
	static const char *const names[] = { "[heap]", "[stack]", "[anon:" };
	const uint32_t odd = MAP_FLAG_LOCKED | MAP_FLAG_DONT_EXPAND | MAP_FLAG_SEALED | MAP_FLAG_DROPPABLE | MAP_FLAG_UFFD_MISSING |
			     MAP_FLAG_UFFD_WP | MAP_FLAG_UFFD_MINOR | MAP_FLAG_OTHER;
	const uint64_t gap = BATCH_AREA + (UINT64_C(1) << 21);
	bool named = !map->name[0];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		named |= !strncmp(map->name, names[i], strlen(names[i]));
	return named && !map->shared && !map->inode && !map->image_inode && map->protection == (PROT_READ | PROT_WRITE) && !map->protection_key &&
	       !(map->flags & odd) && next->start - map->end >= gap;
}

static uint64_t find_growing(const struct map_list *maps)
{
	for (size_t i = 0; i + 1 < maps->maps.count; i++)
		if (may_grow(&maps->maps.at[i], &maps->maps.at[i + 1]))
			return maps->maps.at[i].end;
	return 0;
}

int foothold_find(pid_t pid, const struct map_list *maps, const uint64_t *ips, size_t ip_count, const struct deadline *deadline,
		  struct foothold *ret_foothold, struct fault *fault)
{
	struct foothold foothold = { .deadline = deadline, .growing = find_growing(maps) };
	uint64_t in_vdso = 0;
	for (size_t i = 0; i < maps->maps.count; i++) {
		const struct map *map = &maps->maps.at[i];
		uint64_t address;
		enum slack slack = is_candidate(map) ? slack_of(pid, map, ips, ip_count, &address) : SLACK_NONE;
		if (slack == SLACK_BUSY)
			return fault_set_transient(fault, FAULT_UNSUPPORTED, EBUSY, "is on its way back from a checkpoint whose Cairn died; try again");
		if (slack == SLACK_NONE)
			continue;
		/* The first that is free: what was taken before lies before it. */
		if (map->inode) {
			foothold.code = address;
			break;
		}
		in_vdso = address; /* only if there is no other */
	}
	foothold.code = foothold.code ? foothold.code : in_vdso;
	foothold.window = !foothold.code;
	int rc = foothold.window ? foothold_find_instruction(pid, maps, &foothold.instruction, fault) : 0;
	/* In the window it could not go on by itself. */
	if (foothold.window)
		foothold.deadline = NULL;
	if (rc == 0)
		*ret_foothold = foothold;
	return rc;
}

int foothold_find_instruction(pid_t pid, const struct map_list *maps, uint64_t *ret_address, struct fault *fault)
{
	/* The vdso is short and has one; else the whole text is looked through. */
	for (size_t i = 0; i < 2 * maps->maps.count; i++) {
		const struct map *map = &maps->maps.at[i % maps->maps.count];
		bool first = i < maps->maps.count;
		uint64_t found = (map->protection & PROT_EXEC) && first == !strcmp(map->name, "[vdso]") ?
					 instruction_of(pid, map) : 0;
		if (!found)
			continue;
		*ret_address = found;
		return 0;
	}
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "its executable memory holds no system call instruction; nothing can be asked of it");
}

/* The only signal that can come in a remote call, as all others are blocked, is SIGSTOP. */
static int hold_back(struct guest *guest, int signal, struct fault *fault)
{
	if (signal != SIGSTOP)
		return fault_set(fault, FAULT_FAILED, EIO, "thread %d: signal %d in a remote call", guest->tid, signal);
	guest->held_stop = true;
	return 0;
}

/* How long a thread may take to come home after the deadline. */
#define GRACE_NS UINT64_C(1000000000)

/* Of a call that blocks, or in a cgroup that was frozen meanwhile. */
static int check_time(const struct foothold *foothold, const struct guest *guest, struct fault *fault)
{
	if (!foothold->deadline || clock_now_ns() < foothold->grace_until_ns)
		return 0;
	int rc = deadline_check(foothold->deadline, fault);
	return rc == -ETIMEDOUT ? fault_set(fault, FAULT_TIMEOUT, ETIMEDOUT, "thread %d: a system call that Cairn let it make did not come to an end; "
					    "try again when its files answer and no freezer holds it, or a longer --timeout", guest->tid) : rc;
}

static int poke(struct foothold *foothold, const struct guest *guest, uint64_t address, const void *data, size_t size, struct fault *fault)
{
	if (!foothold->memory)
		foothold->memory = ptrace_open_memory(guest->tid) + 1;
	return ptrace_poke(guest->tid, foothold->memory - 1, address, data, size, fault);
}

static void close_memory(struct foothold *foothold)
{
	if (foothold->memory)
		close(foothold->memory - 1);
	foothold->memory = 0;
}

/* From here on the thread needs the stub, and takes away what was borrowed. */
static void leave_alone(struct foothold *foothold, struct guest *guest)
{
	close_memory(foothold);
	guest->adrift = true;
	foothold->area = foothold->code = 0;
}

/* Its next stop. If that does not come in time the thread may be anywhere in the stub, which takes it home without Cairn; by then the area is gone. */
static int await_stop(struct foothold *foothold, struct guest *guest, struct stop *ret_stop, struct fault *fault)
{
	const uint64_t look_ns = 100000000;
	int rc;
	while ((rc = ptrace_wait_stop(guest->tid, foothold->deadline ? look_ns : UINT64_MAX, ret_stop, fault)) == -ETIMEDOUT) {
		rc = check_time(foothold, guest, fault);
		if (rc < 0) {
			leave_alone(foothold, guest);
			return rc;
		}
	}
	return rc;
}

/* Lets the thread run until it stands at entry of the system call whose instruction ends at @ip; 0: of the next one. */
static int run_to_entry(struct foothold *foothold, struct guest *guest, uint64_t ip, struct registers *ret_registers,
			struct fault *fault)
{
	const pid_t tid = guest->tid;
	for (;;) {
		struct stop stop;
		int rc = ptrace_resume(tid, PTRACE_SYSCALL, 0, fault);
		if (rc == 0)
			rc = await_stop(foothold, guest, &stop, fault);
		if (rc < 0)
			return rc;
		switch (stop.kind) {
		case STOP_ENDED:
			return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", tid);
		case STOP_SIGNAL:
			rc = hold_back(guest, stop.signal, fault);
			if (rc < 0)
				return rc;
			break;
		case STOP_SYSCALL:
			rc = ptrace_get_registers(tid, ret_registers, fault);
			if (rc < 0)
				return rc;
			if ((!ip || registers_ip(ret_registers) == ip) && registers_at_entry(ret_registers))
				return 0;
			break;
		default: /* job control knocks; it is put back with the thread */
			break;
		}
	}
}

/* From a stop at the entry of a system call to the interrupt stop after it; from others at once. */
static int go_on_to_interrupt_stop(struct foothold *foothold, struct guest *guest, struct fault *fault)
{
	const pid_t tid = guest->tid;
	int rc = ptrace_interrupt(tid, fault);
	if (rc == 0)
		rc = ptrace_resume(tid, PTRACE_CONT, 0, fault);
	for (;;) {
		struct stop stop;
		if (rc == 0)
			rc = await_stop(foothold, guest, &stop, fault);
		if (rc < 0)
			return rc;
		if (stop.kind == STOP_INTERRUPT || stop.kind == STOP_GROUP)
			return 0;
		if (stop.kind == STOP_ENDED)
			return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", tid);
		guest->held_stop |= stop.kind == STOP_SIGNAL && stop.signal == SIGSTOP;
		rc = ptrace_resume(tid, PTRACE_CONT, 0, fault);
	}
}

/* From any stop to an interrupt stop, without running another system call. */
static int to_interrupt_stop(struct foothold *foothold, struct guest *guest, struct fault *fault)
{
	const pid_t tid = guest->tid;
	struct registers registers;
	int rc = ptrace_get_registers(tid, &registers, fault);
	if (rc < 0)
		return rc;
	registers_skip_syscall(&registers);
	rc = ptrace_set_registers(tid, &registers, fault);
	return rc < 0 ? rc : go_on_to_interrupt_stop(foothold, guest, fault);
}

static void home_of(const struct guest *guest, struct stub_home_data *ret_home)
{
	struct registers walking = guest->home;
	restart_walk_home(&walking);
	registers_home(&walking, ret_home);
	ret_home->area_size = BATCH_AREA;
	ret_home->blocked = guest->blocked;
}

static int write_home(struct foothold *foothold, const struct guest *guest, struct fault *fault)
{
	struct stub_home_data home;
	home_of(guest, &home);
	return poke(foothold, guest, at(foothold, stub_data), &home, sizeof home, fault);
}

/* The stub, with the way home at its end. */
static int write_stub(struct foothold *foothold, const struct guest *guest, struct fault *fault)
{
	unsigned char stub[1024] = { 0 };
	struct stub_home_data home;
	home_of(guest, &home);
	memcpy(stub, stub_begin, stub_size());
	memcpy(stub + (stub_data - stub_begin), &home, sizeof home);
	return poke(foothold, guest, foothold->code, stub, (stub_size() + 7) & ~(size_t)7, fault);
}

/* Order matters for a death in between: registers first, then the mask, which only the stub's way home undoes. */
static int set_off(struct guest *guest, const struct registers *registers, struct fault *fault)
{
	int rc = ptrace_set_registers(guest->tid, registers, fault);
	if (rc == 0 && !guest->masked)
		rc = ptrace_set_mask(guest->tid, UINT64_MAX, fault);
	guest->masked |= rc == 0;
	return rc;
}

static const uint64_t map_area_args[6] = {
	0, BATCH_AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, UINT64_MAX, 0,
};

static int check_area(struct foothold *foothold, uint64_t area, struct fault *fault)
{
	if (area > UINT64_MAX - 4095) {
		int error = (int)-(int64_t)area;
		if (error == ENOMEM)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOMEM,
					 "cannot have %d KiB of its address space, which Cairn borrows for its calls: it has as much memory (ulimit -v) or as "
					 "many mappings (sysctl vm.max_map_count) as it may; try to raise that", BATCH_AREA / 1024);
		return fault_set(fault, FAULT_FAILED, error, "cannot borrow %d KiB of its address space: %s",
				 BATCH_AREA / 1024, strerror(error));
	}
	foothold->area = area;
	return 0;
}

/* One call by a part of the stub that notes its result as the area, and after which a thread left alone would go home. */
static int call_for_area(struct foothold *foothold, struct guest *guest, const unsigned char *part, long number, const uint64_t args[6],
			 uint64_t *ret_result, struct fault *fault)
{
	struct registers registers = guest->home;
	guest->standing = false;
	registers_enter(&registers, at(foothold, part));
	registers_call(&registers, (uint64_t)number, args, at(foothold, stub_home));
	int rc = set_off(guest, &registers, fault);
	if (rc == 0)
		rc = run_to_entry(foothold, guest, 0, &registers, fault);
	if (rc == 0)
		rc = go_on_to_interrupt_stop(foothold, guest, fault);
	if (rc == 0)
		rc = ptrace_get_registers(guest->tid, &registers, fault);
	guest->standing = rc == 0;
	if (rc == 0)
		*ret_result = (uint64_t)registers_result(&registers);
	return rc;
}

static int map_area(struct foothold *foothold, struct guest *guest, struct fault *fault)
{
	uint64_t area;
	int rc = call_for_area(foothold, guest, stub_map, __NR_mmap, map_area_args, &area, fault);
	if (rc == 0 && area == (uint64_t)-ENOMEM && foothold->growing) {
		const uint64_t args[6] = { foothold->growing - PAGE, PAGE, PAGE + BATCH_AREA, 0, 0, foothold->growing };
		log_debug("thread %d: no further mapping is to be had, so one is made longer", guest->tid);
		rc = call_for_area(foothold, guest, stub_grow, __NR_mremap, args, &area, fault);
		foothold->grown = rc == 0 && area == args[0];
		area = foothold->grown ? foothold->growing : area;
	}
	return rc < 0 ? rc : check_area(foothold, area, fault);
}

/* One call at the program's own instruction: the window. Leaves the thread after it. */
static int call_in_window(struct foothold *foothold, struct guest *guest, long number,
			  const uint64_t args[6], uint64_t *ret_result, struct fault *fault)
{
	struct registers registers = guest->home;
	registers_enter(&registers, foothold->instruction);
	registers_call(&registers, (uint64_t)number, args, 0);
	int rc = set_off(guest, &registers, fault);
	if (rc == 0)
		rc = run_to_entry(foothold, guest, foothold->instruction + REGISTERS_SYSCALL_SIZE, &registers, fault);
	struct stop stop = { 0 };
	if (rc == 0)
		rc = ptrace_resume(guest->tid, PTRACE_SYSCALL, 0, fault);
	if (rc == 0)
		rc = await_stop(foothold, guest, &stop, fault);
	if (rc == 0)
		rc = ptrace_get_registers(guest->tid, &registers, fault);
	if (rc == 0)
		*ret_result = (uint64_t)registers_result(&registers);
	return rc;
}

/* Without slack the stub stands at the end of an executable area. */
enum { WINDOW_AREA = BATCH_AREA + PAGE };

static int map_area_in_window(struct foothold *foothold, struct guest *guest, struct fault *fault)
{
	guest->standing = false;
	uint64_t args[6], area;
	memcpy(args, map_area_args, sizeof args);
	args[1] = WINDOW_AREA;
	args[2] |= PROT_EXEC;
	log_debug("thread %d: no slack in its text, so the first call has a window", guest->tid);
	int rc = call_in_window(foothold, guest, __NR_mmap, args, &area, fault);
	if (rc == 0)
		rc = check_area(foothold, area, fault);
	if (rc < 0)
		return rc;
	foothold->code = area + BATCH_AREA;
	return write_stub(foothold, guest, fault);
}

int foothold_enter(struct foothold *foothold, struct guest *guest, struct fault *fault)
{
	guest->inside = guest->standing = true;
	if (foothold->area)
		return write_home(foothold, guest, fault);
	if (foothold->window)
		return map_area_in_window(foothold, guest, fault);
	int rc = write_stub(foothold, guest, fault);
	return rc < 0 ? rc : map_area(foothold, guest, fault);
}

int foothold_go_on(struct guest *guest, struct fault *fault)
{
	struct stop stop;
	if (!ptrace_has_stopped(guest->tid))
		return 0;
	int rc = ptrace_wait_stop(guest->tid, UINT64_MAX, &stop, fault);
	if (rc == 0 && stop.kind == STOP_ENDED)
		rc = fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", guest->tid);
	if (rc == 0 && stop.kind == STOP_SIGNAL)
		rc = hold_back(guest, stop.signal, fault);
	/* Others are of job control, which knocks. */
	return rc < 0 ? rc : ptrace_resume(guest->tid, PTRACE_CONT, 0, fault);
}

struct frozen_run {
	struct foothold *foothold;
	struct guest *guest;
	foothold_attend *attend; /* NULL: nothing is to be seen to */
	void *context;
};

/* The microseconds of the timeval that the stub writes when it is about to rest. */
static uint64_t rest_marker(const struct foothold *foothold)
{
	return foothold->area + BATCH_AREA - sizeof(uint64_t);
}

/* The next stop of a thread that runs: one that it has come to by itself (a signal, job control), or else Cairn's. An interrupt of one that has stopped already would stop it
 * anew, before it has done anything more, as often as that is done. */
static int interrupt(const struct frozen_run *run, struct stop *ret_stop, struct fault *fault)
{
	int rc = ptrace_has_stopped(run->guest->tid) ? 0 : ptrace_interrupt(run->guest->tid, fault);
	return rc < 0 ? rc : await_stop(run->foothold, run->guest, ret_stop, fault);
}

/* Waits for the thread to come to its rest, or to another stop. An interrupt before that would only put it off: on a busy machine the thread has yet to get a
 * processor, maybe this one, so Cairn looks for as long as a batch takes elsewhere and then leaves it the processor. */
static void await_rest(pid_t tid, uint64_t marker)
{
	const uint64_t spin_ns = 150000, patience_ns = 50000000, begin = clock_now_ns();
	uint64_t nap_ns = 20000, microseconds = 0;
	while (memory_read(tid, marker, &microseconds, sizeof microseconds, NULL) == 0 && !microseconds) {
		uint64_t waited_ns = clock_now_ns() - begin;
		if (waited_ns > patience_ns)
			return;
		if (waited_ns < spin_ns)
			continue;
		if (ptrace_has_stopped(tid))
			return;
		clock_sleep_ns(nap_ns);
		nap_ns += nap_ns < 1000000 ? nap_ns : 0;
	}
}

/* The thread's rest was over before this Cairn looked, which it took for dead: it is on its way home, or the program has gone on already. Nothing that was
 * known of it may be put back. It is seen home first: in the stub it is under no filter only as long as it is traced. @stop: where it stands. */
static int see_home(const struct frozen_run *run, struct stop stop, struct fault *fault)
{
	enum { MOST_LOOKS = 10000 };
	const pid_t tid = run->guest->tid;
	const uint64_t code = run->foothold->code, nap_ns = 100000;
	leave_alone(run->foothold, run->guest);
	for (int looks = 0; looks < MOST_LOOKS; looks++) {
		struct registers registers;
		int rc = 0;
		if (stop.kind == STOP_ENDED)
			return fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", tid);
		if (stop.kind == STOP_INTERRUPT || stop.kind == STOP_GROUP) {
			rc = ptrace_get_registers(tid, &registers, fault);
			if (rc == 0 && registers_ip(&registers) - code >= stub_size())
				break;
		}
		/* Its signals are its own again. */
		if (rc == 0)
			rc = ptrace_resume(tid, PTRACE_CONT, stop.kind == STOP_SIGNAL ? stop.signal : 0, fault);
		if (rc == 0 && stop.kind != STOP_SIGNAL)
			clock_sleep_ns(nap_ns);
		if (rc == 0)
			rc = interrupt(run, &stop, fault);
		if (rc < 0)
			return rc;
	}
	return fault_set_transient(fault, FAULT_TIMEOUT, ETIMEDOUT, "thread %d: went on by itself, as Cairn got no processor for long", tid);
}

/* Stops the thread where it rests after its calls. */
static int stop_at_rest(const struct frozen_run *run, struct fault *fault)
{
	const uint64_t rest = at(run->foothold, stub_home);
	pid_t tid = run->guest->tid;
	for (;;) {
		struct registers registers;
		struct stop stop;
		await_rest(tid, rest_marker(run->foothold));
		int rc = interrupt(run, &stop, fault);
		if (rc == 0 && stop.kind == STOP_ENDED)
			rc = fault_set_transient(fault, FAULT_VANISHED, ESRCH, "thread %d: ended meanwhile", tid);
		if (rc == 0)
			rc = ptrace_get_registers(tid, &registers, fault);
		if (rc < 0)
			return rc;
		uint64_t ip = registers_ip(&registers);
		bool on_its_way = ip - run->foothold->code >= stub_size() || ip > rest; /* its signals are not blocked any more, or not for long */
		if (!on_its_way && stop.kind == STOP_SIGNAL) {
			rc = hold_back(run->guest, stop.signal, fault);
			if (rc == 0)
				rc = ptrace_resume(tid, PTRACE_CONT, 0, fault);
			if (rc < 0)
				return rc;
			continue;
		}
		if (ip == rest && restart_pending(&registers))
			return 0;
		if (on_its_way || ip == rest)
			return see_home(run, stop, fault);
		/* A call that the interrupt broke off begins anew. A group of calls is never left in the middle: the thread ends it alone. */
		rc = check_time(run->foothold, run->guest, fault);
		if (rc < 0) {
			leave_alone(run->foothold, run->guest);
			return rc;
		}
		rc = ptrace_resume(tid, PTRACE_CONT, 0, fault);
		if (rc < 0)
			return rc;
	}
}

static int run_frozen(void *context, uint64_t first, uint64_t end, struct fault *fault)
{
	const struct frozen_run *run = context;
	struct registers registers = run->guest->home;
	registers_enter(&registers, at(run->foothold, stub_batch));
	registers_batch(&registers, first, end, at(run->foothold, stub_rest), run->foothold->area);
	const uint64_t rest[2] = { run->foothold->rest_s, 0 };
	int rc = memory_write(run->guest->tid, rest_marker(run->foothold) - sizeof *rest, rest, sizeof rest, fault);
	if (rc < 0)
		return rc;
	run->guest->standing = false;
	rc = set_off(run->guest, &registers, fault);
	if (rc == 0)
		rc = ptrace_resume(run->guest->tid, PTRACE_CONT, 0, fault);
	if (rc == 0 && run->attend)
		rc = run->attend(run->context, fault);
	if (rc == 0)
		rc = stop_at_rest(run, fault);
	run->guest->standing = rc == 0;
	return rc;
}

int foothold_run(struct foothold *foothold, struct guest *guest, struct batch *batch, struct fault *fault)
{
	return foothold_run_attended(foothold, guest, batch, NULL, NULL, fault);
}

int foothold_run_attended(struct foothold *foothold, struct guest *guest, struct batch *batch, foothold_attend *attend, void *context,
			  struct fault *fault)
{
	struct frozen_run run = { foothold, guest, attend, context };
	return batch_run(batch, guest->tid, run_frozen, &run, fault);
}

/* The area goes by the same way that the thread would go alone, stopped after the munmap. */
static int unmap_area(struct foothold *foothold, struct guest *guest, struct fault *fault)
{
	struct registers registers = guest->home;
	guest->standing = false;
	int rc;
	if (foothold->window) {
		const uint64_t args[6] = { foothold->area, WINDOW_AREA };
		uint64_t result;
		rc = call_in_window(foothold, guest, __NR_munmap, args, &result, fault);
		foothold->code = 0;
	} else {
		registers_enter(&registers, at(foothold, stub_home));
		registers_batch(&registers, 0, 0, 0, foothold->area);
		rc = set_off(guest, &registers, fault);
		if (rc == 0)
			rc = run_to_entry(foothold, guest, 0, &registers, fault);
		if (rc == 0)
			rc = go_on_to_interrupt_stop(foothold, guest, fault);
		guest->standing = rc == 0;
	}
	foothold->area = 0;
	return rc;
}

static int zero_slack(struct foothold *foothold, const struct guest *guest, struct fault *fault)
{
	static const unsigned char zeros[1024];
	return poke(foothold, guest, foothold->code, zeros, (stub_size() + 7) & ~(size_t)7, fault);
}

int foothold_leave(struct foothold *foothold, struct guest *guest, bool last, struct fault *fault)
{
	int rc = 0;
	if (!guest->inside || guest->adrift)
		return 0;
	foothold->grace_until_ns = clock_now_ns() + GRACE_NS;
	if (last && foothold->area)
		rc = unmap_area(foothold, guest, fault);
	if (rc == 0 && !guest->standing)
		rc = to_interrupt_stop(foothold, guest, fault);
	if (rc == 0)
		rc = ptrace_set_mask(guest->tid, guest->blocked, fault);
	guest->masked &= rc < 0;
	if (rc == 0)
		rc = ptrace_set_registers(guest->tid, &guest->home, fault);
	if (rc == 0 && last && foothold->code && !foothold->window)
		rc = zero_slack(foothold, guest, fault);
	if (last)
		close_memory(foothold);
	foothold->grace_until_ns = 0;
	guest->inside = false;
	return rc;
}
