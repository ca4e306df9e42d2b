// SPDX-License-Identifier: GPL-2.0-only
/* Counts what becomes of every I/O, and gives each copy of a program a lane to count in. */

#define MMAPABLE (1U << 10)

/* One switch for all programs, so that they start and stop as one. */
BPF_F_TABLE("array", u32, struct control, control, 1, MMAPABLE);
/* For each copy of a program (iorec.c) one on each CPU. */
BPF_F_TABLE("array", u32, struct lane, lanes, (LANES * CPUS), MMAPABLE);
/* For each CPU some 50 devices with their operations. Added to atomically. */
#define TALLY_BUCKETS 32
BPF_F_TABLE("array", u32, struct tally_bucket, tallies, (CPUS * TALLY_BUCKETS), MMAPABLE);
/* For each lane a ring of GAPS gaps; two are at least GAP_NS apart, so they last for 1.28 s. */
BPF_F_TABLE("array", u32, struct gap, gaps, LANES * CPUS * GAPS, MMAPABLE);

static inline u64 hash(u64 value)
{
	/* 2^64 divided by the golden ratio: requests lie at equal distances, which this spreads. */
	return value * 0x9e3779b97f4a7c15ULL;
}

/* A typed pointer cannot be hashed; one read back from a map is a plain number. */
static inline u64 plain(const void *pointer, volatile u64 *scratch)
{
	*scratch = (u64)pointer;
	return *scratch;
}

static inline struct control *recorder(void)
{
	u32 zero = 0;

	return control.lookup(&zero);
}

static inline bool recording(void)
{
	struct control *settings = recorder();

	return settings && settings->is_recording;
}

/* The number that the loader puts in place of a mark, so that what is compiled serves for several. */
#define NUMBER_AT(mark)                                                                            \
	({                                                                                         \
		u64 number;                                                                        \
		asm volatile("%0 = %1" : "=r"(number) : "i"(mark));                                \
		number;                                                                            \
	})

/* Which copy of its program this is, from 0. */
static inline u32 copy_number(void)
{
	return NUMBER_AT(COPY_MARK);
}

/* The lane of this copy of a program; NULL if there is nothing to do. */
static inline struct lane *enter(u32 first_lane)
{
	u32 index = (first_lane + copy_number()) * CPUS + bpf_get_smp_processor_id();

	return recording() ? lanes.lookup(&index) : NULL;
}

/* Notes that this copy is the first that runs for an event. */
static inline void take_turn(struct lane *mine)
{
	if (copy_number())
		mine->turns++;
}

/* Returns 1 or 0, so that neither the compiler nor the verifier makes a branch of it. */
static inline u64 is_zero(u64 value)
{
	u64 negative = -value, is_other;

	asm volatile("" : "+r"(negative));
	is_other = (value | negative) >> 63;
	asm volatile("" : "+r"(is_other));
	return 1 - is_other;
}

/* NULL if 8 others share the bucket. Without branches (see find_in_loop() in table.c). */
static inline struct tally *tally_of(u32 layer, u32 dev, u32 cmd_flags)
{
	u64 key = 1ULL << 63 | (u64)layer << 40 | (u64)dev << 8 | (cmd_flags & REQ_OP_MASK);
	u32 index = bpf_get_smp_processor_id() * TALLY_BUCKETS + (hash(key) >> 32) % TALLY_BUCKETS;
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

#define count(field, number) __sync_fetch_and_add(&(field), number)

/*
 * The flags with the operation that a person would name. An empty write that asks for a flush is
 * how an fsync reaches the block layer; the flush that the disk is then asked for is its own.
 */
static inline u32 effective_flags(u32 cmd_flags, u32 bytes)
{
	u32 op = cmd_flags & REQ_OP_MASK;

	if (op == REQ_OP_FLUSH)
		return cmd_flags - REQ_OP_FLUSH + OP_CACHE_FLUSH;
	if (op == REQ_OP_WRITE && cmd_flags & REQ_PREFLUSH && !bytes)
		return cmd_flags - REQ_OP_WRITE + REQ_OP_FLUSH;
	return cmd_flags;
}

/* The completion of an I/O that is not in the table. */
static inline void note_unmatched(struct lane *mine, u32 layer, u32 dev, u32 cmd_flags, u32 bytes)
{
	struct tally *tally = tally_of(layer, dev, effective_flags(cmd_flags, bytes));

	mine->unmatched++;
	if (tally) {
		count(tally->unmatched, 1);
		/* LLVM makes an atomic `or` of adding 0, which kernels before 5.12 refuse. */
		if (bytes)
			count(tally->unmatched_bytes, bytes);
	}
}

/* Extends the lane's newest gap, or begins one. */
static inline void note_gap(struct lane *mine, u32 first_lane, u64 first_ns, u64 last_ns)
{
	u32 base = ((first_lane + copy_number()) * CPUS + bpf_get_smp_processor_id()) * GAPS;
	u32 index = base + mine->gaps % GAPS;
	struct gap *gap = gaps.lookup(&index);

	if (gap && mine->gaps && last_ns - gap->last_ns < GAP_NS) {
		if (first_ns < gap->first_ns)
			gap->first_ns = first_ns;
		gap->last_ns = last_ns;
		gap->lost++;
		return;
	}
	index = base + (mine->gaps + 1) % GAPS;
	gap = gaps.lookup(&index);
	if (!gap)
		return;
	gap->first_ns = first_ns;
	gap->last_ns = last_ns;
	gap->lost = 1;
	mine->gaps++;
}
