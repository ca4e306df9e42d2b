// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel programs: the life of one I/O, and the files that follow it.
 *
 *   submit     rq_start, bio_queue, call_enter, uring_submit, aio_enter, wait_begin. The I/O takes a
 *              slot of the table in_flight (table.c), by the address of its request, bio or
 *              operation, or the number of its thread. All eight places taken: `table_full`. A slot
 *              that still has this address belonged to an I/O whose end no program saw: `stale`,
 *              and a gap from its start until now.
 *   filter     By device, operation and submitter (filter.c). What is filtered out keeps its slot,
 *              so that its end is counted, as `filtered`.
 *   identity   Thread, cgroups and file (owner.c). What the CPU has not seen lately is announced
 *              through the ring buffer, ahead of the first record that refers to it. No room: the
 *              record says LOST_IDENTITY. Then the clock starts.
 *   issue      rq_issue notes when the request goes to the driver, how large it has become and of
 *              how many bios; bio_remap when a bio goes to a device below. rq_requeue takes it back.
 *              The kernel's own flushes begin here, without a submitter.
 *   end        rq_complete, bio_complete, and bios_complete for the bios that end with their
 *              request. A part of an I/O that goes on is a `continuation`. An I/O that is not in
 *              the table began before the recording, or no program saw its start: `unmatched`. A
 *              request that was merged into another one ends in rq_merge, without a record:
 *              `events`.
 *   record     finish() in io.c. A try that is to be made again is `refused`; what is faster than
 *              --min-latency is `filtered`. Everything else is 56 bytes in the ring buffer:
 *              `recorded`. No room: `ring_full`, and a gap. The slot is free again, and the
 *              recorder is woken if enough has gathered.
 *
 * A word in quotes is a counter of struct lane (records.h), of one program on one CPU. Tallies count
 * the same by layer, device and operation, gaps tell when something was lost (ledger.c). Together
 * they account for every completion; the recorder compares that with /proc/diskstats.
 *
 * The kernel skips a program that is running on the CPU already (05b24ff9b2cf, 6.1): one that an
 * interrupt interrupts, or that is preempted, which tracepoints can be since f7d327654b88 and
 * a46023d5616e (7.0). So each program that this can happen to is loaded several times, as copies
 * that differ in COPY_MARK alone. All are called for each event, in turn, and the first that runs
 * takes it; the others see by the table that it was taken. Each copy has a lane of its own on each
 * CPU. What only counts events has no copies: how often it was skipped is in the capture.
 *
 * iorec/kernel/compile.py puts a generated header in front of this file: the kernel structs that are
 * read here, each member at its offset in the running kernel, and the HAVE_ macros. The -D flags are
 * those of defines_of() in iorec/kernel/load.py.
 */
#include "records.h"
#include "ledger.c"
#include "table.c"
#include "filter.c"
#include "device.c"
#include "owner.c"
#include "io.c"
#ifdef RECORDS_REQUESTS
#include "request.c"
#endif
#ifdef RECORDS_BIOS
#include "bio.c"
#endif
#if defined(RECORDS_SYSCALLS) || defined(RECORDS_URINGS) || defined(RECORDS_AIOS)
#include "file.c"
#endif
#ifdef RECORDS_SYSCALLS
#include "syscall.c"
#endif
#ifdef RECORDS_URINGS
#include "uring.c"
#endif
#ifdef RECORDS_AIOS
#include "aio.c"
#endif
#ifdef RECORDS_WAITS
#include "wait.c"
#endif
