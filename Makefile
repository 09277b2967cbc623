# Every target sets itself up: `make test` on a fresh clone needs Python >= 3.10 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What `gate` and `refresh` measure with; empty for CUDA where there is some, else the CPU.
DEVICE ?=
ON_DEVICE := $(if $(DEVICE),--device=$(DEVICE))
# The revision that `gate` compares with what the stored baseline flags, and `instructions` with
# where nothing is stored.
BASE ?= main
# How many commands `chaos` kills; empty for 200.
KILLS ?=
# What `check` does on Linux only.
ON_LINUX := $(if $(filter Linux,$(shell uname)),instructions)

.PHONY: help test field operators memory instructions emulator compile bench compare accept \
	calibrate ab gate gpu-test growth batch refresh quality lint check selftest wheel docs axe chaos \
	gpu-check clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# A process for each core, with a thread each. A file's tests stay together: they share what is
# compiled for them, and large benchmarks run one after another.
test: $(READY) ## correctness tests, the device-free gate, and each benchmark once, untimed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses=8 --dist loadfile

field: $(READY) ## what takes long: of layers beyond the published comparison, and further sizes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses=8 --dist loadfile -m field

operators: $(READY) ## what every layer promises, by torch's operators where nothing is compiled
	KAN_IMPLS_CPU=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses=8 \
	  tests/test_contract.py tests/test_accuracy.py tests/test_properties.py

memory: $(READY) ## the device-free gate alone: bytes and costs of every implementation
	$(BIN)/python -m pytest benchmarks/test_memory.py tests/perfgate/test_device_free.py \
	  tests/perfgate/test_device_free_faults.py tests/perfgate/test_costs.py tests/test_fused_cost.py

instructions: $(READY) ## instructions by callgrind (Linux); against BASE where none are stored
	$(BIN)/python -m pytest -m instructions --instructions-base=$(BASE)

emulator: $(READY) ## the CUDA kernels on the CPU, under sanitizers too
	$(BIN)/python -m pytest tests/test_emulator.py tests/test_kernels.py
	$(BIN)/python -m pytest -m sanitizer

compile: $(READY) ## every CUDA kernel compiled for every architecture; needs no GPU
	$(BIN)/python -m pytest tests/test_kernel_resources.py tests/test_fused_compiler.py
	$(BIN)/python -m pytest -m compile

bench: $(READY) ## time and memory of every implementation: the table
	$(BIN)/python -m pytest --benchmark-only

compare: $(READY) ## the same, judged by the stored baseline and by its code
	$(BIN)/python -m pytest --benchmark-compare

accept: $(READY) ## store the last run as the baseline of this machine
	$(BIN)/kan-bench accept

calibrate: $(READY) ## store a baseline with its noise, from ten runs (half an hour)
	$(BIN)/kan-bench calibrate -- benchmarks/test_reference.py $(ON_DEVICE)

ab: $(READY) ## the files as they are against BASE (main), in turns
	$(BIN)/kan-bench ab $(BASE) -- benchmarks/test_reference.py $(ON_DEVICE)

gate: $(READY) ## what decides a merge into BASE (main): stored baseline, then turns; reports in gate/
	$(BIN)/kan-bench gate $(BASE) --report gate --fail-on-inconclusive -- \
	  benchmarks/test_reference.py --require-baseline $(ON_DEVICE)

gpu-test: $(READY) ## the contract of every implementation, and what needs a GPU
	$(BIN)/python -m pytest tests/test_gpu.py tests/test_contract.py tests/test_golden.py \
	  tests/perfgate/test_timing.py tests/perfgate/test_memory.py tests/perfgate/test_launches.py $(or $(ON_DEVICE),--device=cuda)

refresh: $(READY) ## propose a new baseline of this machine, with its evidence in refresh/
	mkdir -p refresh
	$(BIN)/kan-bench calibrate --keep refresh/rounds -- benchmarks/test_reference.py $(ON_DEVICE)
# 10 is `regressed`, 19 `unjudged`: that this machine became slower is what there is to propose.
	$(BIN)/python -m pytest benchmarks/test_reference.py --benchmark-compare $(ON_DEVICE) \
	  --report=refresh || case $$? in 10|19) ;; *) exit 1;; esac

growth: $(READY) ## growth with width and grid, and [784,256,10] at batch 36,864
	$(BIN)/python -m pytest --benchmark-only -m growth

batch: $(READY) ## over an MLP from batch 1 to 36,864, and in small networks
	$(BIN)/python -m pytest benchmarks/test_batch.py --benchmark-only -m "batch and not field"

quality: $(READY) ## how well networks of equal size learn, in quality/ (needs the extra quality)
	$(BIN)/python benchmarks/quality.py

lint: $(READY) ## format, lint, spelling, types, import contracts, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_use.py
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet --persona=auditor --strict-collection .github

check: lint test field operators selftest $(ON_LINUX) ## everything that must hold before a merge
	$(BIN)/python -m pytest -m "compile or ptx or sanitizer or toy or fuzz"

selftest: $(READY) ## the gate tests itself: faults go red, identical code stays green
	$(BIN)/python benchmarks/selftest.py
	$(BIN)/python -m pytest -m gate

wheel: $(READY) ## build the wheel, and import it in an empty environment
	rm -rf dist build/wheel-env
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/python -m pip install --quiet -c constraints.txt "$$(ls dist/*.whl)[bench,report]"
	cd build && wheel-env/bin/python -c 'import kan_impls; print(kan_impls.list_variants())'
	build/wheel-env/bin/kan-bench --help > build/kan-bench-help.txt

# A link or an anchor that leads nowhere is an error; with --quiet it would not be counted.
docs: $(READY) ## the pages as a site, in build/site
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	rm -rf build/pages
	mkdir -p build/pages
	tar -cf - README.md README.zh-CN.md CHANGELOG.md .github/CONTRIBUTING.md docs examples | tar -xf - -C build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

axe: $(READY) ## axe-core looks at the report page (needs npm and a Chromium)
	mkdir -p build/axe
	cd build/axe && tar -xzf "$$(npm pack --silent axe-core@4.14.1)"
	$(BIN)/python -m pytest tests/perfgate/test_report_browser.py -k axe

chaos: $(READY) ## commands killed at random moments: nothing is lost, and nothing stops the next one
	$(BIN)/python benchmarks/chaos.py $(if $(KILLS),--kills=$(KILLS))

gpu-check: ## on a GPU: its tests, sanitizers and times, within 8 minutes; no network, no .venv
	@PYTHONPATH=src:benchmarks timeout --foreground -k 5 478 $(PYTHON) -m pytest benchmarks/test_gpu_check.py -m gpu_check \
	  -p gpu_record --record=gpu-check/gpu-check.json -p no:cacheprovider --benchmark-enable \
	  --benchmark-max-time=0.2 --timer=events --worker-timeout=60 --device=cuda

clean: ## remove the environment and caches
	rm -rf $(VENV) build dist gate refresh .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
