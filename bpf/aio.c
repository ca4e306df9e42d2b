// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records asynchronous I/O of io_submit(2), from there until io_getevents(2) has given its result to the
 * program: both show the operation by the address of its struct iocb in the program's memory.
 */

#define IO_SUBMIT 209
#define IO_GETEVENTS 208
#define IO_PGETEVENTS 333
/* The verifier looks at each of them; what is left takes a tail call, of which there may be 32. */
#define IOCBS_PER_CALL 4
#define MOST_IOCBS (33 * IOCBS_PER_CALL)

#define IOCB_CMD_PWRITE 1
#define IOCB_CMD_PREADV 7
#define IOCB_CMD_PWRITEV 8

/* include/uapi/linux/aio_abi.h */
struct aio_iocb {
	u64 data;
	u32 key;
	u32 rw_flags;
	u16 opcode;
	u16 reqprio;
	u32 fildes;
	u64 buf;
	u64 nbytes;
	u64 offset;
	u64 reserved[2];
};

struct aio_event {
	u64 data;
	u64 obj;
	u64 res;
	u64 res2;
};

BPF_PROG_ARRAY(more_iocbs, MOST_COPIES);
BPF_PROG_ARRAY(more_events, MOST_COPIES);

/* An address of a process's: no two operations in flight have the same. */
static inline u64 iocb_key(u64 address)
{
	return hash(address) ^ (bpf_get_current_pid_tgid() >> 32) << 1;
}

static inline void begin_iocb(struct lane *mine, struct identity *who, u64 address)
{
	u64 key = iocb_key(address);
	struct open_file file;
	struct aio_iocb iocb;
	struct slot *slot;

	if (copy_number() && has_begun(key))
		return;
	if (bpf_probe_read_user(&iocb, sizeof(iocb), (void *)address))
		return;
	take_turn(mine);
	mine->runs++;
	slot = claim(key, mine, AIO_ENTER_LANE);
	if (!slot)
		return;
	begin_call(slot, AIO_LAYER, FIRST_AIO_OP + (iocb.opcode & 15));
	if (iocb.rw_flags & RWF_NOWAIT)
		slot->cmd_flags |= CALL_NOWAIT;
	slot->bytes = iocb.nbytes > ~0U ? ~0U : iocb.nbytes;
	slot->sector = iocb.offset;
	slot->bio_count = iocb.fildes;
	slot->is_filtered = !is_wanted_submitter(who);
	if (!slot->is_filtered) {
		who->inode = 0;
		who->inode_dev = 0;
		who->generation = 0;
		file = read_open_file(address_of_fd(iocb.fildes));
		set_open_file(who, file.inode);
		if ((iocb.opcode == IOCB_CMD_PWRITE || iocb.opcode == IOCB_CMD_PWRITEV) &&
		    is_appending(file, iocb.rw_flags))
			slot->sector = NO_OFFSET;
		slot->identity = identity_number(mine, slot->source, 0, who);
	}
	slot->start_ns = bpf_ktime_get_ns();
}

int aio_enter(u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	struct lane *mine;
	u64 asked, list, address, done, i;
	struct identity who;

	if (ctx[1] != IO_SUBMIT)
		return 0;
	mine = enter(AIO_ENTER_LANE);
	if (!mine || is_compat())
		return 0;
	asked = regs->si;
	list = regs->dx;
	done = mine->done_bios;
	mine->done_bios = 0;
	if (asked > 1ULL << 32) /* a negative number */
		return 0;
	who = current_thread();
	for (i = 0; i < IOCBS_PER_CALL; i++) {
		if (done + i >= asked)
			return 0;
		address = 0;
		bpf_probe_read_user(&address, sizeof(address), (void *)(list + 8 * (done + i)));
		if (address)
			begin_iocb(mine, &who, address);
	}
	done += IOCBS_PER_CALL;
	if (done >= MOST_IOCBS) {
		if (!copy_number() && asked > done)
			mine->left_out += asked - done;
		return 0;
	}
	mine->done_bios = done;
	more_iocbs.call(ctx, copy_number());
	return 0;
}

static inline void end_iocb(struct lane *mine, const struct aio_event *event)
{
	struct entry entry = find(iocb_key(event->obj));
	s64 result = event->res;
	struct slot *slot;
	u32 opcode;

	if (!entry.bucket) {
		if (copy_number())
			return;
		mine->runs++;
		note_unmatched(mine, AIO_LAYER, 0, FIRST_AIO_OP, 0);
		return;
	}
	take_turn(mine);
	mine->runs++;
	slot = slot_of(entry);
	opcode = (slot->cmd_flags & REQ_OP_MASK) - FIRST_AIO_OP;
	if (opcode == IOCB_CMD_PREADV || opcode == IOCB_CMD_PWRITEV)
		slot->bytes = result > 0 ? result : 0;
	if (result < 0 && result >= -LARGEST_ERRNO)
		slot->error = result < -255 ? 255 : -result;
	slot->issue_ns = slot->start_ns + result;
	finish(mine, AIO_EXIT_LANE, entry, slot->bytes);
}

int aio_exit(u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	u64 number = regs->orig_ax, list, address, done, end, i;
	struct aio_event event;
	s64 result = ctx[1];
	struct entry entry;
	struct lane *mine;

	if (number != IO_GETEVENTS && number != IO_PGETEVENTS && number != IO_SUBMIT)
		return 0;
	mine = enter(AIO_EXIT_LANE);
	if (!mine || is_compat())
		return 0;
	done = mine->done_bios;
	mine->done_bios = 0;
	if (number == IO_SUBMIT) {
		/* Those that were not taken have not begun: the first of them is why. */
		end = regs->si;
		list = regs->dx;
		if (!done)
			done = result > 0 ? result : 0;
	} else {
		end = result > 0 ? result : 0;
		list = regs->r10;
	}
	for (i = 0; i < IOCBS_PER_CALL; i++) {
		if (done + i >= end || done + i >= MOST_IOCBS)
			return 0;
		if (number == IO_SUBMIT) {
			address = 0;
			bpf_probe_read_user(&address, sizeof(address),
					    (void *)(list + 8 * (done + i)));
			entry = find(iocb_key(address));
			if (entry.bucket)
				set_key(entry, 0);
		} else if (!bpf_probe_read_user(&event, sizeof(event),
						(void *)(list + sizeof(event) * (done + i)))) {
			end_iocb(mine, &event);
		}
	}
	mine->done_bios = done + IOCBS_PER_CALL;
	if (mine->done_bios < MOST_IOCBS)
		more_events.call(ctx, copy_number());
	mine->done_bios = 0;
	return 0;
}
