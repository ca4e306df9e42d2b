// SPDX-License-Identifier: GPL-2.0
/*
 * Records block requests, from submission to the last completion.
 *
 * In front of this file stands a generated header: the kernel structs that are read here, each
 * member at its offset in the running kernel, and the HAVE_ macros. The recorder adds, as -D flags:
 * CPUS, BUCKETS, RING_PAGES, IDENTITIES, the tracepoints' argument numbers, and the filters.
 */
#include "records.h"

#define MMAPABLE (1U << 10)

/* Set while recording; clear before and after, so that all programs start and stop as one. */
BPF_F_TABLE("array", u32, u64, is_recording, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct counters, counters, CPUS, MMAPABLE);
/*
 * The kernel skips a program that is running on the CPU already (05b24ff9b2cf, 6.1), so a
 * completion that interrupts another one would be missed. A second program takes it, in a lane of
 * its own: lane N is CPU N, lane CPUS + N what interrupts it.
 */
#define LANES (CPUS * 2)
BPF_F_TABLE("array", u32, struct complete_counters, completions, LANES, MMAPABLE);
/* At least 8 slots for each request that the machine's queues can hold. */
BPF_F_TABLE("array", u32, struct bucket, in_flight, BUCKETS, MMAPABLE);
/* For each CPU a ring of the newest identities; the recorder reads them at every drain. */
BPF_F_TABLE("array", u32, struct identity, identities, CPUS * IDENTITIES, MMAPABLE);
/* For each CPU the identities of the threads seen last; a miss costs a new identity, no more. */
#define CACHED_IDENTITIES 1024
BPF_F_TABLE("array", u32, struct cached_identity, cached_identities, CPUS * CACHED_IDENTITIES, 0);
/* For each lane some 50 devices with their operations; the last row takes what is beyond. */
#define TALLIES 256
/* Those who start and issue requests count in lanes of their own, behind those above. */
#define START_LANE (CPUS * 2)
#define ISSUE_LANE (CPUS * 3)
BPF_F_TABLE("array", u32, struct tally, tallies, CPUS * 4 * TALLIES, MMAPABLE);
/* For each lane a ring of gaps; two are at least GAP_NS apart, so 256 last for 2.5 s. */
#define GAPS 256
#define GAP_NS 10000000ULL
BPF_F_TABLE("array", u32, struct gap, gaps, LANES * GAPS, MMAPABLE);
BPF_RINGBUF_OUTPUT(records, RING_PAGES);

#ifdef FILTER_DEVICE
#define WHOLE_DISK 0xffffffffU
struct device_key {
	u32 dev;
	u32 partno;
};
BPF_HASH(filter_device, struct device_key, u8, 1024);
#endif
#ifdef FILTER_PID
BPF_HASH(filter_pid, u32, u8, 1024);
#endif
#ifdef FILTER_COMM
struct comm_key {
	char comm[16];
};
BPF_HASH(filter_comm, struct comm_key, u8, 1024);
#endif
#ifdef FILTER_CGROUPS
BPF_CGROUP_ARRAY(filter_cgroup, FILTER_CGROUPS);
#endif

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

static inline u64 hash(u64 value)
{
	/* 2^64 divided by the golden ratio: requests lie at equal distances, which this spreads. */
	return value * 0x9e3779b97f4a7c15ULL;
}

static inline bool recording(void)
{
	u32 zero = 0;
	u64 *on = is_recording.lookup(&zero);

	return on && *on;
}

/* The counters of this CPU; NULL while not recording. */
static inline struct counters *counters_if_recording(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return recording() ? counters.lookup(&cpu) : NULL;
}

/* A typed pointer cannot be hashed; one read back from a map is a plain number. */
static inline u64 plain(const void *pointer, volatile u64 *scratch)
{
	*scratch = (u64)pointer;
	return *scratch;
}

static inline struct bucket *bucket_of(u64 key)
{
	u32 index = (hash(key) >> 32) & (BUCKETS - 1);

	return in_flight.lookup(&index);
}

static inline struct slot *find(u64 key)
{
	struct bucket *bucket = bucket_of(key);
	int i;

	if (!bucket || !key)
		return NULL;
#pragma unroll
	for (i = 0; i < SLOTS_PER_BUCKET; i++)
		if (bucket->slots[i].key == key)
			return &bucket->slots[i];
	return NULL;
}

static inline struct tally *tally_of(u32 lane, u32 dev, u32 op)
{
	u64 key = 1ULL << 63 | (u64)dev << 8 | op;
	u32 base = lane * TALLIES, index;
	struct tally *tally;
	int i;

#pragma unroll
	for (i = 0; i < 8; i++) {
		index = base + (((hash(key) >> 32) + i) % (TALLIES - 1));
		tally = tallies.lookup(&index);
		if (!tally)
			return NULL;
		if (!tally->key)
			tally->key = key;
		if (tally->key == key)
			return tally;
	}
	index = base + TALLIES - 1;
	return tallies.lookup(&index);
}

/* The I/O that held the slot is over, but its completion was not seen. */
static inline void note_stale(const struct slot *slot, u64 *stale, u32 lane)
{
	struct tally *tally = tally_of(lane + bpf_get_smp_processor_id(), slot->dev,
				       slot->cmd_flags & REQ_OP_MASK);

	if (!slot->is_filtered)
		*stale += 1;
	if (!tally)
		return;
	if (slot->is_filtered) {
		tally->filtered++;
		tally->filtered_bytes += slot->bytes;
	} else {
		tally->stale++;
		tally->stale_bytes += slot->bytes;
	}
}

/* Takes a free slot; NULL if all of the key's slots are taken. */
static inline struct slot *claim(u64 key, u64 *stale, u32 lane)
{
	struct bucket *bucket = bucket_of(key);
	int i;

	if (!bucket)
		return NULL;
#pragma unroll
	for (i = 0; i < SLOTS_PER_BUCKET; i++) {
		struct slot *slot = &bucket->slots[i];
		u64 owner;
#ifdef HAVE_CMPXCHG
		owner = __sync_val_compare_and_swap(&slot->key, 0, key);
#else
		/* Two CPUs may take the same slot; the one overwritten is counted as unmatched. */
		owner = slot->key;
		if (!owner)
			slot->key = key;
#endif
		if (owner == key)
			note_stale(slot, stale, lane);
		if (!owner || owner == key)
			return slot;
	}
	return NULL;
}

static inline void note_gap(struct complete_counters *mine, u32 lane, u64 now)
{
	u32 base = lane * GAPS;
	u32 index = base + mine->gaps % GAPS;
	struct gap *gap = gaps.lookup(&index);

	if (gap && mine->gaps && now - gap->last_ns < GAP_NS) {
		gap->last_ns = now;
		gap->lost++;
		return;
	}
	index = base + (mine->gaps + 1) % GAPS;
	gap = gaps.lookup(&index);
	if (!gap)
		return;
	gap->first_ns = now;
	gap->last_ns = now;
	gap->lost = 1;
	mine->gaps++;
}

/* The number of the current thread's identity on this CPU. */
static inline u32 current_identity(struct start_counters *mine, const struct identity *who)
{
	u32 cpu = bpf_get_smp_processor_id();
	u32 index = cpu * CACHED_IDENTITIES + (hash(who->tid) >> 32) % CACHED_IDENTITIES;
	struct cached_identity *cached = cached_identities.lookup(&index);
	struct identity *row;
	const u64 *a, *b;

	if (!cached)
		return NO_IDENTITY;
	a = (const u64 *)&cached->identity;
	b = (const u64 *)who;
	if (cached->number && a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3])
		return cached->number;
	index = cpu * IDENTITIES + (mine->identities + 1) % IDENTITIES;
	row = identities.lookup(&index);
	if (!row)
		return NO_IDENTITY;
	*row = *who;
	mine->identities++;
	cached->identity = *who;
	cached->number = mine->identities;
	return cached->number;
}

static inline bool is_wanted_device(u32 dev, u32 partno)
{
#ifdef FILTER_DEVICE
	struct device_key disk = {dev, WHOLE_DISK}, partition = {dev, partno};

	return filter_device.lookup(&disk) || filter_device.lookup(&partition);
#else
	return true;
#endif
}

static inline bool is_wanted_op(u32 cmd_flags)
{
#ifdef FILTER_OPS
	return FILTER_OPS >> (cmd_flags & 63) & 1;
#else
	return true;
#endif
}

/* Nobody in particular submits a flush that the kernel makes for several writes. */
#if defined(FILTER_PID) || defined(FILTER_COMM) || defined(FILTER_CGROUPS)
#define IS_UNKNOWN_SUBMITTER_WANTED false
#else
#define IS_UNKNOWN_SUBMITTER_WANTED true
#endif

static inline bool is_wanted_submitter(const struct identity *who)
{
#ifdef EXCLUDED_PID
	if (who->pid == EXCLUDED_PID)
		return false;
#endif
#ifdef FILTER_PID
	if (!filter_pid.lookup((u32 *)&who->pid))
		return false;
#endif
#ifdef FILTER_COMM
	if (!filter_comm.lookup((struct comm_key *)&who->comm))
		return false;
#endif
#ifdef FILTER_CGROUPS
	int i;

#pragma unroll
	for (i = 0; i < FILTER_CGROUPS; i++)
		if (filter_cgroup.check_current_task(i) == 1)
			return true;
	return false;
#else
	return true;
#endif
}

#ifdef HAVE_QUEUE_DISK
#define disk_of_request(rq) ((rq)->q->disk)
#else
#define disk_of_request(rq) ((rq)->rq_disk)
#endif

static inline u32 dev_of_disk(struct gendisk *disk)
{
	return disk->major << 20 | disk->first_minor;
}

static inline u8 partno_of_bio(struct bio *bio)
{
#if defined(HAVE_BD_FLAGS)
	return bio->bi_bdev->__bd_flags & 0xff;
#elif defined(HAVE_BI_BDEV)
	return bio->bi_bdev->bd_partno;
#else
	return bio->bi_partno;
#endif
}

static inline struct slot *submit(struct start_counters *mine, u64 key, u32 dev, u8 partno,
				  u32 cmd_flags)
{
	u64 id = bpf_get_current_pid_tgid();
	struct identity who = {.cgroup = bpf_get_current_cgroup_id(), .pid = id >> 32, .tid = id};
	struct slot *slot;

	mine->runs++;
	slot = claim(key, &mine->stale, START_LANE);
	if (!slot) {
		mine->table_full++;
		return NULL;
	}
	bpf_get_current_comm(&who.comm, sizeof(who.comm));
	slot->cmd_flags = cmd_flags;
	slot->dev = dev;
	slot->partno = partno;
	slot->issue_ns = 0;
	slot->done_bytes = 0;
	slot->error = 0;
	slot->is_filtered = !is_wanted_device(dev, partno) || !is_wanted_op(cmd_flags) ||
			    !is_wanted_submitter(&who);
	if (!slot->is_filtered)
		slot->identity = current_identity(mine, &who);
	slot->cpu = bpf_get_smp_processor_id();
	slot->start_ns = bpf_ktime_get_ns();
	trace_submit(who.comm, dev, cmd_flags);
	return slot;
}

#ifdef HAVE_BLOCK_IO_START

int on_start(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct counters *mine = counters_if_recording();
	struct slot *slot;

	if (!mine)
		return 0;
	slot = submit(&mine->start, plain(rq, &mine->start.scratch),
		      dev_of_disk(disk_of_request(rq)), partno_of_bio(rq->bio), rq->cmd_flags);
	if (!slot)
		return 0;
	slot->bytes = rq->__data_len;
	slot->sector = rq->__sector;
	return 0;
}

static inline struct slot *find_request(struct request *rq, u64 *scratch)
{
	return find(plain(rq, scratch));
}

#else

/*
 * Before 6.5 no tracepoint shows the request in its submitter's context. The one that shows the bio
 * for which a request was just allocated does: the I/O is found by its bio until it is issued.
 */
int on_start(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[GETRQ_BIO_ARGUMENT];
	struct counters *mine = counters_if_recording();
	struct slot *slot;

	if (!mine)
		return 0;
	slot = submit(&mine->start, plain(bio, &mine->start.scratch),
#ifdef HAVE_BI_BDEV
		      dev_of_disk(bio->bi_bdev->bd_disk),
#else
		      dev_of_disk(bio->bi_disk),
#endif
		      partno_of_bio(bio), bio->bi_opf);
	if (!slot)
		return 0;
	slot->bytes = 0;
	slot->sector = 0;
	return 0;
}

/* A front merge changes the first bio, a back merge the last one. */
static inline struct slot *find_request(struct request *rq, u64 *scratch)
{
	struct slot *slot = find(plain(rq, scratch));

	if (!slot)
		slot = find(plain(rq->bio, scratch));
	if (!slot)
		slot = find(plain(rq->biotail, scratch));
	return slot;
}

static inline struct slot *rekey(struct slot *old, u64 key, struct issue_counters *mine)
{
	struct slot *slot = claim(key, &mine->stale, ISSUE_LANE);

	if (!slot) {
		mine->table_full++;
	} else {
		slot->start_ns = old->start_ns;
		slot->issue_ns = old->issue_ns;
		slot->done_bytes = old->done_bytes;
		slot->dev = old->dev;
		slot->cmd_flags = old->cmd_flags;
		slot->identity = old->identity;
		slot->cpu = old->cpu;
		slot->error = old->error;
		slot->partno = old->partno;
		slot->is_filtered = old->is_filtered;
	}
	old->key = 0;
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

static inline struct slot *begin_at_issue(struct request *rq, u64 key, struct issue_counters *mine)
{
	struct slot *slot = claim(key, &mine->stale, ISSUE_LANE);

	if (!slot) {
		mine->table_full++;
		return NULL;
	}
	slot->start_ns = bpf_ktime_get_ns();
	slot->done_bytes = 0;
	slot->dev = dev_of_disk(disk_of_request(rq));
	slot->cmd_flags = rq->cmd_flags;
	slot->identity = NO_IDENTITY;
	slot->cpu = bpf_get_smp_processor_id();
	slot->error = 0;
	slot->partno = 0;
	slot->is_filtered = !IS_UNKNOWN_SUBMITTER_WANTED || !is_wanted_device(slot->dev, 0) ||
			    !is_wanted_op(slot->cmd_flags);
	return slot;
}

int on_issue(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[ISSUE_REQUEST_ARGUMENT];
	struct counters *mine = counters_if_recording();
	struct slot *slot;
	u64 key;

	if (!mine)
		return 0;
	key = plain(rq, &mine->issue.scratch);
	slot = find_request(rq, &mine->issue.scratch);
	if (!slot && begins_at_issue(rq->cmd_flags & REQ_OP_MASK))
		slot = begin_at_issue(rq, key, &mine->issue);
#ifndef HAVE_BLOCK_IO_START
	else if (slot && slot->key != key)
		slot = rekey(slot, key, &mine->issue);
#endif
	if (!slot)
		return 0;
	slot->issue_ns = bpf_ktime_get_ns();
	slot->bytes = slot->done_bytes + rq->__data_len;
	if (!slot->done_bytes)
		slot->sector = rq->__sector;
#ifndef HAVE_BI_BDEV
	slot->partno = rq->part->partno;
#endif
	return 0;
}

int on_requeue(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[REQUEUE_REQUEST_ARGUMENT];
	struct counters *mine = counters_if_recording();
	struct slot *slot;

	if (!mine)
		return 0;
	mine->requeue.requeued++;
	slot = find_request(rq, &mine->requeue.scratch);
	if (slot)
		slot->issue_ns = 0;
	return 0;
}

/* The request has become part of another one and is freed without a completion. */
int on_merge(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[MERGE_REQUEST_ARGUMENT];
	struct counters *mine = counters_if_recording();
	struct slot *slot;

	if (!mine)
		return 0;
	slot = find_request(rq, &mine->merge.scratch);
	if (!slot)
		return 0;
	mine->merge.merged++;
	slot->key = 0;
	return 0;
}

static inline void emit(struct complete_counters *mine, u32 lane, struct slot *slot, u64 now,
			u32 bytes)
{
	struct record *record = records.ringbuf_reserve(sizeof(*record));
	struct tally *tally;

	if (!record) {
		mine->ring_full++;
		note_gap(mine, lane, now);
		tally = tally_of(lane, slot->dev, slot->cmd_flags & REQ_OP_MASK);
		if (tally) {
			tally->ring_full++;
			tally->ring_full_bytes += bytes;
		}
		return;
	}
	record->start_ns = slot->start_ns;
	record->latency_ns = now - slot->start_ns;
	record->queue_ns = slot->issue_ns ? slot->issue_ns - slot->start_ns : NO_ISSUE;
	record->sector = slot->sector;
	record->bytes = bytes;
	record->dev = slot->dev;
	record->cmd_flags = slot->cmd_flags;
	record->identity = slot->identity;
	record->cpu = slot->cpu;
	record->error = slot->error;
	record->partno = slot->partno;
	mine->recorded++;
	records.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/*
 * The data of a write with a flush before or after it completes while RQF_FLUSH_SEQ is set; the
 * request completes once more, with no bytes left, after the last flush. The flush itself has the
 * flag too, but completes once.
 */
static inline bool is_continuation(struct request *rq, u32 nr_bytes, u32 left)
{
	if ((rq->cmd_flags & REQ_OP_MASK) == REQ_OP_FLUSH)
		return false;
	return rq->rq_flags & RQF_FLUSH_SEQ || nr_bytes < left;
}

static inline bool is_filtered(const struct slot *slot, u64 now)
{
#ifdef MIN_LATENCY_NS
	if (now - slot->start_ns < MIN_LATENCY_NS)
		return true;
#endif
	return slot->is_filtered;
}

static inline void complete(u64 *ctx, struct complete_counters *mine, u32 lane)
{
	struct request *rq = (struct request *)ctx[0];
	u32 nr_bytes = ctx[2], left = rq->__data_len;
#ifdef HAVE_BLK_STATUS
	u16 error = (u8)ctx[1];
#else
	u16 error = -(int)ctx[1];
#endif
	struct slot *slot;
	struct tally *tally;
	u64 now;
	u32 bytes;

	mine->runs++;
	slot = find_request(rq, &mine->scratch);
	if (slot && error && !slot->error)
		slot->error = error;
	if (is_continuation(rq, nr_bytes, left)) {
		mine->continuations++;
		if (slot)
			slot->done_bytes += nr_bytes;
		return;
	}
	if (!slot) {
		mine->unmatched++;
		tally = tally_of(lane, dev_of_disk(disk_of_request(rq)), rq->cmd_flags & REQ_OP_MASK);
		if (tally) {
			tally->unmatched++;
			tally->unmatched_bytes += nr_bytes;
		}
		return;
	}
	now = bpf_ktime_get_ns();
	bytes = slot->done_bytes + left;
	if (!slot->issue_ns && !slot->done_bytes)
		slot->sector = rq->__sector;
	trace_complete(now - slot->start_ns, bytes, slot->error);
	if (is_filtered(slot, now)) {
		mine->filtered++;
		tally = tally_of(lane, slot->dev, slot->cmd_flags & REQ_OP_MASK);
		if (tally) {
			tally->filtered++;
			tally->filtered_bytes += bytes;
		}
	} else {
		emit(mine, lane, slot, now, bytes);
	}
	slot->key = 0;
}

int on_complete(u64 *ctx)
{
	u32 lane = bpf_get_smp_processor_id();
	struct complete_counters *mine = completions.lookup(&lane);

	if (!mine || !recording())
		return 0;
	mine->is_running = true;
	complete(ctx, mine, lane);
	mine->is_running = false;
	return 0;
}

int on_nested_complete(u64 *ctx)
{
	u32 lane = bpf_get_smp_processor_id();
	struct complete_counters *interrupted = completions.lookup(&lane), *mine;

	if (!interrupted || !interrupted->is_running || !recording())
		return 0;
	lane += CPUS;
	mine = completions.lookup(&lane);
	if (mine)
		complete(ctx, mine, lane);
	return 0;
}
