#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records PostgreSQL under pgbench, with a checkpoint on the way.
# usage: postgres-pgbench.sh OUTPUT.parquet
output=$(realpath "$1")
# shellcheck source=samples/postgres.sh
. "$(dirname "$0")/postgres.sh"
start_postgres 10
cat >bench.sh <<-END
	"$bin/pgbench" -h "$data" -c 4 -T 3 postgres
	"$bin/psql" -h "$data" -qc checkpoint postgres
	"$bin/pgbench" -h "$data" -c 4 -T 1 -S postgres
END
iorec record -o run.parquet -d "$loop" -- \
	setpriv --reuid postgres --regid postgres --init-groups sh bench.sh >log 2>&1
mv run.parquet "$output"
