#!/usr/bin/env bash
# Records the three jobs of mixed.fio on a loop device.  usage: mixed-fio.sh [OUTPUT.parquet]
output=$(realpath "${1:-mixed-fio.parquet}")
cd "$(dirname "$0")"
. ./loop.sh
make_loop 256M
iorec record -f -o "$output" -d "$loop" -- fio --filename="$loop" --output=/dev/null mixed.fio
