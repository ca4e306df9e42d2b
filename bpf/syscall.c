// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records system calls, from entry to exit.
 *
 * A thread is in one call at a time, so its number is the key; neither an interrupt nor the kernel
 * calls any. The entry keeps the arguments, as a call that never ends is the one that is looked for,
 * and the file and the position in it, which may be others when the call ends.
 */

/* Values of a place of struct call besides 0 to 5, the number of an argument. */
#define NOWHERE 7
#define IN_FILE 6   /* the offset: the position of the file */
#define IN_RESULT 6 /* the file: what the call opened */

/* Values of `kind` of struct call. */
#define IS_VECTOR 1 /* it reads into several buffers: how much is known from the result only */
#define IS_WRITE 2
#define IS_WRITE_OF_VECTOR 3
#define IS_MAPPING 4

#define MAP_ANONYMOUS 0x20
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

/* What is to be done with a system call, and where its arguments are. */
struct call {
	u8 op; /* 0: it is not recorded */
	u8 file;
	u8 offset;
	u8 size;
	u8 flags; /* RWF_, or of a mapping MAP_ */
	u8 kind;
	u8 is_compat; /* as the number of a call of 32-bit programs it would be recorded */
	u8 padding;
};

#define MOST_CALLS 512

struct calls {
	struct call by_number[MOST_CALLS];
};
BPF_ARRAY(calls, struct calls, 1);

/* NULL if the number means no call that is recorded, also for 32-bit programs. */
static inline const struct call *known_call(u64 number)
{
	u32 zero = 0;
	const struct call *call;
	struct calls *all;

	if (number >= MOST_CALLS)
		return NULL;
	all = calls.lookup(&zero);
	if (!all)
		return NULL;
	call = &all->by_number[number];
	return call->op || call->is_compat ? call : NULL;
}

static inline u64 thread_key(void)
{
#ifdef HAVE_CURRENT_TASK
	return bpf_get_current_task_btf()->pid;
#else
	return (u32)bpf_get_current_pid_tgid();
#endif
}

/* The value of an argument, by its number. The barriers keep the reads from becoming one. */
static inline u64 argument(struct pt_regs *regs, u32 number)
{
	u64 value = 0;

#define IF_IT_IS(which, name)                                                                      \
	if (number == which) {                                                                     \
		value = regs->name;                                                                \
		asm volatile("" : "+r"(value));                                                    \
	}
	IF_IT_IS(0, di)
	IF_IT_IS(1, si)
	IF_IT_IS(2, dx)
	IF_IT_IS(3, r10)
	IF_IT_IS(4, r8)
	IF_IT_IS(5, r9)
#undef IF_IT_IS
	return value;
}

/* What the arguments of a call say, and the file that it is for. */
static inline void set_arguments(struct slot *slot, const struct call *call, struct pt_regs *regs,
				 struct identity *who)
{
	struct open_file file = {};
	u64 size = 0, flags = 0;

	if (call->size < NOWHERE)
		size = argument(regs, call->size);
	slot->bytes = size > ~0U ? ~0U : size;
	if (call->flags < NOWHERE)
		flags = argument(regs, call->flags);
	if (call->kind == IS_MAPPING && flags & MAP_ANONYMOUS)
		return;
	if (call->file < IN_RESULT) {
		slot->bio_count = argument(regs, call->file);
		file = read_open_file(address_of_fd(slot->bio_count));
		set_open_file(who, file.inode);
	}
	if (call->offset < IN_FILE)
		slot->sector = argument(regs, call->offset);
	else if (call->offset == IN_FILE && who->inode_dev)
		slot->sector = file.position;
	if (call->kind & IS_WRITE && is_appending(file, flags))
		slot->sector = NO_OFFSET;
	if (call->kind <= IS_WRITE_OF_VECTOR && flags & RWF_NOWAIT)
		slot->cmd_flags |= CALL_NOWAIT;
}

int call_enter(u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	const struct call *call = known_call(ctx[1]);
	struct identity who;
	struct lane *mine;
	struct slot *slot;
	u64 key;

	if (!call)
		return 0;
	mine = enter(CALL_ENTER_LANE);
	if (!mine)
		return 0;
	if (is_compat()) {
		if (call->is_compat && !copy_number())
			mine->left_out++;
		return 0;
	}
	key = thread_key();
	if (!call->op || (copy_number() && has_begun(key)))
		return 0;
	take_turn(mine);
	mine->runs++;
	slot = claim(key, mine, CALL_ENTER_LANE);
	if (!slot)
		return 0;
	who = current_thread();
	begin_call(slot, SYSCALL_LAYER, call->op);
	slot->is_filtered = !is_wanted_submitter(&who);
	if (!slot->is_filtered) {
		set_arguments(slot, call, regs, &who);
		slot->identity = identity_number(mine, slot->source, 0, &who);
	}
	slot->start_ns = bpf_ktime_get_ns();
	return 0;
}

int call_exit(u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	const struct call *call = known_call(regs->orig_ax);
	s64 result = ctx[1];
	struct identity who;
	struct entry entry;
	struct lane *mine;
	struct slot *slot;

	if (!call || !call->op)
		return 0;
	mine = enter(CALL_EXIT_LANE);
	if (!mine)
		return 0;
	entry = find(thread_key());
	if (entry.bucket && (slot_of(entry)->cmd_flags & REQ_OP_MASK) != call->op) {
		note_stale(slot_of(entry), mine, CALL_EXIT_LANE);
		set_key(entry, 0);
		entry.bucket = NULL;
	}
	if (!entry.bucket) {
		if (copy_number() || is_compat())
			return 0;
		mine->runs++;
		note_unmatched(mine, SYSCALL_LAYER, 0, call->op, 0);
		return 0;
	}
	take_turn(mine);
	mine->runs++;
	slot = slot_of(entry);
	if (!slot->is_filtered) {
		if (call->kind & IS_VECTOR && result > 0)
			slot->bytes = result;
		if (call->file == IN_RESULT && result >= 0) {
			who = current_thread();
			set_open_file(&who, read_open_file(address_of_fd(result)).inode);
			slot->source = SYSCALL_LAYER * CPUS + bpf_get_smp_processor_id();
			slot->identity = identity_number(mine, slot->source, OPENED, &who);
		}
	}
	if (result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK)
		slot->cmd_flags |= CALL_RESTARTED;
	else if (result < 0 && result >= -LARGEST_ERRNO)
		slot->error = result < -255 ? 255 : -result;
	/* In place of when it was issued, as finish() takes the difference. */
	slot->issue_ns = slot->start_ns + result;
	finish(mine, CALL_EXIT_LANE, entry, slot->bytes);
	return 0;
}
