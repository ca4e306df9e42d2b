// SPDX-License-Identifier: GPL-2.0-only
/*
 * Records when a thread in a recorded system call was not on a CPU: from the switch to another thread
 * until the switch back. Either it was preempted, and waited for a CPU all the time; or it was blocked,
 * then `issue_ns` is when it was woken, and the rest is waiting for a CPU.
 *
 * sched_switch has the lock of the CPU's run queue and sched_waking that of the thread, both with
 * interrupts off (__schedule, try_to_wake_up): nothing interrupts these programs.
 */

#define PF_EXITING 4

/* A thread's wait is found by its number, as its call is. */
static inline u64 wait_key(u32 tid)
{
	return 1ULL << 32 | tid;
}

/* From the innermost one on; the first ones are those that call the program. */
#define FRAMES_LOOKED_AT 16

/*
 * Where it is blocked, as get_wchan() of the kernel finds it: the first function that is not one of
 * the scheduler's (in_sched_functions()), and who has called that.
 */
static inline void set_frames(u64 *ctx, struct identity *who)
{
	struct control *settings = recorder();
	u64 frames[FRAMES_LOOKED_AT] = {};
	u32 found = 0;
	int i;

	if (!settings || bpf_get_stack(ctx, frames, sizeof(frames), 0) <= 0)
		return;
#pragma unroll
	for (i = 0; i < FRAMES_LOOKED_AT; i++) {
		if (found <= 1 &&
		    frames[i] - settings->scheduler_start < settings->scheduler_bytes) {
			found = 1;
		} else if (found == 1) {
			who->inode = frames[i];
			found = 2;
		} else if (found == 2) {
			who->charged_cgroup = frames[i];
			found = 3;
		} else if (found == 3) {
			who->dirtied_by = frames[i];
			found = 4;
		}
	}
}

int wait_begin(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct lane *mine = enter(WAIT_BEGIN_LANE);
	bool is_preempted = ctx[0] & 1;
	u64 start_ns = bpf_ktime_get_ns();
	struct identity who;
	struct entry call;
	struct slot *slot;

#ifdef HAVE_PREV_STATE
	/* It was to be blocked, and was woken before. */
	is_preempted |= !(u32)ctx[3];
#endif
	/* One that exits does not come back. */
	if (!mine || task->flags & PF_EXITING)
		return 0;
	call = find(task->pid);
	if (!call.bucket || slot_of(call)->is_filtered)
		return 0;
	mine->runs++;
	slot = claim(wait_key(task->pid), mine, WAIT_BEGIN_LANE);
	if (!slot)
		return 0;
	begin_call(slot, WAIT_LAYER, is_preempted ? OP_PREEMPTED : OP_BLOCKED);
	slot->is_filtered = false;
	who = current_thread();
	if (!is_preempted)
		set_frames(ctx, &who);
	slot->identity = identity_number(mine, slot->source, 0, &who);
	slot->start_ns = start_ns;
	if (is_preempted)
		slot->issue_ns = start_ns;
	return 0;
}

int wait_wake(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct entry wait;

	if (!enter(WAIT_WAKE_LANE))
		return 0;
	wait = find(wait_key(task->pid));
	if (wait.bucket && !slot_of(wait)->issue_ns)
		slot_of(wait)->issue_ns = bpf_ktime_get_ns();
	return 0;
}

int wait_end(u64 *ctx)
{
	struct task_struct *next = (struct task_struct *)ctx[2];
	struct lane *mine = enter(WAIT_END_LANE);
	struct entry wait;
	struct slot *slot;

	if (!mine)
		return 0;
	wait = find(wait_key(next->pid));
	if (!wait.bucket)
		return 0;
	mine->runs++;
	slot = slot_of(wait);
	/* Another CPU woke it, whose clock was a little behind. */
	if (slot->issue_ns && slot->issue_ns < slot->start_ns)
		slot->issue_ns = slot->start_ns;
	finish(mine, WAIT_END_LANE, wait, 0);
	return 0;
}
