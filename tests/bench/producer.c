// SPDX-License-Identifier: GPL-2.0-only
/* Fills a ring buffer with numbered records, RECORDS_PER_RUN for each packet that a socket gets. */
#include "records.h"

BPF_RINGBUF_OUTPUT(records, RING_PAGES);
BPF_ARRAY(last, u64, 1);

int produce(void *packet)
{
	u32 zero = 0;
	u64 *number = last.lookup(&zero);
	int i;

	if (!number)
		return 0;
	for (i = 0; i < RECORDS_PER_RUN; i++) {
		struct record *record = records.ringbuf_reserve(sizeof(*record));

		if (!record)
			return 0;
		*number += 1;
		record->start_ns = *number;
		record->latency_ns = *number * 3;
		record->queue_ns = *number * 5;
		record->sector = *number * 7;
		record->bytes = *number;
		record->dev = *number;
		record->cmd_flags = *number;
		record->identity = *number;
		record->bio_count = *number;
		record->source = *number;
		record->error = *number;
		record->partno = *number;
		records.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	}
	return 0;
}
