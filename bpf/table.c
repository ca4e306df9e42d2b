// SPDX-License-Identifier: GPL-2.0-only
/* The table of the I/Os in flight. */

/*
 * Of requests, at least 8 slots for each that the machine's queues can hold. Bios have no bound:
 * one that finds no slot is counted. Both share a table, as what follows is the same for both and
 * no two of them have one key.
 */
BPF_F_TABLE("array", u32, struct bucket, in_flight, BUCKETS, MMAPABLE);

/* Where an I/O is in the table; `bucket` is NULL if it is not there. */
struct entry {
	struct bucket *bucket;
	u64 place;
};

static inline struct slot *slot_of(struct entry entry)
{
	return &entry.bucket->slots[entry.place & (SLOTS_PER_BUCKET - 1)];
}

static inline void set_key(struct entry entry, u64 key)
{
	entry.bucket->keys[entry.place & (SLOTS_PER_BUCKET - 1)] = key;
}

static inline struct bucket *bucket_of(u64 key)
{
	u32 index = (hash(key) >> 32) & (BUCKETS - 1);

	return in_flight.lookup(&index);
}

static inline struct entry find(u64 key)
{
	struct entry entry = { key ? bucket_of(key) : NULL, 0 };
	int i;

	if (!entry.bucket)
		return entry;
#pragma unroll
	for (i = 0; i < SLOTS_PER_BUCKET; i++) {
		if (entry.bucket->keys[i] == key) {
			entry.place = i;
			return entry;
		}
	}
	entry.bucket = NULL;
	return entry;
}

/* find() without branches: the verifier allows 8192 of them in all rounds of a loop together. */
static inline struct entry find_in_loop(u64 key)
{
	struct entry entry = { bucket_of(key), 0 };
	u64 is_same;
	int i;

	if (!entry.bucket)
		return entry;
#pragma unroll
	for (i = 0; i < SLOTS_PER_BUCKET; i++) {
		is_same = is_zero(entry.bucket->keys[i] ^ key);
		entry.place += is_same * i;
	}
	asm volatile("" : "+r"(entry.place));
	entry.place &= SLOTS_PER_BUCKET - 1;
	if (entry.bucket->keys[entry.place] != key)
		entry.bucket = NULL;
	return entry;
}

/* Whether a copy before this one has put the I/O into the table. */
static inline bool has_begun(u64 key)
{
	struct entry entry = find(key);

	return entry.bucket && !slot_of(entry)->is_part && !slot_of(entry)->issue_ns;
}

static inline u32 layer_of(const struct slot *slot)
{
	return slot->source / CPUS;
}

/* The I/O that held the slot is over, but its completion was not seen. */
static inline void note_stale(const struct slot *slot, struct lane *mine, u32 first_lane)
{
	struct tally *tally;

	if (slot->is_part)
		return;
	tally = tally_of(layer_of(slot), slot->dev, slot->cmd_flags);
	if (!slot->is_filtered) {
		mine->stale++;
		note_gap(mine, first_lane, slot->start_ns, bpf_ktime_get_ns());
	}
	if (!tally)
		return;
	if (slot->is_filtered) {
		count(tally->filtered, 1);
		count(tally->filtered_bytes, slot->bytes);
	} else {
		count(tally->stale, 1);
		count(tally->stale_bytes, slot->bytes);
	}
}

/* Takes a slot for the key, also from an I/O that was not seen to end; NULL if all are taken. */
static inline struct slot *claim(u64 key, struct lane *mine, u32 first_lane)
{
	struct entry entry = find(key);
	struct bucket *bucket;
	int i;

	if (entry.bucket) {
		note_stale(slot_of(entry), mine, first_lane);
		return slot_of(entry);
	}
	bucket = bucket_of(key);
	if (!bucket)
		return NULL;
#pragma unroll
	for (i = 0; i < SLOTS_PER_BUCKET; i++) {
#ifdef HAVE_CMPXCHG
		if (!__sync_val_compare_and_swap(&bucket->keys[i], 0, key))
			return &bucket->slots[i];
#else
		/* Two CPUs may take the same slot; the one overwritten is counted as unmatched. */
		if (!bucket->keys[i]) {
			bucket->keys[i] = key;
			return &bucket->slots[i];
		}
#endif
	}
	mine->table_full++;
	return NULL;
}
