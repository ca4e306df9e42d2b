#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records the system calls of PostgreSQL under pgbench, the I/Os of disks that they lead to, and waits.
# usage: postgres-calls.sh OUTPUT.parquet
output=$(realpath "$1")
# shellcheck source=samples/postgres.sh
. "$(dirname "$0")/postgres.sh"
start_postgres 5
# The journal of the file system is a thread of the kernel.
iorec record -l syscall,wait,request -o run.parquet -c postgres -c "jbd2/${loop#/dev/}*" -- \
	setpriv --reuid postgres --regid postgres --init-groups \
	"$bin/pgbench" -h "$data" -c 4 -T 1 postgres >log 2>&1
mv run.parquet "$output"
