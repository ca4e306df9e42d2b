#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Run a command as root in a copy of this project on a minimal Debian, where nothing is installed.
#
#   tests/fresh.sh SUITE COMMAND [ARGUMENT...]      tests/fresh.sh trixie make demo
#
# SUITE is a Debian suite: bookworm, trixie, sid. debootstrap makes a new system, with make and
# what it takes to reach the network; the kernel, /proc, /sys, /dev and the cgroups are this
# machine's. All mounts are in a mount namespace of their own, so that they go with the command; then
# the folder is removed. Standard input is empty; the exit status is the command's.
#
# Environment: FRESH_FOLDER (where the system is made, /var/tmp), FRESH_MIRROR, FRESH_BIND (more
# folders of this machine that are seen there, read-only: package indexes, say).
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

main() {
	(($# >= 2)) || die "usage: tests/fresh.sh SUITE COMMAND [ARGUMENT...]"
	((EUID == 0)) || die "must run as root"
	local status=0
	command -v debootstrap >/dev/null || {
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends debootstrap
	} >&2
	root=$(mktemp -d "${FRESH_FOLDER:-/var/tmp}/iorec-fresh.XXXXXX")
	chmod 755 "$root" # it is / in there, for other users too
	# Not the mounts, which are in the other namespace, whatever still runs there.
	trap 'rm -rf --one-file-system "$root"' EXIT
	make_system "$1" >&2
	shift
	unshare --mount --propagation private bash -euo pipefail -c "$(declare -f enter); enter \"\$@\"" \
		enter "$root" "$@" </dev/null || status=$?
	return "$status"
}

die() {
	echo "fresh.sh: error: $*" >&2
	exit 2
}

make_system() {
	local suite=$1 script=/usr/share/debootstrap/scripts/$1 file
	[[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid # newer than this debootstrap
	debootstrap --variant=minbase --include=make,ca-certificates "$suite" "$root" \
		"${FRESH_MIRROR:-http://deb.debian.org/debian}" "$script"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service starts in there
	chmod 755 "$root/usr/sbin/policy-rc.d"
	for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
		[[ ! -e $file ]] || cp --dereference "$file" "$root$file"
	done
	mkdir "$root/iorec"
	tar -C "$project" --exclude=./.venv --exclude=./.git --exclude=./demo \
		--exclude=./bench-results -cf - . | tar -C "$root/iorec" -xf -
}

# In the namespace: mounts, and becomes the command.
enter() {
	local root=$1 folder
	shift
	mount --bind "$root" "$root" # what is no mount, unshare(1) cannot make private
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
	for folder in ${FRESH_BIND:-}; do
		mkdir -p "$root$folder"
		mount --bind -o ro "$folder" "$root$folder"
	done
	export HOME=/root LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	# shellcheck disable=SC2016 # of the inner shell
	exec chroot "$root" /bin/bash -c 'cd /iorec && exec "$@"' bash "$@"
}

main "$@"
