# `make demo` and `make test` set everything up by themselves, on a fresh Debian 12 as root.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SRC    ?=
FILES  ?= 20000
INOPT_LAB ?= ../shared/lab
export INOPT_LAB

# pyfuse3 is built.
PACKAGES := gcc libfuse3-dev pkg-config python3-dev
# What the tests run beside Python: e2fsprogs for filesystems in a file; and qemu, and other kinds
# of filesystems, where there is a lab kernel.
TESTED_WITH := acl attr e2fsprogs procps util-linux \
               $(if $(wildcard $(INOPT_LAB)/run),qemu-system-x86 btrfs-progs xfsprogs)
INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: help setup demo test lint types bench bench-lab clean

help:
	@echo "make demo [SRC=dir]   mount a directory, run a workload through it, compare, unmount"
	@echo "make test             the whole test suite"
	@echo "make lint types       ruff; mypy --strict"
	@echo "make bench            speed against the bare tree and against peers"
	@echo "make bench-lab        what tier inode is worth, on the lab's kernel (INOPT_LAB) [FILES=20000]"

# With what tests and checks need; the demo does without.
setup: $(VENV)/.tested

$(VENV)/.ready: pyproject.toml Makefile
	@sh .ci/install-packages $(PACKAGES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	    sh .ci/install-packages python3-venv && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python $(INSTALL) --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.ready
	@sh .ci/install-packages $(TESTED_WITH)
	@$(BIN)/python $(INSTALL) --upgrade 'pip>=25.1'  # has --group
	@$(BIN)/python $(INSTALL) --no-compile --group dev
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/python examples/mirror/demo.py $(SRC)

# Compiled beforehand: each emulated machine would do it again.
test: setup
	@$(BIN)/python -m compileall -q inopt tests
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	@sh .ci/install-packages bindfs fio fuse-overlayfs fuse3 gcc git libfuse3-dev mergerfs pkg-config \
	    python3-dev
	$(BIN)/python tests/bench/run.py --json bench.json
	$(BIN)/python tests/bench/handlers.py
	$(BIN)/python tests/bench/overlay.py --json bench-overlay.json --svg docs/bench-overlay.svg

bench-lab: setup
	@sh .ci/install-packages e2fsprogs findutils gcc git
	$(BIN)/python tests/bench/inode_tier.py --files $(FILES) --json bench-lab.json \
	    --svg docs/bench-lab.svg

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis bench.json bench-lab.json bench-overlay.json
