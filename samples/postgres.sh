# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Sourced by the samples of PostgreSQL, which needs the package postgresql.
# shellcheck source=samples/loop.sh
. "$(dirname "${BASH_SOURCE[0]}")/loop.sh"
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)

as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

# start_postgres SCALE: a server with pgbench's tables on a new ext4, and an empty page cache; its
# socket is in $data
start_postgres() {
	mount_loop 1G
	data=$scratch/mount/data
	chmod 755 .
	install -d -o postgres "$data"
	as_postgres "$bin/initdb" -A trust -D "$data" >log
	as_postgres "$bin/pg_ctl" -D "$data" -s -w -l "$data/log" \
		-o "-c shared_buffers=16MB -c max_wal_size=64MB -k $data -c listen_addresses=" start
	trap 'as_postgres "$bin/pg_ctl" -D "$data" -s -m fast stop; cleanup' EXIT
	as_postgres "$bin/pgbench" -h "$data" -iqs "$1" postgres 2>log
	sync
	echo 3 >/proc/sys/vm/drop_caches
}
