// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records operations of io_uring, from when their entry is taken from the submission queue until their
 * completion is posted, by the address of the request (io_kiocb).
 *
 * An operation that may post several completions has one row, which ends with the last one; those in
 * between, which the kernel shows without a request, are continuations. So is the word that the memory
 * of a zero-copy send is free again: it is of a request of its own, which nobody submitted.
 *
 * One that posts none if it succeeds (CQE_SKIP_SUCCESS) is not recorded: nothing shows its end. A
 * completion that found no room in its queue is shown without its request.
 */

#define IORING_SETUP_SQPOLL 2
#define IORING_CQE_F_NOTIF 8
#define IOSQE_FIXED_FILE 1
#define IOSQE_FLAGS 0x7f
#define IOSQE_CQE_SKIP_SUCCESS 0x40
#define LAST_OPCODE (REQ_OP_MASK - FIRST_URING_OP) /* stands for those beyond, too */
#define FIXED_FILE_MASK (~7ULL)			   /* FFS_MASK: the kernel keeps flags below */

/* What opcodes read and write at an offset, with how much in `len`; several buffers: their number. */
#define MOVES_ONE (1ULL << 4 | 1ULL << 5 | 1ULL << 22 | 1ULL << 23)
#define MOVES_SEVERAL (1ULL << 1 | 1ULL << 2 | 1ULL << 60 | 1ULL << 61)
#define WRITES (1ULL << 2 | 1ULL << 5 | 1ULL << 23 | 1ULL << 61)

/* What is read at once of an operation that moves data. */
#define RW_FIRST __builtin_offsetof(struct io_rw, ki_pos)
#define RW_BYTES (__builtin_offsetof(struct io_rw, flags) + 4 - RW_FIRST)

static inline u64 bit_of_opcode(u32 opcode)
{
	return opcode < 64 ? 1ULL << opcode : 0;
}

/*
 * Those for a file that is open (needs_file of io_issue_defs). Of others the kernel does not set the
 * number: it is what the request returned when it was used last.
 */
#define TAKES_FILE                                                                                 \
	(MOVES_ONE | MOVES_SEVERAL | 1ULL << 3 /* fsync */ | 1ULL << 6 /* poll_add */ |            \
	 1ULL << 8 /* sync_file_range */ | 1ULL << 9 /* sendmsg */ | 1ULL << 10 /* recvmsg */ |    \
	 1ULL << 13 /* accept */ | 1ULL << 16 /* connect */ | 1ULL << 17 /* fallocate */ |         \
	 1ULL << 24 /* fadvise */ | 1ULL << 26 /* send */ | 1ULL << 27 /* recv */ |                \
	 1ULL << 30 /* splice */ | 1ULL << 33 /* tee */ | 1ULL << 34 /* shutdown */ |              \
	 1ULL << 40 /* msg_ring */ | 1ULL << 41 /* fsetxattr */ | 1ULL << 43 /* fgetxattr */ |     \
	 1ULL << 46 /* uring_cmd */ | 1ULL << 47 /* send_zc */ | 1ULL << 48 /* sendmsg_zc */ |     \
	 1ULL << 49 /* read_multishot */ | 1ULL << 54 /* fixed_fd_install */ |                     \
	 0x1fULL << 55 /* ftruncate, bind, listen, recv_zc, epoll_wait */)

/*
 * The file of an entry, by its number among those of the thread, or of the ring. Which file of the
 * ring one after a link is for is known only when its turn has come: the one before may open it.
 */
static inline u64 file_of_entry(struct lane *mine, struct io_kiocb *req, u32 fd)
{
	u64 context = plain(req->ctx, &mine->scratch), node;

	if (!(req->flags & IOSQE_FIXED_FILE))
		return address_of_fd(fd);
	if (read_member(u64, context, io_ring_ctx, head))
		return 0;
#ifdef HAVE_RSRC_NODES
	if (fd >= read_member(u32, context, io_ring_ctx, nr))
		return 0;
	node = read_at(u64, read_member(u64, context, io_ring_ctx, nodes) + 8ULL * fd);
	return node ? read_member(u64, node, io_rsrc_node, file_ptr) & FIXED_FILE_MASK : 0;
#else
	if (fd >= read_member(u32, context, io_ring_ctx, nr_user_files))
		return 0;
	node = read_member(u64, context, io_ring_ctx, files);
	return read_at(u64, node + 8ULL * fd) & FIXED_FILE_MASK;
#endif
}

/* Where an operation moves data, and how much. */
static inline void set_place(struct slot *slot, u64 key, u64 moves, struct open_file file)
{
	char block[RW_BYTES];

	if (!(moves & (MOVES_ONE | MOVES_SEVERAL)) ||
	    bpf_probe_read_kernel(block, RW_BYTES, (void *)(key + RW_FIRST)))
		return;
	if (!(moves & WRITES) || !is_appending(file, in_block(u32, block, RW_FIRST, io_rw, flags)))
		slot->sector = in_block(u64, block, RW_FIRST, io_rw, ki_pos);
	if (moves & MOVES_ONE)
		slot->bytes = in_block(u32, block, RW_FIRST, io_rw, len);
}

/* Its request may be that of an operation that was not seen to end: what comes is not for that one. */
static inline void leave_out(u64 key, struct lane *mine)
{
	struct entry entry = find(key);

	if (entry.bucket) {
		note_stale(slot_of(entry), mine, URING_SUBMIT_LANE);
		set_key(entry, 0);
	}
	mine->left_out++;
}

int uring_submit(u64 *ctx)
{
	struct io_kiocb *req = (struct io_kiocb *)ctx[0];
	struct lane *mine = enter(URING_SUBMIT_LANE);
	u32 opcode, flags, fd;
	u64 key, moves;
	struct identity who;
	struct open_file file = {};
	struct slot *slot;

	if (!mine)
		return 0;
	key = plain(req, &mine->scratch);
	if (copy_number() && has_begun(key))
		return 0;
	opcode = lesser((u32)req->opcode, LAST_OPCODE);
	flags = req->flags & IOSQE_FLAGS;
	if (flags & IOSQE_CQE_SKIP_SUCCESS) {
		if (!copy_number())
			leave_out(key, mine);
		return 0;
	}
	take_turn(mine);
	mine->runs++;
	slot = claim(key, mine, URING_SUBMIT_LANE);
	if (!slot)
		return 0;
	who = current_thread();
	begin_call(slot, URING_LAYER, FIRST_URING_OP + opcode);
	slot->cmd_flags |= flags << CALL_FLAGS_SHIFT;
	if (req->ctx->flags & IORING_SETUP_SQPOLL)
		slot->cmd_flags |= CALL_SQPOLL;
	moves = bit_of_opcode(opcode);
	fd = moves & TAKES_FILE ? req->fd : -1;
	slot->bio_count = fd;
	slot->is_filtered = !is_wanted_submitter(&who);
	if (!slot->is_filtered) {
		if (moves & TAKES_FILE)
			file = read_open_file(file_of_entry(mine, req, fd));
		set_open_file(&who, file.inode);
		slot->identity = identity_number(mine, slot->source, 0, &who);
	}
	set_place(slot, key, moves, file);
	slot->start_ns = bpf_ktime_get_ns();
	return 0;
}

/* A worker of the kernel's is to do it, as it would have to wait. */
int uring_queue(u64 *ctx)
{
	struct io_kiocb *req = (struct io_kiocb *)ctx[0];
	struct lane *mine = enter(URING_QUEUE_LANE);
	struct entry entry;

	if (!mine)
		return 0;
	entry = find(plain(req, &mine->scratch));
	if (!entry.bucket || slot_of(entry)->issue_ns)
		return 0;
	take_turn(mine);
	slot_of(entry)->issue_ns = bpf_ktime_get_ns();
	return 0;
}

/* Until it was queued for a worker, in the upper half; what it returned in the lower. */
static inline u64 queue_and_result(const struct slot *slot, s32 result)
{
	u64 queue_ns = slot->issue_ns ? slot->issue_ns - slot->start_ns : NEVER_QUEUED;

	if (slot->issue_ns && queue_ns >= NEVER_QUEUED)
		queue_ns = NEVER_QUEUED - 1;
	return queue_ns << 32 | (u32)result;
}

int uring_complete(u64 *ctx)
{
	struct lane *mine = enter(URING_COMPLETE_LANE);
#ifdef HAVE_CQE
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)ctx[2];
	s32 result = cqe->res;
	u32 flags = cqe->flags;
#else
	s32 result = ctx[3];
	u32 flags = ctx[4];
#endif
	struct entry entry;
	struct slot *slot;
	u64 key;

	if (!mine)
		return 0;
	key = plain((void *)ctx[1], &mine->scratch);
	if (!key || flags & IORING_CQE_F_NOTIF) {
		if (!copy_number()) {
			mine->runs++;
			mine->continuations++;
		}
		return 0;
	}
	entry = find(key);
	if (!entry.bucket) {
		if (copy_number())
			return 0;
		mine->runs++;
		note_unmatched(mine, URING_LAYER, 0, FIRST_URING_OP, 0);
		return 0;
	}
	take_turn(mine);
	mine->runs++;
	slot = slot_of(entry);
	if (bit_of_opcode((slot->cmd_flags & REQ_OP_MASK) - FIRST_URING_OP) & MOVES_SEVERAL)
		slot->bytes = result > 0 ? result : 0;
	if (result < 0)
		slot->error = result < -255 ? 255 : -result;
	slot->issue_ns = slot->start_ns + queue_and_result(slot, result);
	finish(mine, URING_COMPLETE_LANE, entry, slot->bytes);
	return 0;
}

/* A completion for which there was no room: it is not shown by uring_complete, nor is its request. */
int uring_over(u64 *ctx)
{
	struct lane *mine = enter(URING_OVER_LANE);

	if (mine)
		mine->left_out++;
	return 0;
}
