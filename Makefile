# SPDX-License-Identifier: GPL-2.0-only
# Sets up what is missing, as root on Debian and Ubuntu, and runs it.
#   make install   iorec, its man pages and its completions below PREFIX (/usr/local), with the
#                  program in .venv
#   make install-service  the same, and the flight recorder as a service of systemd
#   make uninstall removes what is below PREFIX, and the kept kernel programs
#   make demo      record a real workload, print its report, draw its plot
#   make test      every test
#   make test-busy the tests with real devices, beside a load that has nothing to do with them
#   make check     linters of Python, C and the scripts, types and the import contracts
#   make docs      the JSON Schemas in docs/schema, the drawing in ARCHITECTURE.md and what the cells
#                  of docs/notebook.ipynb print, from the code
#   make soak      one hour in which everything comes and goes, each row checked: SOAK_S, SOAK_SEED
#   make fuzz      damaged files for every reader, for FUZZ_S seconds
#   make bench     what it costs, beside other tracers, into bench-results/: half an hour alone
#   make bench-X   one part of it: see PARTS in tests/bench/__main__.py
#   make bench-docs  its figures into docs/ and README.md
.PHONY: help install install-service uninstall environment demo docs test test-busy check soak fuzz bench bench-docs
.PHONY: packages

help:
	@sed '1d; /^#/!Q; s/^# \{0,1\}//' Makefile

# BCC's Python module is built for the distribution's Python and is not on PyPI.
PYTHON := /usr/bin/python3
PACKAGES := python3-bpfcc python3-venv fio e2fsprogs
PREFIX := /usr/local
# addpart is of util-linux up to Debian 12, of util-linux-extra from Debian 13 on.
test test-busy: PACKAGES += kmod xfsprogs btrfs-progs dmsetup mdadm procps util-linux-extra groff fish zsh
test test-busy: PACKAGES += prometheus tmux
check: PACKAGES += shellcheck
bench bench-%: PACKAGES += linux-perf bpftrace blktrace
SCRIPTS := .ci/run $(wildcard samples/*.sh tests/*.sh)
# iorec alone, and with what tests and checks need.
RUNS := .venv/.runs
STAMP := .venv/.installed

# Where this kernel loads no BPF programs, the tests that need one run under another kernel.
LOADS_BPF := import ctypes; ctypes.CDLL("libbpf.so.1").libbpf_probe_bpf_map_type(27, None) == 1 or exit(1)
KERNEL = $$($(PYTHON) -c '$(LOADS_BPF)' && test -e /sys/kernel/btf/vmlinux || echo tests/vm.sh trixie)

# A link to the program of another copy of iorec is replaced, any other file is not.
install: $(RUNS)
	@case $$(readlink $(PREFIX)/bin/iorec || echo $(PREFIX)/bin/iorec) in \
		*/.venv/bin/iorec) ;; \
		*) [ ! -e $(PREFIX)/bin/iorec ] || { echo \
			"error: $(PREFIX)/bin/iorec is another program: move it, or set PREFIX" >&2; exit 1; };; \
	esac
	@mkdir -p $(PREFIX)/bin && [ -w $(PREFIX)/bin ] || { echo \
		"error: $(PREFIX)/bin may not be written: run as root, or set PREFIX" >&2; exit 1; }
	ln -sfn $(CURDIR)/.venv/bin/iorec $(PREFIX)/bin/iorec
	.venv/bin/python -m iorec.documentation $(PREFIX)

# The flight recorder as a service of systemd, which `systemctl enable --now iorec-flight` starts.
UNIT := lib/systemd/system/iorec-flight.service
install-service: install
	mkdir -p $(dir $(PREFIX)/$(UNIT))
	sed 's|@PREFIX@|$(PREFIX)|' docs/iorec-flight.service > $(PREFIX)/$(UNIT)
	[ ! -d /run/systemd/system ] || systemctl daemon-reload

# Other programs may own files of these names: each of ours says that it is.
INSTALLED = $(wildcard $(PREFIX)/share/man/man1/iorec.1 $(PREFIX)/share/man/man1/iorec-*.1 \
	$(PREFIX)/share/bash-completion/completions/iorec $(PREFIX)/share/zsh/site-functions/_iorec \
	$(PREFIX)/share/fish/vendor_completions.d/iorec.fish $(PREFIX)/$(UNIT))
uninstall:
	@[ "$$(readlink $(PREFIX)/bin/iorec)" != $(CURDIR)/.venv/bin/iorec ] || rm $(PREFIX)/bin/iorec
	@for file in $(INSTALLED); do \
		! head -n 2 $$file | grep -q 'made by iorec' || rm $$file; done
	rm -rf /var/cache/iorec

environment: $(STAMP)

packages:
	@missing=$$(for p in $(PACKAGES); do \
		dpkg-query -Wf '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	[ -z "$$missing" ] || { apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; }

$(RUNS): pyproject.toml | packages
	$(PYTHON) -m venv --system-site-packages .venv
	.venv/bin/pip install -q --disable-pip-version-check -e '.[exporter,top]'
	touch $@

$(STAMP): $(RUNS)
	.venv/bin/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(RUNS)
	samples/demo.sh

KERNEL_TESTS := .venv/bin/pytest --numprocesses 2 --dist worksteal tests/kernel

test: environment
	.venv/bin/pytest --numprocesses auto tests/unit tests/cli
	$(KERNEL) $(KERNEL_TESTS)

test-busy: environment
	$(KERNEL) tests/busy.sh $(KERNEL_TESTS)

check: environment
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	shellcheck $(SCRIPTS)
	.venv/bin/clang-format --dry-run --Werror $$(find bpf iorec -name '*.[ch]')

docs: environment
	.venv/bin/python -m iorec.documentation
	.venv/bin/python -m iorec.documentation.wings
	.venv/bin/python -m iorec.documentation.notebook

soak: environment
	.venv/bin/python -m tests.soak

FUZZ_S := 600
fuzz: environment
	.venv/bin/pip install -q --disable-pip-version-check -e '.[fuzz]'
	.venv/bin/python tests/fuzz/readers.py -max_total_time=$(FUZZ_S)

bench: environment packages
	.venv/bin/python -m tests.bench bench-results

bench-%: environment packages
	.venv/bin/python -m tests.bench bench-results $*

bench-docs: environment
	.venv/bin/python -m tests.bench.page bench-results
