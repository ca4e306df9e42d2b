# SPDX-License-Identifier: GPL-2.0-only
"""Names as long as the kernel has them cost no recording."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc

from tests.kernel.captures import Capture, assert_accounts_close, missed_completions
from tests.kernel.conftest import LoopDevice, run
from tests.kernel.load import fio
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]


def test_a_cgroup_path_of_420_bytes_at_full_rate(
    record: Record, loop: LoopDevice, cgroup: Path
) -> None:
    length = 420 - len(f"/{cgroup.name}//")
    inner = cgroup / ("a" * (length // 2)) / ("é" * (length // 4))
    inner.mkdir(parents=True)
    enter = f'echo $$ > {inner}/cgroup.procs && exec "$@"'
    load = fio(loop, "--rw=randread", "--time_based", "--runtime=4", "--output=/dev/null")
    capture = record("-d", loop.name, "--", "sh", "-c", enter, "sh", *load)
    assert capture.status == 0, capture.stderr
    assert capture.metadata["complete"]
    assert_accounts_close(capture, loop.name)
    assert len(capture.table) == capture.counts["recorded"]
    missed_completions(capture, loop.name)
    paths = capture.table["cgroup"].cast("string")
    name = f"/{cgroup.name}/{inner.parent.name}/{inner.name}"
    long = pc.sum(pc.equal(paths, name)).as_py()
    assert long > 1000
    assert long > 0.99 * len(paths)


def test_a_file_below_fifteen_folders_of_250_letters(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    size = 96 << 20
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        folder = mount
        for letter in "abcdefghijklmno":
            folder = folder / (letter * 250)
        folder.mkdir(parents=True)
        subprocess.run(["truncate", "-s", str(size), folder / "file"], check=True)
        subprocess.run(["shred", "-n", "1", folder / "file"], check=True)
        run("sync", "-f", mount)
        Path("/proc/sys/vm/drop_caches").write_text("1")
        reads = "fio --name=r --filename=file --rw=randread --bs=4k --fadvise_hint=random"
        inside = f"cd {folder} && {reads} --output=/dev/null --size={size} --ioengine=psync"
        capture = record("-d", loop.name, "--", "bash", "-c", inside)
        name = str(folder / "file")
    assert len(name) > 3800
    assert capture.status == 0, capture.stderr
    assert capture.metadata["complete"]
    assert_accounts_close(capture, loop.name)
    assert len(capture.table) == capture.counts["recorded"]
    files = capture.table["file"].cast("string")
    assert pc.sum(pc.equal(files, name)).as_py() > 1000
