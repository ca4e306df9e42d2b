// SPDX-License-Identifier: GPL-2.0
/* The table of the I/Os in flight. Stands behind ledger.c. */

/*
 * Of requests, at least 8 slots for each that the machine's queues can hold. Bios have no bound:
 * one that finds no slot is counted. Both share a table, as what follows is the same for both and
 * no two of them have one key.
 */
BPF_F_TABLE("array", u32, struct bucket, in_flight, BUCKETS, MMAPABLE);

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

/* find() without branches, of which the verifier allows 8192 in all rounds of a loop together. */
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
