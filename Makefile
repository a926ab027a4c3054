# What a contributor runs, and CI the same. Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python3; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; done; echo $$each)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 5
# Registries have bad moments: three tries.
RETRY = for pause in 3 10 0; do $(1) && exit 0; sleep $$pause; done; exit 1

# How many processes `make test` and CI share the tests out among: `auto`, a number, or 0 for the one that make starts.
TEST_WORKERS ?= 0
# The tests start Python some hundred times: what has been compiled once is kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up test check bench chaos

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

up: .venv/.installed ## Run the mesh with the built-in example, until Ctrl-C
	@exec $(BIN)/eventing up --quickstart

test: .venv/.developing ## Run the tests; ARGS='-k trace' chooses, TEST_WORKERS=auto shares them out
	@$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) $(ARGS)

check: .venv/.developing ## Format, lint, types, layers
	$(BIN)/ruff format --check $(wildcard eventing adapters sources tests) && $(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.developing ## Measure the mesh against the floor; EVENTING_BENCH_QUICK=1: in seconds
	@$(BIN)/python tests/bench/run.py $(ARGS)

chaos: .venv/.developing ## Random rounds of faults against ledgers; ARGS='--seed 7 --rounds 50'
	@$(BIN)/python -m pytest tests/chaos --rounds 10 $(ARGS)

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %s: make PYTHON=python3.12 …" % sys.version.split()[0])'
	@echo "Installing into .venv …" && $(PYTHON) -m venv .venv
	@$(call RETRY,$(PIP) --upgrade 'pip>=25.1' && $(PIP) -e .)
	@touch $@

.venv/.developing: .venv/.installed
	@echo "Installing the tools of a developer …"
	@$(call RETRY,$(PIP) -e '.[testing]' --group dev)
	@touch $@
