#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records PostgreSQL under pgbench, with a checkpoint on the way.
# usage: postgres-pgbench.sh OUTPUT.parquet; needs the package postgresql
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
as_postgres "$bin/pgbench" -h "$data" -iqs 10 postgres 2>log
sync
echo 3 >/proc/sys/vm/drop_caches
cat >bench.sh <<-END
	"$bin/pgbench" -h "$data" -c 4 -T 3 postgres
	"$bin/psql" -h "$data" -qc checkpoint postgres
	"$bin/pgbench" -h "$data" -c 4 -T 1 -S postgres
END
iorec record -o run.parquet -d "$loop" -- \
	setpriv --reuid postgres --regid postgres --init-groups sh bench.sh >log 2>&1
mv run.parquet "$output"
