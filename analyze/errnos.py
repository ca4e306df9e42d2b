# SPDX-License-Identifier: GPL-2.0-only
"""Names the errors that I/Os end with."""

# What blk_status_to_errno() gives; the numbers are Linux's, on whatever machine they are read.
_ERRNO_NAMES = {
    5: "EIO",
    11: "EAGAIN",
    12: "ENOMEM",
    16: "EBUSY",
    19: "ENODEV",
    22: "EINVAL",
    28: "ENOSPC",
    52: "EBADE",
    61: "ENODATA",
    62: "ETIME",
    67: "ENOLINK",
    75: "EOVERFLOW",
    78: "EREMCHG",
    84: "EILSEQ",
    95: "EOPNOTSUPP",
    109: "ETOOMANYREFS",
    110: "ETIMEDOUT",
    121: "EREMOTEIO",
}


def errno_name(number: int) -> str:
    """`EIO`; `ok` for 0."""
    return _ERRNO_NAMES.get(number, f"errno {number}") if number else "ok"
