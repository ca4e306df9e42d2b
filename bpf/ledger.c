// SPDX-License-Identifier: GPL-2.0
/*
 * Counts what becomes of every I/O, and names the lanes of the programs that count.
 *
 * In front of this file stands a generated header: the kernel structs that are read here, each
 * member at its offset in the running kernel, and the HAVE_ macros. Behind it stand table.c,
 * filter.c, device.c, owner.c, io.c and the files of the layers that are recorded. The recorder
 * adds, as -D flags: CPUS, LAYERS, BUCKETS, RING_PAGES, IDENTITIES, SECOND_MARK, the tracepoints'
 * argument numbers, and the filters.
 */
#include "records.h"

#define MMAPABLE (1U << 10)

/* One switch for all programs, so that they start and stop as one. */
BPF_F_TABLE("array", u32, struct control, control, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct counters, counters, CPUS, MMAPABLE);
/*
 * The kernel skips a program that is running on the CPU already (05b24ff9b2cf, 6.1), so a
 * completion that interrupts another one would be missed. A second program takes it: the same one,
 * loaded twice. Each of these programs has a lane of its own on each CPU, those that take what
 * interrupts behind the others.
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

static inline u64 hash(u64 value)
{
	/* 2^64 divided by the golden ratio: requests lie at equal distances, which this spreads. */
	return value * 0x9e3779b97f4a7c15ULL;
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

/* The counters of this CPU; NULL while not recording. */
static inline struct counters *counters_if_recording(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return recording() ? counters.lookup(&cpu) : NULL;
}

/* Whether this is the second program: the loader puts 0 or 1 in place of the mark. */
static inline u64 is_second(void)
{
	u64 answer;

	asm volatile("%0 = %1" : "=r"(answer) : "i"(SECOND_MARK));
	return answer;
}

/* The lane behind `base` of this program and CPU; NULL if there is nothing to do. */
static inline struct complete_counters *enter_lane(u32 base, u32 *lane)
{
	struct complete_counters *mine;

	*lane = base + bpf_get_smp_processor_id();
	mine = recording() ? completions.lookup(lane) : NULL;
	if (!mine)
		return NULL;
	if (is_second()) {
		if (!mine->is_running)
			return NULL;
		*lane += CPUS;
		return completions.lookup(lane);
	}
	mine->is_running = true;
	return mine;
}

static inline void leave_lane(struct complete_counters *mine)
{
	mine->is_running = false;
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

/* NULL if 8 others share the bucket. Without branches (see find_in_loop() in table.c). */
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
