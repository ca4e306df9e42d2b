#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Records a real workload, prints its report and draws its plot into the folder demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p demo
samples/mixed-fio.sh demo/demo.parquet
.venv/bin/iorec report demo/demo.parquet
.venv/bin/iorec plot -f demo/demo.parquet -o demo/demo.png
