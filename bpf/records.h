/* SPDX-License-Identifier: GPL-2.0 */
/* What the kernel programs share with the recorder; iorec/records.py holds the same layouts. */

#define NO_ISSUE (~0ULL)
#define NO_IDENTITY 0

/* A layer sees an I/O from one pair of tracepoints; its number is part of a lane's (bpf/ledger.c). */
#define REQUEST_LAYER 0
#define BIO_LAYER 1

/* What the recorder wants of the programs. */
struct control {
	u64 is_recording;
	u64 wake_bytes;		/* wake it when so much is in the ring buffer; IS_AWAKE: never */
	u64 wakes_for_identities;	/* and when there are new ones */
	u64 has_identities;	/* since it cleared this */
};

#define IS_AWAKE (~0ULL)

/* One finished I/O. 56 bytes: with the ring buffer's 8-byte header, one cache line. */
struct record {
	u64 start_ns;
	u64 latency_ns;
	u64 queue_ns;		/* NO_ISSUE: never handed to the driver, or the device below */
	u64 sector;
	u32 bytes;
	u32 dev;		/* whole disk: major << 20 | minor */
	u32 cmd_flags;		/* REQ_OP_ and REQ_ flags as submitted */
	u32 identity;		/* number in the lane's identities, or NO_IDENTITY */
	u32 bios_or_above;	/* request: bios it carries; bio: the stacked device it is from, or 0 */
	u16 lane;		/* layer * CPUS + submitting CPU */
	u8 error;		/* blk_status_t; of requests on kernels before 5.16, errno */
	u8 partno;
};

/* An I/O in flight: one cache line, so that two never share one. */
struct slot {
	u64 key;		/* address of the request, or of the bio plus 1; 0: free */
	u64 start_ns;		/* of a part: the key of the whole, or 0 */
	u64 issue_ns;		/* 0: not handed to the driver, or the device below, yet */
	u64 sector;
	u32 bytes;
	u32 done_bytes_or_parts;	/* request: bytes of partial completions so far; bio: how many
					 * parts of it must end besides itself */
	u32 dev;
	u32 cmd_flags;
	u32 identity;
	u32 bios_or_above;
	u16 lane;
	u8 error;
	u8 partno;
	u8 is_filtered;
	u8 is_part;		/* a bio that is no I/O: split off from one, or not queued yet */
	u8 padding[2];
};

#define SLOTS_PER_BUCKET 8

struct bucket {
	struct slot slots[SLOTS_PER_BUCKET];
};

/* Who submits, and for whom: written once for each that a CPU sees in a layer. */
struct identity {
	u64 cgroup;
	u64 charged_cgroup;	/* 0: unknown */
	u64 inode;		/* of the first page; 0: unknown, or the page is a block device's */
	u32 inode_dev;		/* the inode's file system, or the block device; 0: unknown */
	u32 generation;		/* of the inode */
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
 * Counters of one program on one CPU. Programs may interrupt each other, so each has its own, in a
 * cache line; a program never runs twice at once on one CPU.
 */
struct program_counters {
	u64 scratch;
	u64 runs;
	u64 table_full;
	u64 stale;		/* the request's or bio's earlier use was not seen to complete */
	u64 identities;		/* the number of the newest identity */
	u64 events;		/* requests merged away, requeues */
	u64 padding[2];
};

struct counters {
	struct program_counters start;
	struct program_counters issue;
	struct program_counters merge;
	struct program_counters requeue;
	struct program_counters split;
	struct program_counters remap;
	struct program_counters bio_queue;
};

/* Counters of one lane: the completions of a layer on a CPU, or those that interrupt them. */
struct complete_counters {
	u64 is_running;
	u64 scratch;
	u64 runs;
	u64 recorded;
	u64 ring_full;
	u64 filtered;
	u64 unmatched;		/* not in the table: began before the recording, or not seen to start */
	u64 continuations;	/* one part of an I/O: of a flush sequence, partial, or split off */
	u64 gaps;		/* the number of the newest gap */
	u64 done_bios;		/* of the request that is being completed, by an earlier call */
	u64 padding[6];
};

/* I/Os of one layer, device and operation that got no record, counted in one lane. */
struct tally {
	u64 key;		/* layer << 40 | dev << 8 | op, plus 1 << 63; 0: free */
	u64 filtered;
	u64 filtered_bytes;
	u64 ring_full;
	u64 ring_full_bytes;
	u64 unmatched;
	u64 unmatched_bytes;
	u64 stale;
	u64 stale_bytes;
	u64 merges;		/* these are counted for REQUEST_LAYER, whatever is recorded */
	u64 splits;
	u64 requeues;
	u64 padding[4];
};

#define TALLIES_PER_BUCKET 8

struct tally_bucket {
	struct tally tallies[TALLIES_PER_BUCKET];
};

/* A span in which records found no room in one lane. */
struct gap {
	u64 first_ns;
	u64 last_ns;
	u64 lost;
};
