// SPDX-License-Identifier: GPL-2.0
/* Who submits an I/O, and for whom. Stands behind device.c. */

/* For each layer and CPU a ring of the newest identities; the recorder reads them at every drain. */
BPF_F_TABLE("array", u32, struct identity, identities, LAYERS * CPUS * IDENTITIES, MMAPABLE);
/* And the identities seen last; a miss costs a new identity, no more. */
#define CACHED_IDENTITIES 1024
BPF_F_TABLE("array", u32, struct cached_identity, cached_identities,
	    LAYERS * CPUS * CACHED_IDENTITIES, 0);

/* The number of an identity in its lane. */
static inline u32 identity_number(struct program_counters *mine, u32 lane,
				  const struct identity *who)
{
	u32 spread = hash(who->inode << 32 ^ who->inode_dev ^ who->tid) >> 32;
	u32 index = lane * CACHED_IDENTITIES + spread % CACHED_IDENTITIES;
	struct cached_identity *cached = cached_identities.lookup(&index);
	struct control *settings;
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
	settings = recorder();
	if (settings)
		settings->has_identities = true;
	cached->identity = *who;
	cached->number = mine->identities;
	return cached->number;
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

#define FS_REQUIRES_DEV 1
#define BTRFS_SUPER_MAGIC 0x9123683e
#define BTRFS_BTREE_INODE_OBJECTID 1

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
	if (sb->s_magic == BTRFS_SUPER_MAGIC && inode->i_ino == BTRFS_BTREE_INODE_OBJECTID) {
		who->inode_dev = dev_of_bio(bio);
	} else if (sb->s_type->fs_flags & FS_REQUIRES_DEV) {
		who->inode_dev = sb->s_dev;
		who->inode = inode->i_ino;
		who->generation = inode->i_generation;
	}
}
