// SPDX-License-Identifier: GPL-2.0-only
/*
 * The design of BCC's biosnoop: a hash map with who submitted a request, another one with when, and
 * one event for each I/O through a perf buffer. Attached like bpf/request.c, so that it runs where
 * kprobes do not.
 */
struct submitter {
	u64 start_ns;
	u32 pid;
	char comm[16];
};

struct event {
	u64 now_ns;
	u64 latency_ns;
	u64 queue_ns;
	u64 sector;
	u32 bytes;
	u32 dev;
	u32 cmd_flags;
	u32 pid;
	char comm[16];
};

BPF_HASH(submitters, struct request *, struct submitter);
BPF_HASH(issues, struct request *, u64);
BPF_PERF_OUTPUT(events);

int on_start(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct submitter who = {};

	who.start_ns = bpf_ktime_get_ns();
	who.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&who.comm, sizeof(who.comm));
	submitters.update(&rq, &who);
	return 0;
}

int on_issue(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[ISSUE_REQUEST_ARGUMENT];
	u64 now = bpf_ktime_get_ns();

	issues.update(&rq, &now);
	return 0;
}

int on_complete(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct submitter *who = submitters.lookup(&rq);
	u64 *issue_ns = issues.lookup(&rq);
	struct event event = {};

	if (who && issue_ns) {
		event.now_ns = bpf_ktime_get_ns();
		event.latency_ns = event.now_ns - who->start_ns;
		event.queue_ns = *issue_ns - who->start_ns;
		event.sector = rq->__sector;
		event.bytes = rq->__data_len;
		event.dev = rq->q->disk->major << 20 | rq->q->disk->first_minor;
		event.cmd_flags = rq->cmd_flags;
		event.pid = who->pid;
		__builtin_memcpy(event.comm, who->comm, sizeof(event.comm));
		events.perf_submit(ctx, &event, sizeof(event));
	}
	submitters.delete(&rq);
	issues.delete(&rq);
	return 0;
}
