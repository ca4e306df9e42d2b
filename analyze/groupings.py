# SPDX-License-Identifier: GPL-2.0-only
"""Names what I/Os can be grouped by, and what groups can be sorted by."""

# The recorder imports it before it drops its privileges: without numpy and Arrow, which start
# threads.

# What rows can be grouped by, and the columns of the key that it makes.
GROUPINGS = {
    "process": ("pid", "process"),
    "thread": ("tid", "comm"),
    "pid": ("pid",),
    "tid": ("tid",),
    "comm": ("comm",),
    "cmdline": ("cmdline",),
    "user": ("username",),
    "parent": ("ppid",),
    "device": ("device",),
    "above": ("above",),
    "partition": ("partition",),
    "op": ("op",),
    "syscall": ("op",),
    "flags": ("flags",),
    "cause": ("cause", "call"),
    "cgroup": ("cgroup",),
    "charged_cgroup": ("charged_cgroup",),
    "file": ("file",),
    "wait": ("wait",),
    "owner": ("owner", "owner_by"),
    "cpu": ("cpu",),
    "errno": ("errno",),
    "size": ("size_class_bytes",),
    "layer": ("layer",),
    "host": ("host",),
    "capture": ("capture",),
}
# What is shown by one of these keys, unless something else is asked for.
LAYER_OF_KEY = {"syscall": "syscall", "wait": "wait"}
# Between the functions of a wait, each called by the next one.
CALLED_BY = " <- "
# Numbers and names of things that each machine, or boot of one, has its own of.
OF_ONE_HOST = frozenset(
    {
        "pid",
        "tid",
        "ppid",
        "username",
        "device",
        "above",
        "partition",
        "cgroup",
        "charged_cgroup",
        "file",
        "owner",
        "cpu",
    }
)
# What groups can be sorted by, the largest first: every column of their table.
SORTS = {
    "time": "time_ns",
    "ios": "ios",
    "reads": "reads",
    "writes": "writes",
    "flushes": "flushes",
    "read": "read_bytes",
    "written": "write_bytes",
    "discarded": "discarded_bytes",
    "zeroed": "zeroed_bytes",
    "iops": "ios",
    "rate": "moved_bytes",
    "avg": "avg_ns",
    "min": "min_ns",
    "p50": "p50_ns",
    "p95": "p95_ns",
    "p99": "p99_ns",
    "p999": "p999_ns",
    "max": "max_ns",
    "queued": "queue_share",
    "errors": "errors",
}
# The same, and what only those who look on are told.
BUSY, IN_FLIGHT = "busy", "in-flight"
ACTIVITY_SORTS = (*SORTS, BUSY, IN_FLIGHT)
