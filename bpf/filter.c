// SPDX-License-Identifier: GPL-2.0
/* Decides which I/Os are recorded. Stands behind table.c. */

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
BPF_HASH(filter_comm, struct comm_key, u8, 1024);
#endif
#ifdef FILTER_CGROUPS
BPF_CGROUP_ARRAY(filter_cgroup, FILTER_CGROUPS);
#endif

static inline bool is_wanted_device(u32 dev, u32 partno)
{
#ifdef FILTER_DEVICE
	struct device_key disk = {dev, WHOLE_DISK}, partition = {dev, partno};

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

/* Nobody in particular submits a flush that the kernel makes for several writes. */
#if defined(FILTER_PID) || defined(FILTER_COMM) || defined(FILTER_CGROUPS)
#define IS_UNKNOWN_SUBMITTER_WANTED false
#else
#define IS_UNKNOWN_SUBMITTER_WANTED true
#endif

static inline bool is_wanted_submitter(const struct identity *who)
{
#ifdef EXCLUDED_PID
	if (who->pid == EXCLUDED_PID)
		return false;
#endif
#ifdef FILTER_PID
	if (!filter_pid.lookup((u32 *)&who->pid))
		return false;
#endif
#ifdef FILTER_COMM
	if (!filter_comm.lookup((struct comm_key *)&who->comm))
		return false;
#endif
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
