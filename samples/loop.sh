# Sourced by the samples: a loop device on a file in memory, detached when the script ends.
set -euo pipefail

iorec=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin/iorec
export PATH=${iorec%/*}:$PATH

((EUID == 0)) || { echo "error: recording needs root" >&2; exit 1; }

scratch=$(mktemp -d /dev/shm/iorec-sample.XXXXXX)
loop=
cleanup() {
	! mountpoint -q "$scratch/mount" || umount "$scratch/mount"
	[[ -z $loop ]] || losetup -d "$loop"
	rm -rf "$scratch"
}
trap cleanup EXIT

# make_loop SIZE: sets $loop
make_loop() {
	truncate -s "$1" "$scratch/disk"
	loop=$(losetup -f --show "$scratch/disk")
}

# mount_loop SIZE: a new ext4 on $scratch/mount
mount_loop() {
	make_loop "$1"
	mkfs.ext4 -q "$loop"
	mkdir "$scratch/mount"
	mount "$loop" "$scratch/mount"
}
