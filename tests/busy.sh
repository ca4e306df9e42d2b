#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs a command, as root, beside a load that has nothing to do with it: fio on a loop device of its
# own in memory, and two processes that take all CPU they get.
#
#   tests/busy.sh COMMAND [ARGUMENT...]      tests/busy.sh .venv/bin/pytest tests/kernel
#
# However this script ends, the kernel ends the load with it (PR_SET_PDEATHSIG), and with the load
# goes the device: it is marked to be detached at its last use, and its file has no name.
set -euo pipefail

die() {
	echo "$0: $1" >&2
	exit 2
}

beside() {
	setpriv --pdeathsig KILL "$@" &
}

main() {
	(($# >= 1)) || die "usage: tests/busy.sh COMMAND [ARGUMENT...]"
	local file device
	file=$(mktemp /dev/shm/iorec-busy-XXXXXX)
	truncate -s 256M "$file"
	device=$(losetup -f --show "$file")
	exec 9<"$device"
	losetup -d "$device"
	rm "$file"
	beside fio --name=busy --filename="$device" --thread --direct=1 --rw=randrw --bs=4k \
		--ioengine=libaio --iodepth=16 --time_based --runtime=1d --output=/dev/null
	beside sh -c 'while :; do :; done'
	beside sh -c 'while :; do :; done'
	setpriv --pdeathsig TERM "$@" 9<&-
}

main "$@"
