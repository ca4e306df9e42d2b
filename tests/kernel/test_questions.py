# SPDX-License-Identifier: GPL-2.0-only
"""docs/questions.md: each command answers its question about a capture whose answers are known."""

import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from tests.kernel.captures import Capture
from tests.kernel.conftest import IOREC, LoopDevice, run
from tests.kernel.mounts import mounted_ext4

PAGE = Path(__file__).parent.parent.parent / "docs/questions.md"
QUESTIONS = dict(re.findall(r"^\| (\S.*\?) \| `(iorec .*)` \|$", PAGE.read_text(), re.MULTILINE))

# What the output must say.
ANSWERS = {
    "Who does the I/O, and who waits for it the longest?": r"PROCESS .*TIME\n *\d+ +slow ",
    "Who writes all the time?": r"PROCESS .*WRITES.*\n.*\n? *\d+ +logger ",
    "Who wrote what `kworker` submits?": r"bulk +dirtied last",
    "Which command line is that?": r"\./logger if=",
    "Which user?": r"\nnobody ",
    "Which container, or which unit of systemd?": r"CGROUP",
    "Which files?": r"/mnt/log ",
    "Which thread of the process?": r"TID  COMM",
    "What happened at a time of day (UTC)?": r"\d+  logger ",
    "What happened in the first minute?": r"\d+  logger ",
    "What happened in the last 30 s?": r"below: .*\n\n(.*\n)*.*\d+  slow ",
    "When was it bad?": r"START",
    "Who was it then?": r"START .*PROCESS",
    "Which I/O took 900 ms?": r"3 slowest.*:\n.*\n.* slow +write +loop\d+ .* (9\d\d ms|1\.\d+ s)",
    "Who had to wait for more than 100 ms?": r"\d+  slow ",
    "Is the disk busy?": r"BUSY",
    "Sequential or random?": r"SEQUENTIAL",
    "How large are the I/Os?": r"write +4\.0 KiB",
    "How long does the last part of an fsync wait, the flush?": r"\d+ +(jbd2|sync|logger)",
    "Is it the disk, or the queue in front of it?": r"QUEUED",
    "Where did the time of bios go?": r"SCHEDULER|DEVICE",
    "Did it trim?": r"discard ",
    "Did anything fail?": r"EIO +loop\d",
    "Does anything stand out?": r"failed, 1 of them read of broken",
    "How is the latency distributed?": r"usecs .*\n.*->",
    "Is it worse than before?": r"before.parquet",
    "May I believe these numbers?": r"(?i)complete",
    "What does it look like?": r"\.png",
    "Was it the checkpoint of PostgreSQL's log?": r"\.png",
    "Does something in it fail my test?": r"--fail-on asked for it",
}


def workload(folder: Path, disk: LoopDevice) -> str:
    """Programs with names of their own, which are copies of dd."""
    return f"""
    cd {folder}
    for name in logger bulk slow reader broken; do cp /bin/dd $name; done
    ./bulk if=/dev/zero of=mnt/bulk bs=1M count=20 status=none; sync
    ./slow if=/dev/zero of=mnt/log bs=1M count=1 status=none conv=fsync
    sleep 0.2  # so that the recorder looks for the next one at once
    ./logger if=/dev/zero of=mnt/log bs=4k count=500 oflag=dsync conv=notrunc status=none
    chmod 755 .; chmod 644 mnt/bulk
    setpriv --reuid 65534 --clear-groups ./reader if=mnt/bulk of=/dev/null bs=64k iflag=direct
    ./slow if=/dev/zero of=mnt/slow bs=4k count=1 status=none conv=fsync
    fsfreeze -f back
    ./slow if=/dev/zero of=mnt/slow bs=4k count=1 oflag=direct conv=notrunc status=none &
    sleep 0.95; fsfreeze -u back; wait
    rm mnt/bulk; sync; fstrim mnt; sync
    truncate -s 0 {disk.backing}
    ./broken if={disk.path} of=/dev/null bs=4k count=1 skip=1000 iflag=direct
    true
    """


def test_every_question_is_answered(
    record: Callable[..., Capture], make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    assert QUESTIONS.keys() == ANSWERS.keys()
    with mounted_ext4(make_loop(), ram_folder / "back") as back:
        disk = make_loop(128 << 20, folder=back)
        with mounted_ext4(disk, ram_folder / "mnt"):
            only = ("-l", "request,bio", "-d", disk.name, "--")
            record(*only, "cp", "/bin/dd", f"{ram_folder}/mnt/logger", name="before.parquet")
            capture = record(*only, "bash", "-c", workload(ram_folder, disk))
        run("losetup", "-d", disk.path)
    assert capture.rows(comm="slow")
    start, stop = (
        datetime.fromisoformat(capture.metadata[name]) for name in ("started_at", "stopped_at")
    )
    middle = start + (stop - start) / 2
    (ram_folder / "postgresql.log").write_text(
        f"{middle:%Y-%m-%d %H:%M:%S}.123 UTC [12] LOG:  checkpoint starting: time\n\tgoes on\n"
    )
    wrong = {}
    for question, command in QUESTIONS.items():
        command = command.replace("15:16:10", f"{start:%H:%M:%S}")
        command = command.replace("15:16:11", f"{stop + timedelta(seconds=1):%H:%M:%S}")
        words = [str(IOREC), *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=ram_folder, capture_output=True, text=True, timeout=120)
        said = done.stdout + done.stderr
        if done.returncode not in (0, 3) or not re.search(ANSWERS[question], said):
            wrong[question] = done
    assert not wrong, "\n\n".join(
        f"{question}\n{done.stdout}{done.stderr}" for question, done in wrong.items()
    )
