/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel programs share with the recorder; iorec/kernel/layouts.py holds the same layouts. */

#define NO_ISSUE (~0ULL)

/* A layer sees an I/O from one pair of tracepoints; its number is part of an I/O's source. */
#define REQUEST_LAYER 0
#define BIO_LAYER 1
#define SYSCALL_LAYER 2
#define URING_LAYER 3
#define AIO_LAYER 4
#define WAIT_LAYER 5

/* What a disk flushes its cache for: an operation of its own, unlike REQ_OP_FLUSH of a submitter. */
#define OP_CACHE_FLUSH 62

/* Why a thread was not on a CPU. */
#define OP_BLOCKED 140
#define OP_PREEMPTED 141

/*
 * Operations from here on are system calls, then those of struct iocb, and the opcodes of io_uring; their flags are these
 * (iorec/kernel/calls.py), those of an entry of io_uring (IOSQE_) the lowest ones.
 */
#define FIRST_CALL_OP 64
#define FIRST_AIO_OP 144
#define FIRST_URING_OP 160
#define CALL_FLAGS_SHIFT 8
#define CALL_RESTARTED (1U << 16) /* it was interrupted, and the kernel begins it again */
#define CALL_NOWAIT (1U << 17)
#define CALL_SQPOLL (1U << 18) /* a thread of the kernel's took it from the submission queue */

#define NO_OFFSET (~0ULL)

/* What the recorder wants of the programs. */
struct control {
	u64 is_recording;
	u64 wake_bytes;		  /* wake it when so much is in the ring buffer; IS_AWAKE: never */
	u64 wakes_for_identities; /* and when there are new ones */
	u64 has_identities;	  /* since it cleared this */
	u64 epoch;		  /* identities announced in an earlier one are announced again */
	u64 scheduler_start; /* the address of the scheduler's own functions, and how many bytes */
	u64 scheduler_bytes;
};

#define IS_AWAKE (~0ULL)

/*
 * One finished I/O. 56 bytes: with the ring buffer's 8-byte header, one cache line. Of a system call
 * `queue_ns` is what it returned, `sector` is bytes from the start of its file, and `bio_count` the
 * file's number (-1: none). Of an operation of io_uring `queue_ns` has both: what it returned in the
 * lower half, and in the upper one the nanoseconds until it was queued for a worker, or NEVER_QUEUED.
 */
#define NEVER_QUEUED 0xffffffffU

struct record {
	u64 start_ns;
	u64 latency_ns;
	u64 queue_ns; /* NO_ISSUE: never handed to the driver, or the device below */
	u64 sector;
	u32 bytes;
	u32 dev;       /* whole disk: major << 20 | minor */
	u32 cmd_flags; /* REQ_OP_ (see effective_flags()) and REQ_ flags as submitted */
	u32 identity;  /* its number among those of the source, NO_IDENTITY or LOST_IDENTITY */
	union {
		u32 bio_count; /* of a request: bios that it carries */
		u32 above_dev; /* of a bio: the stacked device that it is from, or 0 */
	};
	u16 source; /* layer * CPUS + submitting CPU */
	u8 error;   /* blk_status_t; of requests on kernels before 5.16, errno */
	u8 partno;
};

/* An I/O in flight: one cache line, so that two never share one. */
struct slot {
	u64 start_ns;
	union {
		u64 whole_key; /* of a part: the key of the whole, or 0 */
		u64 left;      /* of a request: bytes left when a part of it completed last */
	};
	u64 issue_ns; /* 0: not handed to the driver, or the device below, yet */
	u64 sector;
	u32 bytes;
	u32 dev;
	u32 cmd_flags;
	u32 identity;
	union {
		u32 done_bytes; /* of a request: bytes of partial completions so far */
		u32 open_parts; /* of a bio: how many parts of it must end besides itself */
	};
	union {
		u32 bio_count;
		u32 above_dev;
	};
	u16 source;
	u8 error;
	u8 partno;
	u8 is_filtered;
	u8 is_part;   /* a bio, not an I/O: split off from one, or not queued yet */
	u8 has_ended; /* a bio that waits for its parts */
	u8 padding;
};

#define SLOTS_PER_BUCKET 8

/* The keys are apart from the slots: all eight of them are one cache line. */
struct bucket {
	u64 keys[SLOTS_PER_BUCKET]; /* address of the request, or of the bio plus 1; 0: free */
	struct slot slots[SLOTS_PER_BUCKET];
};

/*
 * Who submits, and for whom. A kernel thread writes what a process dirtied; who that was last is an
 * identity that was announced before. Of a wait `inode`, `charged_cgroup` and `dirtied_by` are where it
 * is: the address in a function, in the one that called it, and in the one that called that.
 */
struct identity {
	u64 cgroup;
	u64 charged_cgroup; /* 0: unknown */
	u64 inode;	    /* of the first page; 0: unknown, or the page is a block device's */
	u32 inode_dev;	    /* the inode's file system, or the block device; 0: unknown */
	u32 generation;	    /* of the inode; without one, what else it is: see set_open_file() */
	u32 pid;
	u32 tid;
	char comm[16];
	u64 record_bytes;     /* sizeof(struct record), see struct announcement */
	u64 process_start_ns; /* since boot; 0: unknown, as is what follows but the last */
	char process[16];     /* the comm of its leader */
	u32 ppid;
	u32 uid;
	u32 exec_id; /* how often its thread has called execve(2), from any number on */
	u32 unused;
	u64 dirtied_by; /* source << 32 | number; 0: unknown */
};

/* No submitter; one whose announcement found no room. */
#define NO_IDENTITY 0
#define LOST_IDENTITY (~0U)

/*
 * Tells the recorder an identity's number. It goes through the ring buffer ahead of the first I/O
 * that uses it, so that the ring's order and losses are its own, and takes the room of two records:
 * where the second one's header would be, there is what a header begins with.
 */
struct announcement {
	struct identity identity;
	u32 number; /* never used twice for a source */
	u16 source;
	u16 padding;
};

/* The newest identities that a lane announced; a miss costs an announcement, no more. */
struct cached_identity {
	struct identity identity;
	u32 number;
	u32 epoch;
};

/*
 * Counters of a lane: of one copy of one program on one CPU. Nothing else runs there at the same
 * time, whatever interrupts or preempts it, so that nothing here needs an atomic operation.
 */
struct lane {
	u64 scratch;
	u64 turns; /* events that a copy took as those before it were running */
	u64 runs;  /* I/Os begun, or completions reported */
	u64 recorded;
	u64 ring_full;
	u64 filtered;
	u64 unmatched;	   /* not in the table: began before the recording, or not seen to start */
	u64 continuations; /* one part of an I/O: of a flush sequence, partial, or split off */
	u64 refused;	   /* as it was not to wait, and would have had to */
	u64 table_full;
	u64 stale;	/* the request's or bio's earlier use was not seen to complete */
	u64 identities; /* announced */
	u64 events;	/* requests merged away, requeues */
	u64 gaps;	/* the number of the newest gap */
	u64 done_bios;	/* of the request that is being completed, by an earlier call */
	u64 left_out;	/* what cannot be recorded: 32-bit calls, and the like */
};

#define MOST_COPIES 4

/* I/Os of one layer, device and operation that got no record, counted on one CPU. */
struct tally {
	u64 key; /* layer << 40 | dev << 8 | op, plus 1 << 63; 0: free */
	u64 filtered;
	u64 filtered_bytes;
	u64 ring_full;
	u64 ring_full_bytes;
	u64 unmatched;
	u64 unmatched_bytes;
	u64 stale;
	u64 stale_bytes;
	u64 merges; /* these are counted for REQUEST_LAYER, whatever is recorded */
	u64 splits;
	u64 requeues;
	u64 refused;
	u64 padding[3];
};

#define TALLIES_PER_BUCKET 8

struct tally_bucket {
	struct tally tallies[TALLIES_PER_BUCKET];
};

/* A span in which one lane lost I/Os: records that found no room, or completions not seen. */
struct gap {
	u64 first_ns;
	u64 last_ns;
	u64 lost;
};
