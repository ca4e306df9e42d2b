#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records an archive being unpacked onto ext4 and synced.  usage: archive-unpack.sh OUTPUT.parquet
output=$(realpath "$1")
# shellcheck source=samples/loop.sh
. "$(dirname "$0")/loop.sh"
mount_loop 512M
tar -C /usr/lib/python3 -cf archive.tar dist-packages
tar -C /usr/share -rf archive.tar doc
iorec record -o run.parquet -d "$loop" -- \
	sh -c 'tar -C mount -xf archive.tar && sync -f mount && rm -r mount/doc && sync -f mount'
mv run.parquet "$output"
