# One command each; set-up is done when it is missing or pyproject.toml or constraints.txt has changed.
PYTHON ?= python3
WORKERS ?= 2
RUN ?= runs/demo

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS)
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev
BENCHMARKS := $(VENV)/.installed-benchmarks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format test-slow chaos distributed fuzz benchmarks clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(DEVELOPMENT) ## create .venv with everything needed to run and to develop

demo: $(RUNTIME) ## train, evaluate and sample a small model on data that comes along: runs/demo
	$(BIN)/jensen demo --out $(RUN)

test: lint ## everything CI runs: lint, types, import law, tests and doctests
	$(PYTEST) --durations 15

lint: $(DEVELOPMENT) ## ruff, mypy and the import law
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPMENT) ## let ruff put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-slow: $(DEVELOPMENT) ## the tests that take minutes
	$(PYTEST) -m slow --durations 15

chaos: $(DEVELOPMENT) ## kill trainings 225 times with SIGKILL and compare what they end with (minutes)
	$(PYTEST) -m slow tests/test_survival.py --durations 5

distributed: $(DEVELOPMENT) ## torchrun, accelerate launch, sharding, three processes, two hosts in network namespaces (minutes)
	$(PYTEST) -m "slow or not slow" tests/test_processes.py tests/test_distributed.py --durations 5

fuzz: $(DEVELOPMENT) ## damaged and hostile files, configurations and words: 10,000 cases, others every time (half an hour)
	FUZZ_CASES=830 $(PYTEST) tests/test_fuzz.py --durations 5

benchmarks: $(BENCHMARKS) ## print every table of benchmarks/ (long)
	for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python "$$program" || exit 1; done

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist src/*.egg-info .*_cache .hypothesis

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jensen needs Python 3.11 or newer, $(PYTHON) is %d.%d: say make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing what jensen runs on into $(VENV): minutes the first time"
	@$(PIP) --editable .
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@echo "Installing the tools of development into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(BENCHMARKS): $(RUNTIME)
	@echo "Installing the peers that benchmarks compare with into $(VENV)"
	@$(PIP) --editable '.[benchmarks]'
	@touch $@
