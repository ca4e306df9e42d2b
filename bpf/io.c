// SPDX-License-Identifier: GPL-2.0-only
/* Takes an I/O from its submission into a record, in every layer. */

/*
 * A request has at most as many bios as its queue allows segments: 2048 on SCSI, less on most, more
 * on nbd only. The kernel allows 32 tail calls in a row, thus 33 times those of one call.
 */
#define MOST_BIOS (33 * 64)
/* The verifier looks at each condition in a loop: many bios at once make it fast. */
#define BIOS_PER_STEP 8

/* BCC takes bpf_trace_printk() in functions only, not in macros. */
static inline void trace_submit(const char *comm, u32 dev, u32 cmd_flags)
{
#ifdef TRACE
	bpf_trace_printk("submit comm=%s dev=%x cmd_flags=%x", comm, dev, cmd_flags);
#endif
}

static inline void trace_complete(u64 latency_ns, u32 bytes, u16 error)
{
#ifdef TRACE
	bpf_trace_printk("complete latency_ns=%llu bytes=%u error=%u", latency_ns, bytes, error);
#endif
}

/* No request is that large. */
#define NOTHING_COMPLETED (~0ULL)

/* Puts an I/O into the table; NULL if there is no room. */
static inline struct slot *submit(struct lane *mine, u32 first_lane, u32 layer, u64 key,
				  struct bio *bio, u32 dev, u8 partno, u32 cmd_flags, u32 bytes)
{
	struct identity who = current_thread();
	struct slot *slot;

	take_turn(mine);
	mine->runs++;
	slot = claim(key, mine, first_lane);
	if (!slot)
		return NULL;
	slot->source = layer * CPUS + bpf_get_smp_processor_id();
	slot->cmd_flags = effective_flags(cmd_flags, bytes);
	slot->bytes = bytes;
	slot->dev = dev;
	slot->partno = partno;
	slot->issue_ns = 0;
	slot->done_bytes = 0;
	slot->error = 0;
	slot->above_dev = slot->is_part ? slot->above_dev : 0;
	slot->is_part = false;
	slot->has_ended = false;
	slot->left = NOTHING_COMPLETED;
	slot->is_filtered = !is_wanted_device(dev, partno) || !is_wanted_op(slot->cmd_flags) ||
			    !is_wanted_submitter(&who);
	if (!slot->is_filtered) {
		if (bio) {
			who.charged_cgroup = charged_cgroup(bio);
			set_file(&who, bio, &mine->scratch);
		}
		slot->identity = identity_number(mine, slot->source, 0, &who);
	}
	slot->start_ns = bpf_ktime_get_ns();
	trace_submit(who.comm, dev, cmd_flags);
	return slot;
}

/* How much of the ring is taken. BCC has no call for this helper, but one with the same argument. */
static inline u64 backlog_bytes(void)
{
#define bpf_ringbuf_reserve(ring, what, flags) bpf_ringbuf_query(ring, what)
	return (u64)records.ringbuf_reserve(BPF_RB_AVAIL_DATA);
#undef bpf_ringbuf_reserve
}

/* To look at the ring costs 14 ns, as the recorder writes there: only each 16th record does. */
#define LOOK_EVERY 16

/* How to submit a lane's record: without a wakeup, as long as the recorder need not hurry. */
static inline u64 wakeup(u64 number)
{
	struct control *settings = recorder();

	if (!settings || settings->wake_bytes == IS_AWAKE)
		return BPF_RB_NO_WAKEUP;
	if (number % LOOK_EVERY || backlog_bytes() < settings->wake_bytes)
		return BPF_RB_NO_WAKEUP;
	settings->wake_bytes = IS_AWAKE;
	return BPF_RB_FORCE_WAKEUP;
}

/*
 * Whether a bio that was not to wait came back because it would have had to. Who sent it (io_uring)
 * sends it again: it is neither traffic nor a failure.
 */
static inline bool is_refused(const struct slot *slot)
{
	return slot->error == BLK_STS_AGAIN && slot->cmd_flags & REQ_NOWAIT &&
	       layer_of(slot) == BIO_LAYER;
}

/* Counts a finished I/O that gets no record. */
static inline void note_unrecorded(struct lane *mine, u32 first_lane, const struct slot *slot,
				   u32 bytes, u64 now)
{
	struct tally *tally = tally_of(layer_of(slot), slot->dev, slot->cmd_flags);

	if (is_refused(slot)) {
		mine->refused++;
		if (tally)
			count(tally->refused, 1);
	} else if (is_filtered(slot, now)) {
		mine->filtered++;
		if (tally) {
			count(tally->filtered, 1);
			count(tally->filtered_bytes, bytes);
		}
	} else {
		mine->ring_full++;
		note_gap(mine, first_lane, now, now);
		if (tally) {
			count(tally->ring_full, 1);
			count(tally->ring_full_bytes, bytes);
		}
	}
}

/* Takes a finished I/O out of the table and records it. */
static inline void finish(struct lane *mine, u32 first_lane, struct entry entry, u32 bytes)
{
	struct slot *slot = slot_of(entry);
	u64 now = bpf_ktime_get_ns();
	bool is_wanted = !is_filtered(slot, now) && !is_refused(slot);
	struct record *record = is_wanted ? records.ringbuf_reserve(sizeof(*record)) : NULL;

	trace_complete(now - slot->start_ns, bytes, slot->error);
	if (record) {
		record->start_ns = slot->start_ns;
		record->latency_ns = now - slot->start_ns;
		record->queue_ns = slot->issue_ns ? slot->issue_ns - slot->start_ns : NO_ISSUE;
		record->sector = slot->sector;
		record->bytes = bytes;
		record->dev = slot->dev;
		record->cmd_flags = slot->cmd_flags;
		record->identity = slot->identity;
		record->bio_count = slot->bio_count;
		record->source = slot->source;
		record->error = slot->error;
		record->partno = slot->partno;
		mine->recorded++;
		records.ringbuf_submit(record, wakeup(mine->recorded));
	} else {
		note_unrecorded(mine, first_lane, slot, bytes, now);
	}
	set_key(entry, 0);
}

/* A bio may be what a request is found by, too (before 6.5): the lowest bit tells the two apart. */
static inline struct entry find_bio(struct bio *bio, u64 *key, u64 *scratch)
{
	*key = plain(bio, scratch) | 1;
	return find(*key);
}

/* The bio that this one was split off from (bio_chain), if that is in flight. */
static inline struct entry find_whole(struct bio *bio, u64 *key, u64 *scratch)
{
	*key = plain(bio->bi_private, scratch) | 1;
	return find(*key);
}

/*
 * A bio that is not an I/O, as it was not queued: either it is the front that was split off another
 * one, or it is about to be queued. Returns its slot if it is an I/O after all, else NULL.
 */
static inline struct slot *note_part(struct lane *mine, u32 first_lane, struct bio *bio,
				     bool is_split, u32 above)
{
	u64 key, whole_key;
	struct entry entry = find_bio(bio, &key, &mine->scratch), whole;
	struct slot *slot;

	if (entry.bucket)
		return slot_of(entry)->is_part ? NULL : slot_of(entry);
	slot = claim(key, mine, first_lane);
	if (!slot)
		return NULL;
	slot->is_part = true;
	slot->has_ended = false;
	slot->above_dev = above;
	slot->whole_key = 0;
	if (!is_split)
		return NULL;
	whole = find_whole(bio, &whole_key, &mine->scratch);
	if (whole.bucket) {
		slot->whole_key = whole_key;
		count(slot_of(whole)->open_parts, 1);
	}
	return NULL;
}

/*
 * The bio is too large for its device. The kernel splits off its front, as a bio that ends without
 * having been queued, and goes on with the rest; device-mapper puts the whole back instead.
 */
#ifdef RECORDS_BLOCK_IO
int bio_split(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[SPLIT_BIO_ARGUMENT];
	struct lane *mine = enter(BIO_SPLIT_LANE);
	struct tally *tally;

	if (!mine)
		return 0;
	/* No copy can see whether another one has counted it. */
	if (!copy_number()) {
		tally = tally_of(REQUEST_LAYER, dev_of_bio(bio),
				 effective_flags(bio->bi_opf, bio->bi_size));
		if (tally)
			count(tally->splits, 1);
	}
#ifdef RECORDS_BIOS
	note_part(mine, BIO_SPLIT_LANE, bio, true, 0);
#endif
	return 0;
}
#endif
