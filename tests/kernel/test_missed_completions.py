# SPDX-License-Identifier: GPL-2.0-only
"""Whether completions are missed, and that the ledger names each: fio, diskstats and rows agree."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tests.kernel.captures import assert_accounts_close, missed_completions, read_capture
from tests.kernel.conftest import (
    LoopDevice,
    queue_set,
    read_init_cpu,
    start_recording,
    stop_recording,
)
from tests.kernel.load import fio

RUNS, READS = 25, 8009


def test_every_completion_is_seen_while_process_1_is_idle(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    work = fio(loop, "--rw=randread", f"--number_ios={READS}", "--output-format=json")
    is_idle: dict[int, bool] = {}
    with queue_set(loop, "nomerges", "2"):
        recording = start_recording(output, "-d", loop.name)
        for _ in range(RUNS):
            before = read_init_cpu()
            process = subprocess.Popen(work, stdout=subprocess.PIPE)
            counted = json.loads(process.communicate(timeout=60)[0])["jobs"][0]["read"]
            is_idle[process.pid] = read_init_cpu() == before
            assert counted["total_ios"] == READS
        stop_recording(recording)
    capture = read_capture(output)
    assert_accounts_close(capture, loop.name)
    kernel = capture.metadata["diskstats"][loop.name]["read"]
    pids = capture.table["pid"].filter(pc.equal(capture.table["device"].cast("string"), loop.name))
    rows = {pid: int(np.count_nonzero(pids.to_numpy() == pid)) for pid in is_idle}
    proven = [pid for pid, idle in is_idle.items() if idle]
    missed = missed_completions(capture, loop.name)
    print(f"process 1 was idle during {len(proven)} of {RUNS} runs; {missed} missed in the others")
    assert proven
    assert {rows[pid] for pid in proven} == {READS}
    assert sum(rows.values()) == RUNS * READS - missed
    assert kernel["ios"] >= RUNS * READS
