// SPDX-License-Identifier: GPL-2.0-only
/* Which file an open one is, and what else the layers above the block layer have in common. */

#define TS_COMPAT 2
#define LARGEST_ERRNO 4095

/* One of the kernel's, at an address that the verifier knows nothing of. 0 if it may not be read. */
#define read_at(type, address)                                                                     \
	({                                                                                         \
		type value = 0;                                                                    \
		bpf_probe_read_kernel(&value, sizeof(value), (void *)(address));                   \
		value;                                                                             \
	})
#define read_member(type, address, struct_name, member)                                            \
	read_at(type, (address) + __builtin_offsetof(struct struct_name, member))

/* Whether the thread is in a 32-bit call (int 0x80, or of a 32-bit program): its numbers are others. */
static inline bool is_compat(void)
{
#ifdef HAVE_CURRENT_TASK
	return bpf_get_current_task_btf()->status & TS_COMPAT;
#else
	return read_member(u32, (u64)bpf_get_current_task(), task_struct, status) & TS_COMPAT;
#endif
}

#define lesser(a, b) ((a) < (b) ? (a) : (b))
#define greater(a, b) ((a) > (b) ? (a) : (b))

#define O_APPEND 02000
#define RWF_NOWAIT 8
#define RWF_APPEND 16

/* What is read of an open file at once: a call of the helper takes longer than some more bytes. */
#define FILE_FIRST                                                                                 \
	lesser(lesser(__builtin_offsetof(struct file, f_inode),                                    \
		      __builtin_offsetof(struct file, f_pos)),                                     \
	       __builtin_offsetof(struct file, f_flags))
#define FILE_ENDS                                                                                  \
	greater(greater(__builtin_offsetof(struct file, f_inode) + 8,                              \
			__builtin_offsetof(struct file, f_pos) + 8),                               \
		__builtin_offsetof(struct file, f_flags) + 4)
#define FILE_BYTES (FILE_ENDS - FILE_FIRST)
/* The same of an inode; on some kernels its generation is far away from the rest. */
#define INODE_FIRST __builtin_offsetof(struct inode, i_mode)
#define INODE_ENDS                                                                                 \
	greater(__builtin_offsetof(struct inode, i_rdev) + 4,                                      \
		__builtin_offsetof(struct inode, i_ino) + 8)
#define GENERATION_ENDS (__builtin_offsetof(struct inode, i_generation) + 4)
#define IS_GENERATION_NEAR (GENERATION_ENDS - INODE_FIRST <= 160)
#define INODE_BYTES                                                                                \
	((IS_GENERATION_NEAR ? greater(INODE_ENDS, GENERATION_ENDS) : INODE_ENDS) - INODE_FIRST)

#define in_block(type, block, first, struct_name, member)                                          \
	(*(type *)((block) + __builtin_offsetof(struct struct_name, member) - (first)))

struct open_file {
	u64 inode; /* its address; 0: there is none */
	u64 position;
	u32 flags; /* O_APPEND and so on */
};

/* Whether a write goes to the end of the file, wherever it is said to go. */
static inline bool is_appending(struct open_file file, u32 rw_flags)
{
	return file.flags & O_APPEND || rw_flags & RWF_APPEND;
}

/* The open file that a number stands for in this thread. */
static inline u64 address_of_fd(u32 fd)
{
#ifdef HAVE_CURRENT_TASK
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = task->files ? task->files->fdt : NULL;

	if (!table || fd >= table->max_fds)
		return 0;
	return read_at(u64, (u64)table->fd + 8ULL * fd);
#else
	u64 files = read_member(u64, (u64)bpf_get_current_task(), task_struct, files);
	u64 table = files ? read_member(u64, files, files_struct, fdt) : 0;

	if (!table || fd >= read_member(u32, table, fdtable, max_fds))
		return 0;
	return read_at(u64, read_member(u64, table, fdtable, fd) + 8ULL * fd);
#endif
}

static inline struct open_file read_open_file(u64 address)
{
	struct open_file found = {};
	char block[FILE_BYTES];

	if (!address || bpf_probe_read_kernel(block, FILE_BYTES, (void *)(address + FILE_FIRST)))
		return found;
	found.inode = in_block(u64, block, FILE_FIRST, file, f_inode);
	found.position = in_block(u64, block, FILE_FIRST, file, f_pos);
	found.flags = in_block(u32, block, FILE_FIRST, file, f_flags);
	return found;
}

/*
 * A file, or the device that it stands for. Of what is neither a file nor a block device the generation
 * is the kind, with no inode: a pipe, a socket, or a character device.
 */
static inline void set_open_file(struct identity *who, u64 inode)
{
	char block[INODE_BYTES];
	u16 kind;

	if (!inode || bpf_probe_read_kernel(block, INODE_BYTES, (void *)(inode + INODE_FIRST)))
		return;
	kind = in_block(u16, block, INODE_FIRST, inode, i_mode) & S_IFMT;
	if (kind == S_IFBLK) {
		who->inode_dev = in_block(u32, block, INODE_FIRST, inode, i_rdev);
	} else if (kind == S_IFCHR || kind == S_IFIFO || kind == S_IFSOCK) {
		who->generation = kind;
		who->inode_dev =
			kind == S_IFCHR ? in_block(u32, block, INODE_FIRST, inode, i_rdev) : 0;
	} else if (kind == S_IFREG || kind == S_IFDIR) {
		who->inode = in_block(u64, block, INODE_FIRST, inode, i_ino);
		who->generation = IS_GENERATION_NEAR ?
					  in_block(u32, block, INODE_FIRST, inode, i_generation) :
					  read_member(u32, inode, inode, i_generation);
		who->inode_dev = read_member(u32, in_block(u64, block, INODE_FIRST, inode, i_sb),
					     super_block, s_dev);
	}
}

/* Fills the slot of what begins now above the block layer: no file, no place and no size yet. */
static inline void begin_call(struct slot *slot, u32 layer, u32 op)
{
	slot->source = layer * CPUS + bpf_get_smp_processor_id();
	slot->cmd_flags = op;
	slot->bytes = 0;
	slot->sector = NO_OFFSET;
	slot->bio_count = -1;
	slot->dev = 0;
	slot->partno = 0;
	slot->issue_ns = 0;
	slot->error = 0;
	slot->is_part = false;
	slot->has_ended = false;
}
