// SPDX-License-Identifier: GPL-2.0
/*
 * Records bios, from where they enter a block device's queue to bio_endio(). Stands behind io.c.
 *
 * A bio is shown to be queued once, also if it is split or sent on. The end of one that was part of
 * a request is the request's; any other end is shown by a tracepoint of its own, once: for a bio
 * that was split or put back into the queue, when its last part has ended.
 */

int on_bio_queue(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[QUEUE_BIO_ARGUMENT];
	struct counters *mine = counters_if_recording();
	struct slot *slot;

	if (!mine)
		return 0;
	slot = submit(&mine->bio_queue, BIO_LAYER, plain(bio, &mine->bio_queue.scratch) | 1, bio,
		      dev_of_bio(bio), partno_of_bio(bio), bio->bi_opf);
	if (!slot)
		return 0;
	slot->bytes = bio->bi_size;
	slot->sector = bio->bi_sector;
	return 0;
}

/*
 * A stacked device sends a bio to the device below: a clone, which is queued next; or (md) the bio
 * itself or what it has split off, which is not shown to be queued once more.
 */
int on_remap(u64 *ctx)
{
#ifdef HAVE_BI_BDEV
	struct bio *bio = (struct bio *)ctx[REMAP_BIO_ARGUMENT];
	u32 from = ctx[REMAP_BIO_ARGUMENT + 1];
	struct counters *mine = counters_if_recording();
	struct slot *slot;

	/* From a partition to its disk. */
	if (!mine || from == bio->bi_bdev->bd_dev)
		return 0;
	slot = note_part(&mine->remap, bio, bio->bi_flags & BIO_TRACE_COMPLETION, from);
	if (slot)
		slot->issue_ns = bpf_ktime_get_ns();
#endif
	return 0;
}

/* Frees the slot of a part. Returns that of the whole, or NULL. */
static inline struct slot *end_part(struct complete_counters *mine, struct slot *part)
{
	u64 whole_key = part->start_ns;

	part->is_part = false;
	part->key = 0;
	return whole_key ? find_in_loop(whole_key) : NULL;
}

/* Whether this is the end of the last part of a bio, itself included; of ends at once, of one. */
static inline bool is_last_end(struct slot *slot)
{
	u64 key = slot->key, ending = key | 2;

	if (!slot->done_bytes_or_parts)
		return true;
	__sync_fetch_and_add(&slot->done_bytes_or_parts, -1);
	if (*(volatile s32 *)&slot->done_bytes_or_parts >= 0)
		return false;
#ifdef HAVE_CMPXCHG
	return __sync_val_compare_and_swap(&slot->key, key, ending) == key;
#else
	slot->key = ending;
	return true;
#endif
}

/* `is_whole`: the kernel says that all parts have ended. */
static inline void end_bio(struct complete_counters *mine, u32 lane, struct slot *slot, u8 error,
			   bool is_whole)
{
	mine->runs++;
	if (slot->is_part) {
		slot = end_part(mine, slot);
		is_whole = false;
	}
	if (slot && error && !slot->error)
		slot->error = error;
	if (slot && (is_whole || is_last_end(slot)))
		finish(mine, lane, slot, slot->bytes);
	else
		mine->continuations++;
}

static inline void complete_bio(u64 *ctx, struct complete_counters *mine, u32 lane)
{
	struct bio *bio = (struct bio *)ctx[COMPLETE_BIO_ARGUMENT];
	struct slot *slot;
	u64 key;

	slot = find_bio(bio, &key, &mine->scratch);
	if (slot) {
		end_bio(mine, lane, slot, bio->bi_status, true);
		return;
	}
	mine->runs++;
	if (find_whole(bio, &key, &mine->scratch))
		/* A part of which nothing was seen: md shows its splits since 6.18. */
		mine->continuations++;
	else
		/* How large it was is not known any more. */
		note_unmatched(mine, lane, BIO_LAYER, dev_of_bio(bio), bio->bi_opf, 0);
}

int on_bio_complete(u64 *ctx)
{
	u32 lane;
	struct complete_counters *mine = enter_lane(BIO_LANE, &lane);

	if (!mine)
		return 0;
	complete_bio(ctx, mine, lane);
	leave_lane(mine);
	return 0;
}

/* The verifier looks at each round of a loop; so many make it take 0.1 s. More take a tail call. */
#define BIOS_PER_CALL 128
BPF_PROG_ARRAY(complete_more_bios, 2);

/*
 * The bios that end with a request, or with a part of it (blk_update_request). Those of a write
 * with a flush before or after it end when the whole sequence does.
 */
static inline void complete_bios(u64 *ctx, struct complete_counters *mine, u32 lane)
{
	struct request *rq = (struct request *)ctx[0];
	u32 left = ctx[2], dev = dev_of_disk(disk_of_request(rq)), done = mine->done_bios, i, j;
#ifdef HAVE_BLK_STATUS
	u8 error = ctx[1];
#else
	/* Only the errno is known. */
	u8 error = (int)ctx[1] ? BLK_STS_IOERR : 0;
#endif
	struct bio *bio = rq->bio;
	struct slot *slot;

	mine->done_bios = 0;
	if ((rq->cmd_flags & REQ_OP_MASK) >= FIRST_PASSTHROUGH_OP || rq->rq_flags & RQF_FLUSH_SEQ)
		return;
	for (i = 0; i < MOST_BIOS / BIOS_PER_STEP && i < done / BIOS_PER_STEP && bio; i++) {
#pragma unroll
		for (j = 0; j < BIOS_PER_STEP; j++) {
			left -= bio->bi_size;
			bio = bio->bi_next;
		}
	}
	for (i = 0; i < BIOS_PER_CALL; i++) {
		if (!bio || bio->bi_size > left)
			return;
		left -= bio->bi_size;
		slot = find_in_loop(plain(bio, &mine->scratch) | 1);
		if (slot) {
			end_bio(mine, lane, slot, error, false);
		} else if (bio->bi_flags & BIO_TRACE_COMPLETION) {
			/* Without the flag it was not queued: a clone of another request's. */
			mine->runs++;
			note_unmatched(mine, lane, BIO_LAYER, dev, bio->bi_opf, bio->bi_size);
		}
		bio = bio->bi_next;
	}
	done += BIOS_PER_CALL;
	if (done >= MOST_BIOS)
		return;
	mine->done_bios = done;
	complete_more_bios.call(ctx, is_second());
}

int on_complete_bios(u64 *ctx)
{
	u32 lane;
	struct complete_counters *mine = enter_lane(BIO_OF_REQUEST_LANE, &lane);

	if (!mine)
		return 0;
	complete_bios(ctx, mine, lane);
	leave_lane(mine);
	return 0;
}
