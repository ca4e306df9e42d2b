// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records bios, from where they enter a block device's queue to bio_endio().
 *
 * A bio is shown to be queued once, also if it is split or sent on. The end of one that was part of
 * a request is the request's; any other end is shown by a tracepoint of its own, once: for a bio
 * that was split or put back into the queue, when its last part has ended.
 */

int bio_queue(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[QUEUE_BIO_ARGUMENT];
	struct lane *mine = enter(BIO_QUEUE_LANE);
	struct slot *slot;
	u64 key;

	if (!mine)
		return 0;
	key = plain(bio, &mine->scratch) | 1;
	if (copy_number() && has_begun(key))
		return 0;
	slot = submit(mine, BIO_QUEUE_LANE, BIO_LAYER, key, bio, dev_of_bio(bio),
		      partno_of_bio(bio), bio->bi_opf, bio->bi_size);
	if (slot)
		slot->sector = bio->bi_sector;
	return 0;
}

/*
 * A stacked device sends a bio to the device below: a clone, which is queued next; or (md) the bio
 * itself or what it has split off, which is not shown to be queued again.
 */
int bio_remap(u64 *ctx)
{
#ifdef HAVE_BI_BDEV
	struct bio *bio = (struct bio *)ctx[REMAP_BIO_ARGUMENT];
	u32 from = ctx[REMAP_BIO_ARGUMENT + 1];
	struct lane *mine = enter(BIO_REMAP_LANE);
	struct slot *slot;

	/* From a partition to its disk. */
	if (!mine || from == bio->bi_bdev->bd_dev)
		return 0;
	slot = note_part(mine, BIO_REMAP_LANE, bio, bio->bi_flags & BIO_TRACE_COMPLETION, from);
	if (slot)
		slot->issue_ns = bpf_ktime_get_ns();
#endif
	return 0;
}

/* Frees the slot of a part. Returns where the whole is. */
static inline struct entry end_part(struct entry part)
{
	u64 whole_key = slot_of(part)->whole_key;
	struct entry none = {};

	slot_of(part)->is_part = false;
	set_key(part, 0);
	return whole_key ? find_in_loop(whole_key) : none;
}

/* Whether this is the end of the last part of a bio, itself included; of ends at once, of one. */
static inline bool is_last_end(struct entry entry)
{
	struct slot *slot = slot_of(entry);
	u64 *key = &entry.bucket->keys[entry.place & (SLOTS_PER_BUCKET - 1)];
	u64 before = *key, ending = before | 2;

	if (!slot->open_parts)
		return true;
	count(slot->open_parts, -1);
	if (*(volatile s32 *)&slot->open_parts >= 0)
		return false;
#ifdef HAVE_CMPXCHG
	return __sync_val_compare_and_swap(key, before, ending) == before;
#else
	*key = ending;
	return true;
#endif
}

/* `is_whole`: the kernel says that all parts have ended. */
static inline void end_bio(struct lane *mine, u32 first_lane, struct entry entry, u8 error,
			   bool is_whole)
{
	take_turn(mine);
	mine->runs++;
	if (slot_of(entry)->is_part) {
		entry = end_part(entry);
		is_whole = false;
	} else {
		slot_of(entry)->has_ended = true;
	}
	if (entry.bucket && error && !slot_of(entry)->error)
		slot_of(entry)->error = error;
	if (entry.bucket && (is_whole || is_last_end(entry)))
		finish(mine, first_lane, entry, slot_of(entry)->bytes);
	else
		mine->continuations++;
}

int bio_complete(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[COMPLETE_BIO_ARGUMENT];
	struct lane *mine = enter(BIO_COMPLETE_LANE);
	struct entry entry;
	u64 key;

	if (!mine)
		return 0;
	entry = find_bio(bio, &key, &mine->scratch);
	if (entry.bucket) {
		end_bio(mine, BIO_COMPLETE_LANE, entry, bio->bi_status, true);
		return 0;
	}
	if (copy_number())
		return 0;
	mine->runs++;
	if (find_whole(bio, &key, &mine->scratch).bucket)
		/* A part that nothing was seen of: md shows its splits since 6.18. */
		mine->continuations++;
	else
		/* How large it was is not known any more. */
		note_unmatched(mine, BIO_LAYER, dev_of_bio(bio), bio->bi_opf, 0);
	return 0;
}

/* The verifier looks at each round of a loop; so many make it take 40 ms. More take a tail call. */
#define BIOS_PER_CALL 64
BPF_PROG_ARRAY(more_bios, MOST_COPIES);

/*
 * The bios that end with a request, or with a part of it (blk_update_request). Those of a write
 * with a flush before or after it end when the whole sequence does.
 */
int bios_complete(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct lane *mine = enter(BIOS_COMPLETE_LANE);
	u32 left = ctx[2], dev, done, i, j;
#ifdef HAVE_BLK_STATUS
	u8 error = ctx[1];
#else
	/* Only the errno is known. */
	u8 error = (int)ctx[1] ? BLK_STS_IOERR : 0;
#endif
	struct bio *bio = rq->bio;
	struct entry entry;

	if (!mine)
		return 0;
	dev = dev_of_disk(disk_of_request(rq));
	done = mine->done_bios;
	mine->done_bios = 0;
	if ((rq->cmd_flags & REQ_OP_MASK) >= FIRST_PASSTHROUGH_OP || rq->rq_flags & RQF_FLUSH_SEQ)
		return 0;
	for (i = 0; i < MOST_BIOS / BIOS_PER_STEP && i < done / BIOS_PER_STEP && bio; i++) {
#pragma unroll
		for (j = 0; j < BIOS_PER_STEP; j++) {
			left -= bio->bi_size;
			bio = bio->bi_next;
		}
	}
	for (i = 0; i < BIOS_PER_CALL; i++) {
		if (!bio || bio->bi_size > left)
			return 0;
		left -= bio->bi_size;
		entry = find_in_loop(plain(bio, &mine->scratch) | 1);
		if (entry.bucket && !slot_of(entry)->has_ended) {
			end_bio(mine, BIOS_COMPLETE_LANE, entry, error, false);
		} else if (!entry.bucket && !copy_number() &&
			   bio->bi_flags & BIO_TRACE_COMPLETION) {
			/* Without the flag it was not queued: a clone of another request's. */
			mine->runs++;
			note_unmatched(mine, BIO_LAYER, dev, bio->bi_opf, bio->bi_size);
		}
		bio = bio->bi_next;
	}
	done += BIOS_PER_CALL;
	if (done >= MOST_BIOS)
		return 0;
	mine->done_bios = done;
	more_bios.call(ctx, copy_number());
	return 0;
}
