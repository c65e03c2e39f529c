# make demo / make test: set everything up in .venv on a fresh machine, then do the job.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo
WORKERS ?= 2
TORTURED := tests/unit/test_files.py tests/unit/test_serialize.py tests/unit/test_hostile_nir.py \
	tests/property/test_random_graphs.py tests/property/test_random_bounds.py \
	tests/property/test_random_models.py tests/equivalence/test_random_lava.py \
	tests/end_to_end/test_supervisor.py tests/end_to_end/test_many_runs.py \
	tests/end_to_end/test_exact_resume.py

.PHONY: help setup demo test docs lint types imports check torture clean

help:
	@echo "make demo     set up, then the whole chain on real images (report in $(DEMO_DIR)/report.html)"
	@echo "make test     set up, then the tests (WORKERS=2 at a time)"
	@echo "make check    lint, types, import rules"
	@echo "make docs     the documentation site, notebooks run (build/docs/index.html)"
	@echo "make torture  the fault tests with large counts (TORTURE=20000 TRIALS=100)"

$(VENV)/.ready: pyproject.toml constraints.txt Makefile
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install Python 3.11 or 3.12, or set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[lava,events,tensorboard,norse,benchmark,sanafe,study,docs,dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --ignore-requires-python lava-nc
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps norse spikingjelly neurobench
	@touch $@

setup: $(VENV)/.ready

demo: setup
	$(BIN)/spikingmoe demo --out $(DEMO_DIR) --resume

test: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

imports: setup
	$(BIN)/lint-imports --no-cache

check: lint types imports

torture: setup
	TORTURE=$${TORTURE:-20000} SPIKINGMOE_TRIALS=$${TRIALS:-100} $(BIN)/python -m pytest $(TORTURED) --timeout 7200

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
