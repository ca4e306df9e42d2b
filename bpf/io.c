// SPDX-License-Identifier: GPL-2.0
/*
 * What the programs of all layers share: the maps, and the way of an I/O from the table of those in
 * flight into a record.
 *
 * In front of this file stands a generated header: the kernel structs that are read here, each
 * member at its offset in the running kernel, and the HAVE_ macros. Behind it stand the files of
 * the layers that are recorded. The recorder adds, as -D flags: CPUS, LAYERS, BUCKETS, RING_PAGES,
 * IDENTITIES, the tracepoints' argument numbers, and the filters.
 */
#include "records.h"

#define MMAPABLE (1U << 10)

/* Set while recording; clear before and after, so that all programs start and stop as one. */
BPF_F_TABLE("array", u32, u64, is_recording, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct counters, counters, CPUS, MMAPABLE);
/*
 * The kernel skips a program that is running on the CPU already (05b24ff9b2cf, 6.1), so a
 * completion that interrupts another one would be missed. A second program takes it. Each of these
 * programs has a lane of its own on each CPU, those that take what interrupts behind the others.
 */
#define REQUEST_LANE 0
#define BIO_LANE (2 * CPUS)
#define BIO_OF_REQUEST_LANE (4 * CPUS)
#ifdef RECORDS_BIOS
#define LANES (6 * CPUS)
#else
#define LANES (2 * CPUS)
#endif
BPF_F_TABLE("array", u32, struct complete_counters, completions, LANES, MMAPABLE);
/*
 * Of requests, at least 8 slots for each that the machine's queues can hold. Bios have no bound:
 * one that finds no slot is counted. Both share a table, as what follows is the same for both and
 * no two of them have one key.
 */
BPF_F_TABLE("array", u32, struct bucket, in_flight, BUCKETS, MMAPABLE);
/* For each layer and CPU a ring of the newest identities; the recorder reads them at every drain. */
BPF_F_TABLE("array", u32, struct identity, identities, LAYERS * CPUS * IDENTITIES, MMAPABLE);
/* And the identities seen last; a miss costs a new identity, no more. */
#define CACHED_IDENTITIES 1024
BPF_F_TABLE("array", u32, struct cached_identity, cached_identities,
	    LAYERS * CPUS * CACHED_IDENTITIES, 0);
/* For each lane some 50 devices with their operations. */
#define TALLY_BUCKETS 32
/* What is no completion is rare, and counted by several programs, with atomic additions. */
#define OTHER_LANE LANES
BPF_F_TABLE("array", u32, struct tally_bucket, tallies, (LANES + CPUS) * TALLY_BUCKETS,
	    MMAPABLE);
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

/* 1 or 0, in such a way that neither the compiler nor the verifier makes a branch of it. */
static inline u64 is_zero(u64 value)
{
	u64 negative = -value, is_other;

	asm volatile("" : "+r"(negative));
	is_other = (value | negative) >> 63;
	asm volatile("" : "+r"(is_other));
	return 1 - is_other;
}

/* The same without branches, of which the verifier allows 8192 in all rounds of a loop together. */
static inline struct slot *find_in_loop(u64 key)
{
	struct bucket *bucket = bucket_of(key);
	u64 place = 0, is_same;
	int i;

	if (!bucket)
		return NULL;
#pragma unroll
	for (i = 0; i < SLOTS_PER_BUCKET; i++) {
		is_same = is_zero(bucket->slots[i].key ^ key);
		place += is_same * i;
	}
	asm volatile("" : "+r"(place));
	place &= SLOTS_PER_BUCKET - 1;
	return bucket->slots[place].key == key ? &bucket->slots[place] : NULL;
}

/* NULL if 8 others share the bucket. Without branches for the same reason. */
static inline struct tally *tally_of(u32 lane, u32 layer, u32 dev, u32 op)
{
	u64 key = 1ULL << 63 | (u64)layer << 40 | (u64)dev << 8 | op;
	u32 index = lane * TALLY_BUCKETS + (hash(key) >> 32) % TALLY_BUCKETS;
	struct tally_bucket *bucket = tallies.lookup(&index);
	u64 place = 0, is_fit;
	struct tally *tally;
	int i;

	if (!bucket)
		return NULL;
	/* The place of the key; if there is none, the first free one. Keys have the highest bit. */
#pragma unroll
	for (i = TALLIES_PER_BUCKET - 1; i >= 0; i--) {
		is_fit = is_zero(bucket->tallies[i].key) + is_zero(bucket->tallies[i].key ^ key);
		place += (i - place) * is_fit;
	}
	asm volatile("" : "+r"(place));
	tally = &bucket->tallies[place & (TALLIES_PER_BUCKET - 1)];
	if (tally->key == key)
		return tally;
#ifdef HAVE_CMPXCHG
	return __sync_val_compare_and_swap(&tally->key, 0, key) ? NULL : tally;
#else
	if (tally->key)
		return NULL;
	tally->key = key;
	return tally;
#endif
}

static inline struct tally *other_tally_of(u32 layer, u32 dev, u32 cmd_flags)
{
	return tally_of(OTHER_LANE + bpf_get_smp_processor_id(), layer, dev,
			cmd_flags & REQ_OP_MASK);
}

static inline u32 layer_of(const struct slot *slot)
{
	return slot->lane / CPUS;
}

/* The I/O that held the slot is over, but its completion was not seen. */
static inline void note_stale(const struct slot *slot, u64 *stale)
{
	struct tally *tally;

	if (slot->is_part)
		return;
	tally = other_tally_of(layer_of(slot), slot->dev, slot->cmd_flags);
	if (!slot->is_filtered)
		*stale += 1;
	if (!tally)
		return;
	if (slot->is_filtered) {
		__sync_fetch_and_add(&tally->filtered, 1);
		__sync_fetch_and_add(&tally->filtered_bytes, slot->bytes);
	} else {
		__sync_fetch_and_add(&tally->stale, 1);
		__sync_fetch_and_add(&tally->stale_bytes, slot->bytes);
	}
}

/* Takes a free slot; NULL if all of the key's slots are taken. */
static inline struct slot *claim(u64 key, u64 *stale)
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
			note_stale(slot, stale);
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

/* The number of an identity in its lane. */
static inline u32 identity_number(struct program_counters *mine, u32 lane,
				  const struct identity *who)
{
	u32 spread = hash(who->inode << 32 ^ who->inode_dev ^ who->tid) >> 32;
	u32 index = lane * CACHED_IDENTITIES + spread % CACHED_IDENTITIES;
	struct cached_identity *cached = cached_identities.lookup(&index);
	struct identity *row;
	const u64 *a, *b;

	if (!cached)
		return NO_IDENTITY;
	a = (const u64 *)&cached->identity;
	b = (const u64 *)who;
	if (cached->number && a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] &&
	    a[4] == b[4] && a[5] == b[5] && a[6] == b[6])
		return cached->number;
	index = lane * IDENTITIES + (mine->identities + 1) % IDENTITIES;
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

/* As many bios as fit into a request of 4 MiB, page by page. */
#define MOST_BIOS 1024

static inline u32 dev_of_disk(struct gendisk *disk)
{
	return disk->major << 20 | disk->first_minor;
}

static inline u32 dev_of_bio(struct bio *bio)
{
#ifdef HAVE_BI_BDEV
	return dev_of_disk(bio->bi_bdev->bd_disk);
#else
	return dev_of_disk(bio->bi_disk);
#endif
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

/* The cgroup that an I/O is charged to: of writeback that of the writer, not of the kworker. */
static inline u64 charged_cgroup(struct bio *bio)
{
#if defined(HAVE_BI_BLKG) && defined(IS_IO_CONTROLLER_UNIFIED)
	struct blkcg_gq *blkg = bio->bi_blkg;

	return blkg ? blkg->blkcg->cgroup->kn->id : 0;
#else
	return 0;
#endif
}

/* BIO_PAGE_PINNED, and BIO_NO_PAGE_REF before 6.5: the memory is a process's, not the cache's. */
#define BIO_IS_DIRECT 1

/*
 * The file in whose page cache the I/O's first page is. A page of anything else (a process, the
 * kernel's own buffers, the middle of a large folio) has no mapping, or something else in its
 * place: only a file's mapping belongs to the inode that it names. Files without a block device
 * (tmpfs) do no I/O by themselves: their pages are buffers of somebody's direct I/O.
 */
static inline void set_file(struct identity *who, struct bio *bio, volatile u64 *scratch)
{
	u32 op = bio->bi_opf & REQ_OP_MASK;
	struct address_space *mapping;
	struct inode *inode;

	if ((op != REQ_OP_READ && op != REQ_OP_WRITE) || !bio->bi_size ||
	    bio->bi_flags & BIO_IS_DIRECT)
		return;
	mapping = bio->bi_io_vec->bv_page->mapping;
	if (!mapping)
		return;
	inode = mapping->host;
	if (!inode || plain(inode->i_mapping, scratch) != plain(mapping, scratch))
		return;
	if ((inode->i_mode & S_IFMT) == S_IFBLK) {
		who->inode_dev = inode->i_rdev;
	} else if (inode->i_sb->s_bdev) {
		who->inode_dev = inode->i_sb->s_dev;
		who->inode = inode->i_ino;
		who->generation = inode->i_generation;
	}
}

/* Puts an I/O into the table; NULL if there is no room. */
static inline struct slot *submit(struct program_counters *mine, u32 layer, u64 key,
				  struct bio *bio, u32 dev, u8 partno, u32 cmd_flags)
{
	u64 id = bpf_get_current_pid_tgid();
	struct identity who = {.cgroup = bpf_get_current_cgroup_id(), .pid = id >> 32, .tid = id};
	struct slot *slot;

	mine->runs++;
	slot = claim(key, &mine->stale);
	if (!slot) {
		mine->table_full++;
		return NULL;
	}
	bpf_get_current_comm(&who.comm, sizeof(who.comm));
	slot->lane = layer * CPUS + bpf_get_smp_processor_id();
	slot->cmd_flags = cmd_flags;
	slot->dev = dev;
	slot->partno = partno;
	slot->issue_ns = 0;
	slot->done_bytes_or_parts = 0;
	slot->error = 0;
	slot->bios_or_above = slot->is_part ? slot->bios_or_above : 0;
	slot->is_part = false;
	slot->is_filtered = !is_wanted_device(dev, partno) || !is_wanted_op(cmd_flags) ||
			    !is_wanted_submitter(&who);
	if (!slot->is_filtered) {
		if (bio) {
			who.charged_cgroup = charged_cgroup(bio);
			set_file(&who, bio, &mine->scratch);
		}
		slot->identity = identity_number(mine, slot->lane, &who);
	}
	slot->start_ns = bpf_ktime_get_ns();
	trace_submit(who.comm, dev, cmd_flags);
	return slot;
}

static inline bool is_filtered(const struct slot *slot, u64 now)
{
#ifdef MIN_LATENCY_NS
	if (now - slot->start_ns < MIN_LATENCY_NS)
		return true;
#endif
	return slot->is_filtered;
}

/* The completion of an I/O that is not in the table. */
static inline void note_unmatched(struct complete_counters *mine, u32 lane, u32 layer, u32 dev,
				  u32 cmd_flags, u32 bytes)
{
	struct tally *tally = tally_of(lane, layer, dev, cmd_flags & REQ_OP_MASK);

	mine->unmatched++;
	if (tally) {
		tally->unmatched++;
		tally->unmatched_bytes += bytes;
	}
}

/* Takes a finished I/O out of the table and records it. */
static inline void finish(struct complete_counters *mine, u32 lane, struct slot *slot, u32 bytes)
{
	u64 now = bpf_ktime_get_ns();
	bool is_wanted = !is_filtered(slot, now);
	struct record *record = is_wanted ? records.ringbuf_reserve(sizeof(*record)) : NULL;
	struct tally *tally;

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
		record->bios_or_above = slot->bios_or_above;
		record->lane = slot->lane;
		record->error = slot->error;
		record->partno = slot->partno;
		mine->recorded++;
		records.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
		slot->key = 0;
		return;
	}
	tally = tally_of(lane, layer_of(slot), slot->dev, slot->cmd_flags & REQ_OP_MASK);
	slot->key = 0;
	if (!is_wanted) {
		mine->filtered++;
		if (tally) {
			tally->filtered++;
			tally->filtered_bytes += bytes;
		}
	} else {
		mine->ring_full++;
		note_gap(mine, lane, now);
		if (tally) {
			tally->ring_full++;
			tally->ring_full_bytes += bytes;
		}
	}
}

/* The lane of this CPU behind `base`; NULL while not recording. */
static inline struct complete_counters *first_lane(u32 base, u32 *lane)
{
	*lane = base + bpf_get_smp_processor_id();
	return recording() ? completions.lookup(lane) : NULL;
}

/* The same of a completion that interrupts another one; NULL if it does not. */
static inline struct complete_counters *nested_lane(u32 base, u32 *lane)
{
	struct complete_counters *interrupted = first_lane(base, lane);

	if (!interrupted || !interrupted->is_running)
		return NULL;
	*lane += CPUS;
	return completions.lookup(lane);
}

/* A bio may be what a request is found by, too (before 6.5): the lowest bit tells the two apart. */
static inline struct slot *find_bio(struct bio *bio, u64 *key, u64 *scratch)
{
	*key = plain(bio, scratch) | 1;
	return find(*key);
}

/* The bio of which this one was split off (bio_chain), if it is one of those in flight. */
static inline struct slot *find_whole(struct bio *bio, u64 *key, u64 *scratch)
{
	*key = plain(bio->bi_private, scratch) | 1;
	return find(*key);
}

/*
 * A bio that is no I/O, as it was not queued: either it is the front that was split off another
 * one, or it is about to be queued. Returns its slot if it is an I/O after all, else NULL.
 */
static inline struct slot *note_part(struct program_counters *mine, struct bio *bio, bool is_split,
				     u32 above)
{
	u64 key, whole_key;
	struct slot *slot = find_bio(bio, &key, &mine->scratch), *whole;

	if (slot)
		return slot->is_part ? NULL : slot;
	slot = claim(key, &mine->stale);
	if (!slot) {
		mine->table_full++;
		return NULL;
	}
	slot->is_part = true;
	slot->bios_or_above = above;
	slot->start_ns = 0;
	whole = is_split ? find_whole(bio, &whole_key, &mine->scratch) : NULL;
	if (whole) {
		slot->start_ns = whole_key;
		__sync_fetch_and_add(&whole->done_bytes_or_parts, 1);
	}
	return NULL;
}

/*
 * The bio is too large for its device. The kernel splits off its front, as a bio that ends without
 * having been queued, and goes on with the rest; device-mapper puts the whole back instead.
 */
int on_split(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[SPLIT_BIO_ARGUMENT];
	struct counters *mine = counters_if_recording();
	struct tally *tally;

	if (!mine)
		return 0;
	tally = other_tally_of(REQUEST_LAYER, dev_of_bio(bio), bio->bi_opf);
	if (tally)
		__sync_fetch_and_add(&tally->splits, 1);
#ifdef RECORDS_BIOS
	note_part(&mine->split, bio, true, 0);
#endif
	return 0;
}
