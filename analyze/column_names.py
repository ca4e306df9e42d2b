# SPDX-License-Identifier: GPL-2.0-only
"""Says by which name a column of a table is picked or sorted by, however it is written."""

TOO_LOW = "≥"  # before the title of a column whose numbers are

# Fields of CSV and JSON that are named otherwise than the column, and what people say.
_COLUMNS = {
    "read_bytes": "read",
    "write_bytes": "written",
    "discarded_bytes": "discarded",
    "zeroed_bytes": "zeroed",
    "ios_per_s": "iops",
    "bytes_per_s": "rate",
    "bytes": "rate",
    "queue_share": "queued",
    "mean_in_flight": "in-flight",
    "max_in_flight": "most",
    "mean_bytes": "size",
}


def column_name(written: str) -> str:
    """`p99` of `P99`, `p99` and `latency_p99_ns`: as a title, as this name, or as a field."""
    plain = written.lstrip(TOO_LOW).lower()
    if plain in _COLUMNS:
        return _COLUMNS[plain]
    plain = plain.removeprefix("latency_").removesuffix("_ns").removesuffix("_share")
    return plain.translate({ord(" "): "-", ord("_"): "-", ord("."): None, ord("/"): None})
