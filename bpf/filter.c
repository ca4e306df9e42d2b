// SPDX-License-Identifier: GPL-2.0-only
/* Decides which I/Os are recorded. */

#ifdef FILTER_DEVICE
#define WHOLE_DISK 0xffffffffU
struct device_key {
	u32 dev;
	u32 partno;
};
BPF_HASH(filter_device, struct device_key, u8, 1024);
#endif
#ifdef FILTER_PID
BPF_HASH(filter_pid, u32, u8, 1024);
#endif
#ifdef FILTER_COMM
struct comm_key {
	char comm[16];
};
BPF_HASH(filter_comm, struct comm_key, u8, 64);
#endif
#ifdef COMM_GLOBS
/* All ways to match a glob, followed at once: see iorec/kernel/comm_glob.py. 1 KiB each. */
struct comm_glob {
	/* Of each byte: the states that it takes to the next one, << 16 those that it keeps. */
	u32 masks[256];
	u32 first_state;
};
#define LAST_STATE (1U << 15)
BPF_ARRAY(comm_globs, struct comm_glob, COMM_GLOBS);
#endif
#ifdef FILTER_CGROUPS
BPF_CGROUP_ARRAY(filter_cgroup, FILTER_CGROUPS);
#endif

static inline bool is_wanted_device(u32 dev, u32 partno)
{
#ifdef FILTER_DEVICE
	struct device_key disk = { dev, WHOLE_DISK }, partition = { dev, partno };

	return filter_device.lookup(&disk) || filter_device.lookup(&partition);
#else
	return true;
#endif
}

static inline bool is_wanted_op(u32 cmd_flags)
{
#ifdef FILTER_OPS
	return FILTER_OPS >> (cmd_flags & 63) & 1;
#else
	return true;
#endif
}

#ifdef COMM_GLOBS
static inline bool matches_glob(const struct comm_glob *glob, const char *comm)
{
	u32 state = glob->first_state, mask;
	int i;

#pragma unroll
	for (i = 0; i < 15; i++) {
		mask = glob->masks[(u8)comm[i]];
		state = (state & mask & 0xffff) << 1 | (state & mask >> 16);
	}
	return state & LAST_STATE;
}
#endif

static inline bool is_wanted_comm(const char *comm)
{
#ifdef COMM_GLOBS
	struct comm_glob *glob;
	u32 i;

#pragma unroll
	for (i = 0; i < COMM_GLOBS; i++) {
		u32 index = i;

		glob = comm_globs.lookup(&index);
		if (glob && matches_glob(glob, comm))
			return true;
	}
#endif
#ifdef FILTER_COMM
	return filter_comm.lookup((struct comm_key *)comm);
#else
	return true;
#endif
}

/* Nobody in particular submits a flush that the kernel makes for several writes. */
#if defined(FILTER_PID) || defined(FILTER_COMM) || defined(FILTER_CGROUPS)
#define IS_UNKNOWN_SUBMITTER_WANTED false
#else
#define IS_UNKNOWN_SUBMITTER_WANTED true
#endif

/*
 * The recorder itself, and those who find paths for it. In a pid namespace of its own it does not know
 * by which number it goes here, nor those of others.
 */
static inline bool is_excluded(const struct identity *who)
{
#if defined(EXCLUDES_PID) && defined(PID_NAMESPACE_INODE)
	struct bpf_pidns_info own = {};

	return !bpf_get_ns_current_pid_tgid(PID_NAMESPACE_DEV, PID_NAMESPACE_INODE, &own,
					    sizeof(own)) &&
	       own.tgid == NUMBER_AT(PID_MARK);
#elif defined(EXCLUDES_PID)
	u32 finder = NUMBER_AT(FINDER_MARK);

	return who->pid == NUMBER_AT(PID_MARK) ||
	       (finder && (who->pid == finder || who->ppid == finder));
#else
	return false;
#endif
}

static inline bool is_wanted_submitter(const struct identity *who)
{
	if (is_excluded(who))
		return false;
#ifdef FILTER_PID
	if (!filter_pid.lookup((u32 *)&who->pid))
		return false;
#endif
	if (!is_wanted_comm(who->comm))
		return false;
#ifdef FILTER_CGROUPS
	int i;

#pragma unroll
	for (i = 0; i < FILTER_CGROUPS; i++)
		if (filter_cgroup.check_current_task(i) == 1)
			return true;
	return false;
#else
	return true;
#endif
}

static inline bool is_filtered(const struct slot *slot, u64 now)
{
#ifdef MIN_LATENCY_NS
	if (now - slot->start_ns < MIN_LATENCY_NS)
		return true;
#endif
	return slot->is_filtered;
}
