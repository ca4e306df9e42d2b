#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records with losses on purpose: a tiny buffer, and a recorder that is stopped for a while.
# usage: losses.sh OUTPUT.parquet
output=$(realpath "$1")
# shellcheck source=samples/loop.sh
. "$(dirname "$0")/loop.sh"
make_loop 256M
cat >load.sh <<-END
	fio --name=reads --filename=$loop --direct=1 --rw=randread --ioengine=io_uring \
		--iodepth=16 --rate_iops=20000 --time_based --runtime=3 --output=/dev/null &
	sleep 1; kill -STOP \$PPID; sleep 0.3; kill -CONT \$PPID
	wait
END
iorec record -o run.parquet -d "$loop" -B 64K -- sh load.sh
mv run.parquet "$output"
