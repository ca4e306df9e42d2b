/* SPDX-License-Identifier: GPL-2.0 */
/* What the kernel programs share with the recorder; iorec/records.py holds the same layouts. */

#define NO_ISSUE (~0ULL)
#define NO_IDENTITY 0

/* One finished I/O. 56 bytes: with the ring buffer's 8-byte header, one cache line. */
struct record {
	u64 start_ns;
	u64 latency_ns;
	u64 queue_ns;		/* NO_ISSUE: never handed to the driver */
	u64 sector;
	u32 bytes;
	u32 dev;		/* whole disk: major << 20 | minor */
	u32 cmd_flags;		/* REQ_OP_ and REQ_ flags as submitted */
	u32 identity;		/* number in the submitting CPU's identities, or NO_IDENTITY */
	u16 cpu;
	u16 error;		/* blk_status_t, or errno on kernels before 5.16 */
	u8 partno;
	u8 padding[3];
};

/* An I/O in flight: one cache line, so that two never share one. */
struct slot {
	u64 key;		/* address of the request (or bio); 0: free */
	u64 start_ns;
	u64 issue_ns;		/* 0: not handed to the driver yet */
	u64 sector;
	u32 bytes;
	u32 done_bytes;		/* of partial completions so far */
	u32 dev;
	u32 cmd_flags;
	u32 identity;
	u16 cpu;
	u16 error;
	u8 partno;
	u8 is_filtered;
	u8 padding[6];
};

#define SLOTS_PER_BUCKET 8

struct bucket {
	struct slot slots[SLOTS_PER_BUCKET];
};

/* Who submits: written once for each thread, name and cgroup that a CPU sees. */
struct identity {
	u64 cgroup;
	u32 pid;
	u32 tid;
	char comm[16];
};

struct cached_identity {
	struct identity identity;
	u32 number;
	u32 padding;
};

/*
 * Counters of one CPU. Programs may interrupt each other, so each has a section, and a cache line,
 * of its own; a program never runs twice at once on one CPU.
 */
struct start_counters {
	u64 scratch;
	u64 runs;
	u64 table_full;
	u64 stale;		/* the request's earlier use was not seen to complete */
	u64 identities;		/* the number of the newest identity */
	u64 padding[3];
};

struct issue_counters {
	u64 scratch;
	u64 table_full;
	u64 stale;
	u64 padding[5];
};

struct merge_counters {
	u64 scratch;
	u64 merged;
	u64 padding[6];
};

struct requeue_counters {
	u64 scratch;
	u64 requeued;
	u64 padding[6];
};

struct counters {
	struct start_counters start;
	struct issue_counters issue;
	struct merge_counters merge;
	struct requeue_counters requeue;
};

/* Counters of one lane: the completions of a CPU, or those that interrupt them. */
struct complete_counters {
	u64 is_running;
	u64 scratch;
	u64 runs;
	u64 recorded;
	u64 ring_full;
	u64 filtered;
	u64 unmatched;		/* not in the table: began before the recording, or not seen to start */
	u64 continuations;	/* one part of an I/O: of a flush sequence, or partial */
	u64 gaps;		/* the number of the newest gap */
	u64 padding[7];
};

/* I/Os of one device and operation that got no record, counted in one lane. */
struct tally {
	u64 key;		/* dev << 8 | op, plus 1 << 63; 0: free */
	u64 filtered;
	u64 filtered_bytes;
	u64 ring_full;
	u64 ring_full_bytes;
	u64 unmatched;
	u64 unmatched_bytes;
	u64 stale;
	u64 stale_bytes;
	u64 padding[7];
};

/* A span in which records found no room in one lane. */
struct gap {
	u64 first_ns;
	u64 last_ns;
	u64 lost;
};
