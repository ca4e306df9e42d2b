# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the samples: works in a folder in memory, with a loop device on a file in it; the device
# is detached and the folder removed when the script ends.
set -euo pipefail

samples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$samples/../.venv/bin:$PATH

((EUID == 0)) || { echo "error: recording needs root" >&2; exit 1; }

scratch=$(mktemp -d /dev/shm/iorec-sample.XXXXXX)
loop=
cd "$scratch"
cleanup() {
	! mountpoint -q mount || umount mount
	cd /
	[[ -z $loop ]] || losetup -d "$loop"
	rm -rf "$scratch"
}
trap cleanup EXIT

# make_loop SIZE: sets $loop
make_loop() {
	truncate -s "$1" disk
	loop=$(losetup -f --show disk)
}

# mount_loop SIZE: a new ext4 on ./mount
mount_loop() {
	make_loop "$1"
	mkfs.ext4 -q "$loop"
	mkdir mount
	mount "$loop" mount
}
