# Every target sets itself up: `make test` on a fresh clone needs Python >= 3.10 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: test bench compare accept growth lint check selftest gpu-check clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

test: $(READY) ## correctness tests, and each benchmark once, untimed
	$(BIN)/python -m pytest

bench: $(READY) ## time and memory of every implementation: the table
	$(BIN)/python -m pytest --benchmark-only

compare: $(READY) ## the same, judged by the stored baseline
	$(BIN)/python -m pytest --benchmark-compare

accept: $(READY) ## store the last run as the baseline of this machine
	$(BIN)/kan-bench accept

growth: $(READY) ## growth with batch, width and grid, and [784,256,10] at batch 36,864
	$(BIN)/python -m pytest --benchmark-only -m growth

lint: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## everything that must hold before a merge
	$(BIN)/python -m pytest -m "compile or sanitizer"

selftest: $(READY) ## the gate: planted faults go red, unchanged code stays green (20 minutes)
	$(BIN)/python benchmarks/selftest.py

gpu-check: ## on a GPU: its tests, sanitizers and times, within 8 minutes; no network, no .venv
	PYTHONPATH=src $(PYTHON) benchmarks/gpu_check.py --out gpu-check

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
