// SPDX-License-Identifier: GPL-2.0-only
/* Records block requests, from submission to the last completion. */

#ifdef HAVE_BLOCK_IO_START

int rq_start(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct lane *mine = enter(RQ_START_LANE);
	struct slot *slot;
	u64 key;

	if (!mine)
		return 0;
	key = plain(rq, &mine->scratch);
	if (copy_number() && has_begun(key))
		return 0;
	slot = submit(mine, RQ_START_LANE, REQUEST_LAYER, key, rq->bio,
		      dev_of_disk(disk_of_request(rq)), partno_of_bio(rq->bio), rq->cmd_flags,
		      rq->__data_len);
	if (slot)
		slot->sector = rq->__sector;
	return 0;
}

static inline struct entry find_request(struct request *rq, u64 *scratch)
{
	return find(plain(rq, scratch));
}

#else

/*
 * Before 6.5 no tracepoint shows the request in its submitter's context. The one that shows the bio
 * for which a request was just allocated does: the I/O is found by its bio until it is issued.
 */
int rq_start(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[GETRQ_BIO_ARGUMENT];
	struct lane *mine = enter(RQ_START_LANE);
	struct slot *slot;

	if (!mine)
		return 0;
	slot = submit(mine, RQ_START_LANE, REQUEST_LAYER, plain(bio, &mine->scratch), bio,
		      dev_of_bio(bio), partno_of_bio(bio), bio->bi_opf, bio->bi_size);
	if (slot)
		slot->sector = bio->bi_sector;
	return 0;
}

/* A front merge changes the first bio, a back merge the last one. */
static inline struct entry find_by_bio(struct request *rq, u64 *scratch)
{
	struct entry entry = find(plain(rq->bio, scratch));

	return entry.bucket ? entry : find(plain(rq->biotail, scratch));
}

static inline struct entry find_request(struct request *rq, u64 *scratch)
{
	struct entry entry = find(plain(rq, scratch));

	return entry.bucket ? entry : find_by_bio(rq, scratch);
}

static inline struct slot *rekey(struct entry entry, u64 key, struct lane *mine)
{
	struct slot *slot = claim(key, mine, RQ_ISSUE_LANE), *old = slot_of(entry);

	if (slot) {
		slot->start_ns = old->start_ns;
		slot->issue_ns = old->issue_ns;
		slot->done_bytes = old->done_bytes;
		slot->dev = old->dev;
		slot->cmd_flags = old->cmd_flags;
		slot->identity = old->identity;
		slot->source = old->source;
		slot->error = old->error;
		slot->partno = old->partno;
		slot->bio_count = 0;
		slot->is_filtered = old->is_filtered;
		slot->is_part = false;
		slot->left = old->left;
	}
	set_key(entry, 0);
	return slot;
}

#endif

/* Requests that begin here: the kernel's own flushes and, before 6.5, passthrough. */
static inline bool begins_at_issue(u32 op)
{
#ifdef HAVE_BLOCK_IO_START
	return op == REQ_OP_FLUSH;
#else
	return op == REQ_OP_FLUSH || op >= FIRST_PASSTHROUGH_OP;
#endif
}

/* Whether a copy before this one has taken the event, or none has anything to do. */
static inline bool is_issue_taken(struct request *rq, u64 key)
{
	struct entry entry = find_in_loop(key);

	if (!entry.bucket)
		return !begins_at_issue(rq->cmd_flags & REQ_OP_MASK);
	return slot_of(entry)->issue_ns;
}

static inline struct slot *begin_at_issue(struct request *rq, u64 key, struct lane *mine)
{
	struct slot *slot = claim(key, mine, RQ_ISSUE_LANE);

	if (!slot)
		return NULL;
	slot->start_ns = bpf_ktime_get_ns();
	slot->done_bytes = 0;
	slot->dev = dev_of_disk(disk_of_request(rq));
	slot->cmd_flags = effective_flags(rq->cmd_flags, rq->__data_len);
	slot->identity = NO_IDENTITY;
	slot->source = REQUEST_LAYER * CPUS + bpf_get_smp_processor_id();
	slot->error = 0;
	slot->partno = 0;
	slot->bio_count = 0;
	slot->is_part = false;
	slot->left = NOTHING_COMPLETED;
	slot->is_filtered = !IS_UNKNOWN_SUBMITTER_WANTED || !is_wanted_device(slot->dev, 0) ||
			    !is_wanted_op(slot->cmd_flags);
	return slot;
}

/*
 * BIOS_PER_STEP bios further. What follows the last one is NULL, and what NULL points to reads 0,
 * which the compiler must not know: it would conclude that none of them is NULL.
 */
static inline struct bio *skip_bios(struct bio *bio)
{
	int i;

#pragma unroll
	for (i = 0; i < BIOS_PER_STEP; i++) {
		asm volatile("" : "+r"(bio));
		bio = bio->bi_next;
	}
	return bio;
}

static inline u32 count_bios(struct request *rq)
{
	struct bio *bio = rq->bio, *next;
	u32 steps, rest;

	if (!bio || !bio->bi_next) /* as most are; reading from NULL is slow on some machines */
		return bio ? 1 : 0;
	for (steps = 0; steps < MOST_BIOS / BIOS_PER_STEP; steps++) {
		next = skip_bios(bio);
		if (!next)
			break;
		bio = next;
	}
	for (rest = 0; bio && rest < BIOS_PER_STEP; rest++)
		bio = bio->bi_next;
	return steps * BIOS_PER_STEP + rest;
}

/*
 * The slot of the request that is being issued; NULL if its start was not seen. What was issued
 * before, and not put back, is an earlier use of the request whose completion was not seen: the
 * request must not go on with its start.
 */
static inline struct slot *slot_at_issue(struct request *rq, u64 key, struct lane *mine)
{
	struct entry entry = find(key);

	if (entry.bucket && slot_of(entry)->issue_ns) {
		note_stale(slot_of(entry), mine, RQ_ISSUE_LANE);
		set_key(entry, 0);
		entry.bucket = NULL;
	}
	if (entry.bucket)
		return slot_of(entry);
#ifndef HAVE_BLOCK_IO_START
	entry = find_by_bio(rq, &mine->scratch);
	if (entry.bucket)
		return rekey(entry, key, mine);
#endif
	if (begins_at_issue(rq->cmd_flags & REQ_OP_MASK))
		return begin_at_issue(rq, key, mine);
	return NULL;
}

int rq_issue(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[ISSUE_REQUEST_ARGUMENT];
	struct lane *mine = enter(RQ_ISSUE_LANE);
	struct slot *slot;
	u32 bios;
	u64 key;

	if (!mine)
		return 0;
	key = plain(rq, &mine->scratch);
	if (copy_number() && is_issue_taken(rq, key))
		return 0;
	take_turn(mine);
	/* First, or the verifier would look at its loop once for each place of the slot. */
	bios = count_bios(rq);
	slot = slot_at_issue(rq, key, mine);
	if (!slot)
		return 0;
	slot->issue_ns = bpf_ktime_get_ns();
	slot->bytes = slot->done_bytes + rq->__data_len;
	if (!slot->done_bytes) {
		slot->sector = rq->__sector;
		slot->bio_count = bios;
	}
#ifndef HAVE_BI_BDEV
	slot->partno = rq->part->partno;
#endif
	return 0;
}

int rq_requeue(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[REQUEUE_REQUEST_ARGUMENT];
	struct lane *mine = enter(RQ_REQUEUE_LANE);
	struct tally *tally;
	struct entry entry;

	if (!mine)
		return 0;
	entry = find_request(rq, &mine->scratch);
	if (copy_number() && (!entry.bucket || !slot_of(entry)->issue_ns))
		return 0;
	take_turn(mine);
	mine->events++;
	tally = tally_of(REQUEST_LAYER, dev_of_disk(disk_of_request(rq)),
			 effective_flags(rq->cmd_flags, rq->__data_len));
	if (tally)
		count(tally->requeues, 1);
	if (entry.bucket)
		slot_of(entry)->issue_ns = 0;
	return 0;
}

static inline void note_merge(u32 dev, u32 cmd_flags)
{
	struct tally *tally = tally_of(REQUEST_LAYER, dev, cmd_flags);

	if (tally)
		count(tally->merges, 1);
}

int back_merge(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[BACK_MERGE_BIO_ARGUMENT];

	if (enter(BACK_MERGE_LANE))
		note_merge(dev_of_bio(bio), bio->bi_opf);
	return 0;
}

int front_merge(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[FRONT_MERGE_BIO_ARGUMENT];

	if (enter(FRONT_MERGE_LANE))
		note_merge(dev_of_bio(bio), bio->bi_opf);
	return 0;
}

/* The request has become part of another one and is freed without a completion. */
int rq_merge(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[MERGE_REQUEST_ARGUMENT];
	struct lane *mine = enter(RQ_MERGE_LANE);
	struct entry entry;

	if (!mine)
		return 0;
	entry = find_request(rq, &mine->scratch);
	if (copy_number() && !entry.bucket)
		return 0;
	take_turn(mine);
	note_merge(dev_of_disk(disk_of_request(rq)), rq->cmd_flags);
	if (!entry.bucket)
		return 0;
	mine->events++;
	set_key(entry, 0);
	return 0;
}

/*
 * The data of a write with a flush before or after it completes while RQF_FLUSH_SEQ is set; the
 * request completes again, with no bytes left, after the last flush. The flush itself has the flag
 * too, but completes only once.
 */
static inline bool is_continuation(struct request *rq, u32 nr_bytes, u32 left)
{
	if ((rq->cmd_flags & REQ_OP_MASK) == REQ_OP_FLUSH)
		return false;
	return rq->rq_flags & RQF_FLUSH_SEQ || nr_bytes < left;
}

int rq_complete(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct lane *mine = enter(RQ_COMPLETE_LANE);
	u32 nr_bytes = ctx[2], left = rq->__data_len;
#ifdef HAVE_BLK_STATUS
	u8 error = ctx[1];
#else
	u8 error = -(int)ctx[1];
#endif
	struct entry entry;
	struct slot *slot;

	if (!mine)
		return 0;
	entry = find_request(rq, &mine->scratch);
	slot = entry.bucket ? slot_of(entry) : NULL;
	if (copy_number() && (!slot || slot->left == left))
		return 0;
	take_turn(mine);
	mine->runs++;
	if (slot && error && !slot->error)
		slot->error = error;
	if (is_continuation(rq, nr_bytes, left)) {
		mine->continuations++;
		if (slot) {
			slot->done_bytes += nr_bytes;
			slot->left = left;
		}
		return 0;
	}
	if (!slot) {
		note_unmatched(mine, REQUEST_LAYER, dev_of_disk(disk_of_request(rq)), rq->cmd_flags,
			       nr_bytes);
		return 0;
	}
	if (!slot->issue_ns && !slot->done_bytes)
		slot->sector = rq->__sector;
	/* Less than were issued if the completion of the data was hidden from tracing programs. */
	left += slot->done_bytes;
	finish(mine, RQ_COMPLETE_LANE, entry, left > slot->bytes ? left : slot->bytes);
	return 0;
}
