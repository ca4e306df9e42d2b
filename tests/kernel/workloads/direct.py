# SPDX-License-Identifier: GPL-2.0-only
"""Does a known sequence of direct I/Os: COUNT_READS COUNT_WRITES DEVICE EXPECTED.json [O_DSYNC]."""

import json
import mmap
import os
import random
import sys
from pathlib import Path

reads, writes, device, expected = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
flags = os.O_RDWR | os.O_DIRECT | (os.O_DSYNC if "O_DSYNC" in sys.argv else 0)
fd = os.open(device, flags)
size = os.lseek(fd, 0, os.SEEK_END)
rng = random.Random(20011)
buffer = mmap.mmap(-1, 1 << 20)
done = []
for op in rng.sample(["read", "write"], k=reads + writes, counts=[reads, writes]):
    length = 4096 if op == "read" else 512 * rng.randint(1, 128)
    offset = rng.randrange((size - length) // 512) * 512
    if op == "read":
        assert os.preadv(fd, [memoryview(buffer)[:length]], offset) == length
    else:
        assert os.pwritev(fd, [memoryview(buffer)[:length]], offset) == length
    done.append((op, offset, length))
Path(expected).write_text(json.dumps(done))
