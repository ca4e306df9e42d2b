// SPDX-License-Identifier: GPL-2.0-only
/* Who submits an I/O, and for whom. */

BPF_RINGBUF_OUTPUT(records, RING_PAGES);

/*
 * For each layer and CPU the identities seen last, and those of who dirties files; those of files that
 * a system call has opened are apart, as two programs must neither share a cache nor numbers.
 */
#ifdef RECORDS_SYSCALLS
#define IDENTITY_CACHES (LAYERS + 2)
#else
#define IDENTITY_CACHES (LAYERS + 1)
#endif
BPF_F_TABLE("array", u32, struct cached_identity, cached_identities,
	    IDENTITY_CACHES * CPUS * CACHED_IDENTITIES, 0);

/*
 * A file of a file system with a block device, by the address of its inode, too: the others are the
 * same for files of two subvolumes of btrfs.
 */
struct file_key {
	u64 address;
	u64 inode;
	u32 dev;
	u32 generation;
};

/* The thread that dirtied a file's page last. */
struct dirtier {
	u64 identity; /* source << 32 | number */
	u64 epoch;
};

#define DIRTIED_FILES 16384

/* Of each file; those dirtied longest ago are forgotten first. */
BPF_F_TABLE("lru_hash", struct file_key, struct dirtier, dirtiers, DIRTIED_FILES, 0);

/* Each copy of a program numbers those that it announces itself, and so does what has OPENED one. */
#define COPY_SHIFT 30
#define OPENED (1U << 29)

/*
 * The thread that runs, and its cgroup. Read from its struct as far as may be: the helpers take three
 * times as long together. A name has zeros at its end since 06c5088aeedd (5.17), which a filter needs.
 */
static inline struct identity current_thread(void)
{
	struct identity who = { .record_bytes = sizeof(struct record) };
#ifdef HAVE_CURRENT_TASK
	struct task_struct *task = bpf_get_current_task_btf(), *leader = task->group_leader;

	who.pid = task->tgid;
	who.tid = task->pid;
	who.process_start_ns = leader->start_boottime;
	((u64 *)who.process)[0] = leader->comm[0];
	((u64 *)who.process)[1] = leader->comm[1];
	who.ppid = task->real_parent->tgid;
	/* Not cred, which overlayfs replaces by that of who mounted it while it does I/O. */
	who.uid = task->real_cred->euid;
	who.exec_id = task->self_exec_id;
	who.cgroup = task->cgroups->dfl_cgrp->kn->id;
#else
	u64 id = bpf_get_current_pid_tgid();

	who.pid = id >> 32;
	who.tid = id;
	who.cgroup = bpf_get_current_cgroup_id();
#endif
#if defined(HAVE_CURRENT_TASK) && !defined(FILTER_COMM) && !defined(COMM_GLOBS)
	((u64 *)who.comm)[0] = task->comm[0];
	((u64 *)who.comm)[1] = task->comm[1];
#else
	bpf_get_current_comm(&who.comm, sizeof(who.comm));
#endif
	return who;
}

/* Returns the identity's number, or LOST_IDENTITY if the ring had no room for it. */
static inline u32 announce(struct lane *mine, u32 source, u32 opened, const struct identity *who,
			   struct control *settings)
{
	struct announcement *row;
	u64 flags = BPF_RB_NO_WAKEUP;
	u32 number;

	if (mine->identities + 1 >= OPENED)
		return LOST_IDENTITY;
	row = records.ringbuf_reserve(sizeof(*row));
	if (!row)
		return LOST_IDENTITY;
	mine->identities++;
	number = copy_number() << COPY_SHIFT | opened | (u32)mine->identities;
	row->identity = *who;
	row->number = number;
	row->source = source;
	settings->has_identities = true;
	if (settings->wakes_for_identities && settings->wake_bytes != IS_AWAKE) {
		settings->wake_bytes = IS_AWAKE;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	records.ringbuf_submit(row, flags);
	return number;
}

/* `source` is one of the CPU that this runs on; `opened` is OPENED, or 0. */
static inline u32 identity_number(struct lane *mine, u32 source, u32 opened,
				  const struct identity *who)
{
	u64 name = who->inode << 32 ^ who->inode_dev ^ who->tid ^ who->dirtied_by << 16;
	u32 spread = hash(name) >> 32;
	u32 cache = opened ? (LAYERS + 1) * CPUS + bpf_get_smp_processor_id() : source;
	u32 index = cache * CACHED_IDENTITIES + spread % CACHED_IDENTITIES, number;
	struct control *settings = recorder();
	struct cached_identity *cached;
	const u64 *a, *b;

	if (!settings)
		return LOST_IDENTITY;
	/* The first copy's: another one may have interrupted it while it writes there. */
	cached = copy_number() ? NULL : cached_identities.lookup(&index);
	if (!cached)
		return announce(mine, source, opened, who, settings);
	a = (const u64 *)&cached->identity;
	b = (const u64 *)who;
	if (cached->number && cached->epoch == (u32)settings->epoch && a[0] == b[0] &&
	    a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5] &&
	    a[6] == b[6] && a[8] == b[8] && a[9] == b[9] && a[10] == b[10] && a[11] == b[11] &&
	    a[12] == b[12] && a[13] == b[13])
		return cached->number;
	number = announce(mine, source, opened, who, settings);
	if (number == LOST_IDENTITY)
		return number;
	cached->identity = *who;
	cached->number = number;
	cached->epoch = settings->epoch;
	return number;
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

#define PF_KTHREAD 0x00200000
#define FS_REQUIRES_DEV 1
#define BTRFS_SUPER_MAGIC 0x9123683e
#define BTRFS_BTREE_INODE_OBJECTID 1

static inline bool is_btrfs_metadata(struct inode *inode)
{
	return inode->i_sb->s_magic == BTRFS_SUPER_MAGIC &&
	       inode->i_ino == BTRFS_BTREE_INODE_OBJECTID;
}

/* Who dirtied the file of a kernel thread's write last, if it was announced in this epoch. */
static inline void set_dirtier(struct identity *who, u64 address)
{
#ifdef HAVE_CURRENT_TASK
	struct task_struct *task = bpf_get_current_task_btf();
	struct file_key file = { address, who->inode, who->inode_dev, who->generation };
	struct control *settings = recorder();
	struct dirtier *last;

	if (!(task->flags & PF_KTHREAD) || !settings)
		return;
	last = dirtiers.lookup(&file);
	if (last && last->epoch == settings->epoch)
		who->dirtied_by = last->identity;
#endif
}

/*
 * The file in whose page cache the I/O's first page is. A page of anything else (a process, the
 * kernel's own buffers, the middle of a large folio) has no mapping, or something else in its
 * place: only a file's mapping belongs to the inode that it names. Files without a block device
 * (tmpfs) do no I/O by themselves: their pages are buffers of somebody's direct I/O. Btrfs, which
 * has block devices but no one s_bdev, keeps its metadata in the pages of an inode.
 */
static inline void set_file(struct identity *who, struct bio *bio, volatile u64 *scratch)
{
	u32 op = bio->bi_opf & REQ_OP_MASK;
	struct address_space *mapping;
	struct super_block *sb;
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
		return;
	}
	sb = inode->i_sb;
	if (is_btrfs_metadata(inode)) {
		who->inode_dev = partition_of_bio(bio);
	} else if (sb->s_type->fs_flags & FS_REQUIRES_DEV) {
		who->inode_dev = sb->s_dev;
		who->inode = inode->i_ino;
		who->generation = inode->i_generation;
		if (op == REQ_OP_WRITE)
			set_dirtier(who, plain(inode, scratch));
	}
}

#if defined(HAVE_CURRENT_TASK) && defined(RECORDS_BLOCK_IO)
/*
 * A page of a file is dirtied. With its lock held and interrupts off (__folio_mark_dirty), so that
 * nothing interrupts this: there are no copies of it.
 */
int page_dirty(u64 *ctx)
{
	struct address_space *mapping = (struct address_space *)ctx[1];
	struct lane *mine = enter(PAGE_DIRTY_LANE);
	u32 source = LAYERS * CPUS + bpf_get_smp_processor_id(), number;
	struct task_struct *task = bpf_get_current_task_btf();
	struct control *settings = recorder();
	struct dirtier *last, dirtier = {};
	struct file_key file = {};
	struct identity who;
	struct inode *inode;

	if (!mine || !settings || !mapping)
		return 0;
	inode = mapping->host;
	if (!inode || (inode->i_mode & S_IFMT) == S_IFBLK || is_btrfs_metadata(inode) ||
	    !(inode->i_sb->s_type->fs_flags & FS_REQUIRES_DEV))
		return 0;
	file.address = plain(inode, &mine->scratch);
	file.inode = inode->i_ino;
	file.dev = inode->i_sb->s_dev;
	file.generation = inode->i_generation;
	if (task->flags & PF_KTHREAD) {
		dirtiers.delete(&file);
		return 0;
	}
	who = current_thread();
	number = identity_number(mine, source, 0, &who);
	if (number == LOST_IDENTITY) {
		dirtiers.delete(&file);
		return 0;
	}
	dirtier.identity = (u64)source << 32 | number;
	dirtier.epoch = settings->epoch;
	last = dirtiers.lookup(&file);
	if (!last || last->identity != dirtier.identity || last->epoch != dirtier.epoch)
		dirtiers.update(&file, &dirtier);
	return 0;
}
#elif defined(RECORDS_BLOCK_IO)
int page_dirty(u64 *ctx)
{
	return 0;
}
#endif
