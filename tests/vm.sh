#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Run a command as root under another Debian kernel, in a virtual machine.
#
#   tests/vm.sh SUITE COMMAND [ARGUMENT...]
#
# SUITE is a Debian suite: bullseye (5.10), bookworm (6.1), bookworm-backports, trixie (6.12),
# trixie-backports, sid. Its newest kernel is fetched into a cache, looked for once a day,
# and never installed; this machine's apt sources stay as they are.
# The virtual machine sees this file system. The project is the real one, writable; all else is
# read-only, or a copy that is thrown away (/tmp, /usr, /var, /etc, /root, ...). A file that the
# host changes meanwhile may be seen as it was. /dev/shm is a tmpfs of half the memory.
# Standard input is empty. The exit status is the command's, 124 after the time limit, 255 when
# the kernel dies. One machine runs at a time: a second call waits for the first.
#
# Environment: VM_TIMEOUT (1800 seconds, boot included), VM_CPUS (2), VM_MEMORY (3G),
# VM_VERBOSE=1 (the kernel log on stderr), VM_CACHE (${XDG_CACHE_HOME:-~/.cache}/iorec-vm; as the
# project, not below /dev, /run, /var/cache or /var/tmp, which are new in the virtual machine).
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/iorec-vm}
# udev names the ports that carry the command's output; vng asks file(1) for the kernel's version.
packages=(qemu-system-x86 busybox-static file kmod python3-venv udev)

main() {
	(($# >= 2)) || die "usage: tests/vm.sh SUITE COMMAND [ARGUMENT...]"
	((EUID == 0)) || die "must run as root"
	local suite=$1
	shift

	mkdir -p "$cache"
	exec {lock}>"$cache/lock"
	flock "$lock"
	install_tools >&2
	if [[ -z $(find "$cache/$suite/fetched" -mmin -1440 2>/dev/null) ]]; then
		fetch_kernel "$suite" >&2
	fi
	run "$suite" "$@"
}

die() {
	echo "vm.sh: error: $*" >&2
	exit 2
}

install_tools() {
	if ! dpkg --status "${packages[@]}" &>/dev/null; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${packages[@]}"
	fi
	if [[ ! -e $cache/venv/ready ]]; then
		/usr/bin/python3 -m venv "$cache/venv"
		"$cache/venv/bin/pip" install -qq virtme-ng==1.42
		# 9p without a cache reads a mapped file, such as LLVM's library, one page a request.
		sed -i 's/msize=524288/&,cache=loose/' \
			"$cache"/venv/lib/python3*/site-packages/virtme/mkinitramfs.py
		touch "$cache/venv/ready"
	fi
}

fetch_kernel() {
	local suite=$1 apt=$cache/apt-$1 new=$cache/$1.new
	local key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
	local options=(
		-qq -o Dir::State="$apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache"
		-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
		-o APT::Sandbox::User=root
	)
	local main security wanted package

	echo "vm.sh: fetching the newest kernel of $suite"
	main=$(mirror Debian)
	[[ -n $main ]] || die "this machine's apt sources name no Debian mirror: run apt-get update"
	rm -rf "$new"
	mkdir -p "$new" "$apt"/{state/lists/partial,cache/archives/partial}
	echo "deb $key $main $suite main" >"$apt/sources.list"
	security=$(mirror Debian-Security)
	if [[ -n $security && ! $suite =~ -|^sid$ ]]; then
		echo "deb $key $security $suite-security main" >>"$apt/sources.list"
	fi
	apt-get "${options[@]}" update

	# Newer kernels are spread over several packages. The cloud flavour would be smaller, but it
	# lacks 9p, which this file system comes through.
	wanted=$(apt-cache "${options[@]}" depends --important --recurse linux-image-amd64 |
		grep -xE 'linux-(image|binary|modules)-[0-9][^ ]*-amd64' | sort -u)
	# shellcheck disable=SC2086 # one word a package
	(cd "$new" && apt-get "${options[@]}" download $wanted)
	for package in "$new"/*.deb; do
		dpkg-deb --extract "$package" "$new"
		rm "$package"
	done
	touch "$new/fetched"
	rm -rf "${cache:?}/$suite"
	mv "$new" "$cache/$suite"
}

# The URI of the mirror with this label in the machine's own apt sources, whatever their form.
mirror() {
	# shellcheck disable=SC2016 # apt's own variables
	apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
		awk -F'|' -v label="$1" '$1 == label { uri = $2 } END { print uri }'
}

run() {
	local image command status=0 out err copy_out copy_err
	# Software emulation is slow: the time-stamp counter saves a trap into QEMU for each reading of
	# the clock, and drivers of board devices that no test needs, 15 s of the boot, stay out.
	local kernel_options=(
		tsc=reliable clocksource=tsc mitigations=off
		"modprobe.blacklist=kvm_amd,kvm_intel,aesni_intel,ghash_clmulni_intel,i2c_i801,lpc_ich,ahci,psmouse"
	)
	image=$(find "$cache/$1" -name 'vmlinuz*' -type f)
	shift

	# A file carries the command, because the kernel's command line is short. It mounts the project
	# again, with a cache: imports take a third of the time, and files can be mapped for writing.
	command=$(mktemp "$cache/command.XXXXXX")
	{
		printf 'umount %q && mount -t 9p -o trans=virtio,version=9p2000.L,access=any,' "$project"
		printf 'msize=512000,cache=loose virtme.initmount0 %q && ' "$project"
		printf 'cd %q || exit\n' "$PWD"
		printf '%q ' "$@"
	} >"$command"

	# QEMU reopens its standard streams, which truncates files and fails on sockets: give it pipes.
	exec {out}> >(exec cat) && copy_out=$!
	exec {err}> >(exec cat >&2) && copy_err=$!
	PATH=$cache/venv/bin:$PATH timeout --kill-after=10 "${VM_TIMEOUT:-1800}" \
		vng --run "$image" --disable-kvm --force-9p --user root --cwd / \
		--cpus "${VM_CPUS:-2}" --memory "${VM_MEMORY:-3G}" \
		--rwdir "$project" --overlay-rwdir /root \
		--append "${kernel_options[*]}" ${VM_VERBOSE:+--verbose} --exec "bash $command" \
		</dev/null 1>&"$out" 2>&"$err" &
	exec {out}>&- {err}>&-
	# shellcheck disable=SC2064 # the variable is local, gone when the trap runs
	trap "rm -f ${command@Q}; kill $! 2>/dev/null || true" EXIT
	wait $! || status=$?
	wait "$copy_out" "$copy_err"
	return "$status"
}

main "$@"
