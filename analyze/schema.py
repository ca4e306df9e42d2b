# SPDX-License-Identifier: GPL-2.0-only
"""The capture format: the columns of a row and their types."""

import pyarrow as pa

METADATA_KEY = b"iorec"

_NAME = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("layer", _NAME, nullable=False),
        pa.field("op", _NAME, nullable=False),
        pa.field("flags", _NAME, nullable=False),
        pa.field("device", _NAME),
        pa.field("partition", _NAME),
        pa.field("offset", pa.int64()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("latency_ns", pa.int64()),
        pa.field("queue_ns", pa.int64()),
        pa.field("errno", pa.int16()),
        pa.field("pid", pa.int32()),
        pa.field("tid", pa.int32()),
        pa.field("comm", _NAME),
        pa.field("cgroup", _NAME),
        pa.field("cpu", pa.int16()),
        pa.field("bios", pa.int32()),
        pa.field("above", _NAME),
        pa.field("charged_cgroup", _NAME),
        pa.field("inode", pa.int64()),
        pa.field("file", _NAME),
        pa.field("process", _NAME),
        pa.field("cmdline", _NAME),
        pa.field("username", _NAME),
        pa.field("ppid", pa.int32()),
        pa.field("process_start", pa.timestamp("ns", tz="UTC")),
        pa.field("dirtier_pid", pa.int32()),
        pa.field("dirtier", _NAME),
        pa.field("result", pa.int64()),
        pa.field("fd", pa.int32()),
        pa.field("wait", _NAME),
    ]
)

# A capture without these columns is whole: they read as null.
ADDED_COLUMNS = tuple(SCHEMA.names[SCHEMA.names.index("bios") :])

# What one row may be an I/O of: a request to a disk's driver, a bio on any block device, a thread's
# system call, an operation of io_uring, or one of io_submit(2), or a wait of a thread in a call.
LAYERS = ("request", "bio", "syscall", "uring", "aio", "wait")
BLOCK_LAYERS = ("request", "bio")

# The values of `op` by which data are read, written or made safe. A system call with the name of an
# operation does the same.
READ_OPS = (
    *("read", "pread64", "readv", "preadv", "preadv2"),
    *("pread", "read_fixed", "readv_fixed", "read_multishot"),
    *("sendfile", "copy_file_range", "splice"),
)
WRITE_OPS = (
    *("write", "zone_append", "pwrite64", "writev", "pwritev", "pwritev2"),
    *("pwrite", "write_fixed", "writev_fixed"),
)
FLUSH_OPS = ("flush", "fsync", "fdatasync", "fdsync", "sync_file_range", "sync", "syncfs", "msync")
MOVING_OPS = ("read", "write", "zone_append")

# Loss causes in the order in which reports list them.
LOSS_CAUSES = (
    "ring_full",
    "table_full",
    "missed_start",
    "missed_completion",
    "spool_failed",
)
