#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records the three jobs of mixed.fio on a loop device.  usage: mixed-fio.sh OUTPUT.parquet
output=$(realpath "$1")
# shellcheck source=samples/loop.sh
. "$(dirname "$0")/loop.sh"
make_loop 256M
cp "$samples/mixed.fio" .
iorec record -o run.parquet -d "$loop" -- fio --filename="$loop" --output=/dev/null mixed.fio
mv run.parquet "$output"
