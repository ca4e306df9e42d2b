// SPDX-License-Identifier: GPL-2.0-only
/* Which file an open one is: what the layers above the block layer have in common. */

/* One of the kernel's, at an address that the verifier knows nothing of. 0 if it may not be read. */
#define read_at(type, address)                                                                     \
	({                                                                                         \
		type value = 0;                                                                    \
		bpf_probe_read_kernel(&value, sizeof(value), (void *)(address));                   \
		value;                                                                             \
	})
#define read_member(type, address, struct_name, member)                                            \
	read_at(type, (address) + __builtin_offsetof(struct struct_name, member))

/* The address of the open file that a number stands for in this thread; 0 if there is none. */
static inline u64 open_file(u32 fd)
{
	u64 files = read_member(u64, (u64)bpf_get_current_task(), task_struct, files);
	u64 table = files ? read_member(u64, files, files_struct, fdt) : 0;

	if (!table || fd >= read_member(u32, table, fdtable, max_fds))
		return 0;
	return read_at(u64, read_member(u64, table, fdtable, fd) + 8ULL * fd);
}

/* A file, or the block device that it stands for; pipes, sockets and the like are none. */
static inline void set_open_file(struct identity *who, u64 file)
{
	u64 inode = file ? read_member(u64, file, file, f_inode) : 0, sb;
	u16 kind;

	if (!inode)
		return;
	kind = read_member(u16, inode, inode, i_mode) & S_IFMT;
	if (kind == S_IFBLK) {
		who->inode_dev = read_member(u32, inode, inode, i_rdev);
	} else if (kind == S_IFREG || kind == S_IFDIR) {
		sb = read_member(u64, inode, inode, i_sb);
		who->inode = read_member(u64, inode, inode, i_ino);
		who->generation = read_member(u32, inode, inode, i_generation);
		who->inode_dev = read_member(u32, sb, super_block, s_dev);
	}
}
