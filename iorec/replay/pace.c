// SPDX-License-Identifier: GPL-2.0-only
/*
 * Issues I/Os at their times: the loops of pace.py and closed.py, compiled by native.py.
 *
 * The feeder places rows, finished as SQEs (or iocbs), ahead of the loop. Those of the open loop are
 * in the ring already, beyond its tail, so that an I/O costs a look at the clock, a store and a
 * syscall. Those of the closed loop wait in slots for the completion that their thread waited for,
 * and then in a heap for their moment.
 *
 * struct pace is that of layout.py; a test compares them.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FILLED, IS_ALL, FREED }; /* of the board */
enum { GOES_ON, ENDED, TOO_LATE, VANISHED, HUNG, REFUSED };

#define SLOT_BYTES 64
#define BUCKETS_PER_OCTAVE 16
#define MOST_ERRNO 4095
#define WITH_PREVIOUS (-2) /* a predecessor: it is issued with the row before it */
#define NO_SLOT (-1)
#define SPIN_MARGIN_NS 20000
#define LONGEST_WAIT_NS 20000000
#define FAILURES_IN_A_ROW 1000

#define GETEVENTS 1
#define EXT_ARG 8
#define SQ_TASKRUN 4
#define OP_URING_CMD 46
#define SQE_FLAGS 1
#define SQE_FD 4
#define SQE_ADDR 16
#define SQE_USER_DATA 32
#define SQE_ADDR3 48
#define SQE_IO_LINK 4

struct cqe {
	uint64_t user_data;
	int32_t res;
	uint32_t flags;
};

struct io_event {
	uint64_t data, obj;
	int64_t res, res2;
};

struct wait_arg {
	uint64_t sigmask;
	uint32_t sigmask_bytes, pad;
	uint64_t ts;
};

struct pace {
	/* the ring; of libaio fd is the context, and the rest is null */
	int64_t is_aio, fd;
	uint32_t *sq_tail, *sq_flags, *cq_head, *cq_tail;
	struct cqe *cqes;
	int64_t cq_mask;
	uint8_t *ring_slots; /* the SQEs of the ring */
	/* what the feeder places */
	volatile int64_t *board;
	uint8_t *slots;
	int64_t *due, *think, *waits_for;
	int64_t mask;
	/* settings */
	int64_t is_closed, is_fast;
	int64_t start_ns, spin_ns, depth, batch, give_up_ns;
	/* the closed loop's own: a heap, children by slot, and when rows ended, of the last ones */
	int64_t *heap_ns;
	int32_t *heap_slot, *first_child, *next_child;
	int64_t *ended_ns;
	int64_t ended_mask;
	uint8_t *has_ended;
	int64_t heap_count, admitted;
	/* results */
	int64_t issued, ended, added, is_ending, ending, drain_until_ns;
	int64_t failed, short_count, in_a_row, most_in_flight, submit_errno, starved_ns, late_ns;
	int64_t *lateness, *errors;
	/* for kernels that discard for an ioctl only */
	int64_t has_sync_discard;
	int32_t *fds;
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void count_late(struct pace *p, int64_t late_ns)
{
	int64_t octave, bucket = late_ns < 0 ? 0 : late_ns;

	p->late_ns = bucket;
	if (bucket >= BUCKETS_PER_OCTAVE) {
		octave = 63 - __builtin_clzll(bucket) - 4;
		bucket = (octave << 4) + (bucket >> octave);
	}
	p->lateness[bucket]++;
}

static void push(struct pace *p, int64_t ready_ns, int32_t slot)
{
	int64_t at = p->heap_count++;

	while (at && p->heap_ns[(at - 1) / 2] > ready_ns) {
		p->heap_ns[at] = p->heap_ns[(at - 1) / 2];
		p->heap_slot[at] = p->heap_slot[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	p->heap_ns[at] = ready_ns;
	p->heap_slot[at] = slot;
}

static int32_t pop(struct pace *p)
{
	int32_t first = p->heap_slot[0], slot = p->heap_slot[--p->heap_count];
	int64_t at = 0, child, ready_ns = p->heap_ns[p->heap_count];

	while ((child = 2 * at + 1) < p->heap_count) {
		if (child + 1 < p->heap_count && p->heap_ns[child + 1] < p->heap_ns[child])
			child++;
		if (p->heap_ns[child] >= ready_ns)
			break;
		p->heap_ns[at] = p->heap_ns[child];
		p->heap_slot[at] = p->heap_slot[child];
		at = child;
	}
	p->heap_ns[at] = ready_ns;
	p->heap_slot[at] = slot;
	return first;
}

/* What waited for a row gets its moment; slots are free up to the first row that has not ended. */
static void end_row(struct pace *p, int64_t slot, int64_t now)
{
	int64_t row, freed = p->board[FREED];
	int32_t child, following;

	row = freed + ((slot - freed) & p->mask);
	p->ended_ns[row & p->ended_mask] = now;
	for (child = p->first_child[slot]; child != NO_SLOT; child = following) {
		following = p->next_child[child];
		push(p, now + p->think[child], child);
	}
	p->has_ended[slot] = 1;
	while (freed < p->admitted && p->has_ended[freed & p->mask])
		freed++;
	p->board[FREED] = freed;
}

static void count_end(struct pace *p, uint64_t user_data, int64_t res, int64_t now)
{
	p->ended++;
	p->in_a_row = res < 0 ? p->in_a_row + 1 : 0;
	if (res < 0) {
		p->failed++;
		p->errors[-res > MOST_ERRNO ? 0 : -res]++;
		if (res == -ENODEV || res == -ENXIO)
			p->in_a_row = FAILURES_IN_A_ROW;
	} else if ((uint32_t)res != (uint32_t)user_data) {
		p->short_count++;
	}
	if (p->is_closed)
		end_row(p, user_data >> 48, now);
}

static void reap(struct pace *p)
{
	struct io_event events[64];
	struct timespec none = { 0, 0 };
	uint32_t head, tail;
	int64_t now;
	long i, count;

	if (p->is_aio) {
		count = syscall(SYS_io_getevents, p->fd, 0L, 64L, events, &none);
		now = now_ns();
		for (i = 0; i < count; i++)
			count_end(p, events[i].data, events[i].res, now);
		return;
	}
	head = *p->cq_head;
	tail = __atomic_load_n(p->cq_tail, __ATOMIC_ACQUIRE);
	if (head == tail)
		return;
	now = now_ns();
	for (; head != tail; head++) {
		struct cqe *cqe = &p->cqes[head & p->cq_mask];

		count_end(p, cqe->user_data, cqe->res, now);
	}
	__atomic_store_n(p->cq_head, head, __ATOMIC_RELEASE);
}

/* Waits for a completion, but not longer than it is told. */
static void wait_ns(struct pace *p, int64_t longest_ns)
{
	struct timespec ts;
	struct wait_arg arg = { .ts = (uintptr_t)&ts };

	if (longest_ns > LONGEST_WAIT_NS)
		longest_ns = LONGEST_WAIT_NS;
	ts.tv_sec = 0;
	ts.tv_nsec = longest_ns;
	if (!p->is_aio)
		syscall(SYS_io_uring_enter, p->fd, 0, 1, GETEVENTS | EXT_ARG, &arg, sizeof(arg));
	else if (p->issued == p->ended)
		nanosleep(&ts, NULL);
	else {
		struct io_event event;

		if (syscall(SYS_io_getevents, p->fd, 1L, 1L, &event, &ts) == 1)
			count_end(p, event.data, event.res, now_ns());
	}
}

static int is_linked(struct pace *p, int64_t row)
{
	return !p->is_aio && p->slots[(row & p->mask) * SLOT_BYTES + SQE_FLAGS] & SQE_IO_LINK;
}

/* A discard that the kernel does while one waits; the entry becomes one that does nothing. */
static void discard_now(struct pace *p, uint8_t *sqe)
{
	uint64_t range[2], user_data;
	int32_t place;

	if (p->is_aio || !p->has_sync_discard || sqe[0] != OP_URING_CMD)
		return;
	memcpy(&place, sqe + SQE_FD, sizeof(place));
	memcpy(&range[0], sqe + SQE_ADDR, sizeof(range[0]));
	memcpy(&range[1], sqe + SQE_ADDR3, sizeof(range[1]));
	memcpy(&user_data, sqe + SQE_USER_DATA, sizeof(user_data));
	if (ioctl(p->fds[place], BLKDISCARD, range) < 0) {
		p->failed++;
		p->errors[errno]++;
	}
	memset(sqe, 0, SLOT_BYTES);
	memcpy(sqe + SQE_USER_DATA, &user_data, sizeof(user_data));
}

/* Hands over what is beyond the ring's tail; of libaio what the pointers lead to. */
static int submit(struct pace *p, int64_t count, uint8_t **iocbs)
{
	long done;

	if (!p->is_aio)
		__atomic_store_n(p->sq_tail, *p->sq_tail + (uint32_t)count, __ATOMIC_RELEASE);
	p->issued += count;
	if (p->issued - p->ended > p->most_in_flight)
		p->most_in_flight = p->issued - p->ended;
	while (count) {
		if (p->is_aio)
			done = syscall(SYS_io_submit, p->fd, count, iocbs);
		else
			done = syscall(SYS_io_uring_enter, p->fd, count, 0, GETEVENTS, 0, 0);
		if (done >= 0) {
			count -= done;
			iocbs += done;
		} else if (errno == EINTR || errno == EAGAIN || errno == EBUSY) {
			reap(p);
		} else {
			p->submit_errno = errno;
			p->issued -= count;
			return 0;
		}
	}
	return 1;
}

/* A flush and the write behind it follow each other: alone they are never too many. */
static int has_room(struct pace *p, int64_t count)
{
	int64_t in_flight = p->issued - p->ended;

	return !in_flight || in_flight + count <= p->depth;
}

/* How many of the next rows are due and may be issued together; the first one is due. */
static int64_t due_now(struct pace *p, int64_t filled, int64_t room, int64_t now)
{
	int64_t most = p->batch < room ? p->batch : room, count = 0;

	if (is_linked(p, p->issued)) {
		if (!has_room(p, 2) || filled - p->issued < 2)
			return 0;
		p->added++;
		return 2;
	}
	if (most > filled - p->issued)
		most = filled - p->issued;
	while (count < most && !is_linked(p, p->issued + count) &&
	       (p->is_fast || p->start_ns + p->due[(p->issued + count) & p->mask] <= now))
		count++;
	return count;
}

static int issue_open(struct pace *p, int64_t filled, int64_t now)
{
	uint8_t *iocbs[64];
	int64_t i, count = due_now(p, filled, p->depth - (p->issued - p->ended), now);

	if (!count) {
		wait_ns(p, LONGEST_WAIT_NS);
		return 1;
	}
	for (i = 0; i < count; i++) {
		int64_t slot = (p->issued + i) & p->mask;

		iocbs[i] = p->slots + slot * SLOT_BYTES;
		discard_now(p, iocbs[i]);
		if (!is_linked(p, p->issued + i))
			count_late(p, p->is_fast ? 0 : now - p->start_ns - p->due[slot]);
	}
	i = submit(p, count, iocbs);
	p->board[FREED] = p->issued;
	return i;
}

static int issue_closed(struct pace *p, int64_t now)
{
	uint8_t *iocbs[2];
	uint32_t tail;
	int64_t i, count;
	int32_t slot = p->heap_slot[0];

	count = is_linked(p, slot) ? 2 : 1;
	if (!has_room(p, count)) {
		wait_ns(p, LONGEST_WAIT_NS);
		return 1;
	}
	count_late(p, now - p->heap_ns[0]);
	pop(p);
	p->added += count - 1;
	tail = p->is_aio ? 0 : *p->sq_tail;
	for (i = 0; i < count; i++) {
		iocbs[i] = p->slots + ((slot + i) & p->mask) * SLOT_BYTES;
		discard_now(p, iocbs[i]);
		if (!p->is_aio)
			memcpy(p->ring_slots + ((tail + i) & p->mask) * SLOT_BYTES, iocbs[i],
			       SLOT_BYTES);
	}
	return submit(p, count, iocbs);
}

/* Takes the rows that the feeder has placed: each waits for another one, or for its time. */
static void admit(struct pace *p, int64_t filled, int64_t now)
{
	for (; p->admitted < filled; p->admitted++) {
		int64_t row = p->admitted, slot = row & p->mask, other = p->waits_for[slot];

		p->has_ended[slot] = 0;
		p->first_child[slot] = NO_SLOT;
		p->ended_ns[row & p->ended_mask] = 0;
		if (other == WITH_PREVIOUS)
			continue;
		if (other < 0) {
			push(p, p->start_ns + p->due[slot], slot);
		} else if (other <= row - p->ended_mask) {
			push(p, now, slot); /* it ended so long ago that nobody knows when */
		} else if (p->ended_ns[other & p->ended_mask]) {
			push(p, p->ended_ns[other & p->ended_mask] + p->think[slot], slot);
		} else {
			p->next_child[slot] = p->first_child[other & p->mask];
			p->first_child[other & p->mask] = slot;
		}
	}
}

static int drain(struct pace *p, int64_t now)
{
	if (p->issued == p->ended)
		return p->ending;
	if (now > p->drain_until_ns)
		return HUNG;
	wait_ns(p, LONGEST_WAIT_NS);
	return GOES_ON;
}

static void begin_end(struct pace *p, int64_t ending, int64_t now)
{
	p->is_ending = 1;
	p->ending = ending;
	p->drain_until_ns = now + p->give_up_ns;
}

/* The moment of the next I/O; -1: there is none yet. */
static int64_t next_ns(struct pace *p, int64_t filled, int64_t now)
{
	if (!p->is_closed)
		return p->issued == filled ? -1 :
		       p->is_fast	   ? now :
					     p->start_ns + p->due[p->issued & p->mask];
	admit(p, filled, now);
	return p->heap_count ? p->heap_ns[0] : -1;
}

/* Goes on until `until_ns`, and then until nothing is due soon, or until the end. */
int64_t pace_run(struct pace *p, int64_t until_ns)
{
	int64_t now, filled, is_all, next, state;

	for (;;) {
		reap(p);
		now = now_ns();
		if (p->is_ending) {
			state = drain(p, now);
			if (state != GOES_ON || now >= until_ns)
				return state;
			continue;
		}
		if (p->in_a_row >= FAILURES_IN_A_ROW) {
			begin_end(p, VANISHED, now);
			continue;
		}
		is_all = p->board[IS_ALL]; /* before the other: what is placed last must be seen */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		filled = p->board[FILLED];
		next = next_ns(p, filled, now);
		if (next < 0) {
			if (is_all && p->issued == filled) {
				begin_end(p, ENDED, now);
				continue;
			}
			if (now >= until_ns)
				return GOES_ON;
			/* Nothing is there yet: the feeder is behind, or all wait for completions. */
			wait_ns(p, p->issued == p->ended ? 50000 : 1000000);
			if (p->issued == p->ended)
				p->starved_ns += now_ns() - now;
			continue;
		}
		if (now < next) {
			if (now >= until_ns && next - now > p->spin_ns)
				return GOES_ON;
			if (next - now > p->spin_ns + SPIN_MARGIN_NS)
				wait_ns(p, next - now - p->spin_ns);
			else if (!p->is_aio && *(volatile uint32_t *)p->sq_flags & SQ_TASKRUN)
				syscall(SYS_io_uring_enter, p->fd, 0, 0, GETEVENTS, 0, 0);
			continue;
		}
		if (!p->is_fast && now - next > p->give_up_ns) {
			begin_end(p, TOO_LATE, now);
			continue;
		}
		if (!(p->is_closed ? issue_closed(p, now) : issue_open(p, filled, now)))
			begin_end(p, REFUSED, now);
		if (now > until_ns + 4 * LONGEST_WAIT_NS)
			return GOES_ON;
	}
}
