#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records the system calls of PostgreSQL under pgbench, and the I/Os of disks that they lead to.
# usage: postgres-calls.sh OUTPUT.parquet; needs the package postgresql
output=$(realpath "$1")
# shellcheck source=samples/loop.sh
. "$(dirname "$0")/loop.sh"
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
mount_loop 1G
data=$scratch/mount/data
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
chmod 755 .
install -d -o postgres "$data"
as_postgres "$bin/initdb" -A trust -D "$data" >log
as_postgres "$bin/pg_ctl" -D "$data" -s -w -l "$data/log" \
	-o "-c shared_buffers=16MB -c max_wal_size=64MB -k $data -c listen_addresses=" start
trap 'as_postgres "$bin/pg_ctl" -D "$data" -s -m fast stop; cleanup' EXIT
as_postgres "$bin/pgbench" -h "$data" -iqs 5 postgres 2>log
sync
echo 3 >/proc/sys/vm/drop_caches
# The journal of the file system is a thread of the kernel.
iorec record -l syscall,request -o run.parquet -c postgres -c "jbd2/${loop#/dev/}*" -- \
	setpriv --reuid postgres --regid postgres --init-groups \
	"$bin/pgbench" -h "$data" -c 4 -T 1 postgres >log 2>&1
mv run.parquet "$output"
