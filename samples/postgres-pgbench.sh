#!/usr/bin/env bash
# Records PostgreSQL under pgbench, with a checkpoint on the way.
# usage: postgres-pgbench.sh [OUTPUT.parquet]; needs the package postgresql
output=$(realpath "${1:-postgres-pgbench.parquet}")
cd "$(dirname "$0")"
. ./loop.sh
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
mount_loop 1G
data=$scratch/mount/data
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
chmod 755 "$scratch"
install -d -o postgres "$data"
as_postgres "$bin/initdb" -D "$data" >"$scratch/log"
as_postgres "$bin/pg_ctl" -D "$data" -s -w -l "$data/log" \
	-o "-c shared_buffers=16MB -c max_wal_size=64MB -k $data -c listen_addresses=" start
trap 'as_postgres "$bin/pg_ctl" -D "$data" -s -m fast stop; cleanup' EXIT
as_postgres "$bin/pgbench" -h "$data" -iqs 10 postgres 2>"$scratch/log"
sync
echo 3 >/proc/sys/vm/drop_caches
cat >"$scratch/run" <<-END
	"$bin/pgbench" -h "$data" -c 4 -T 3 postgres
	"$bin/psql" -h "$data" -qc checkpoint postgres
	"$bin/pgbench" -h "$data" -c 4 -T 1 -S postgres
END
iorec record -f -o "$output" -d "$loop" -- \
	setpriv --reuid postgres --regid postgres --init-groups sh "$scratch/run" >"$scratch/log"
