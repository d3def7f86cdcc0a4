# Every target is one command. Set-up runs first if .venv is missing, or if pyproject.toml or constraints.txt changed.
PYTHON ?= python3
WORKERS ?= 2
RUN ?= runs/demo

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# worksteal: each process begins with half of the files, so it makes the runs that the tests of a file share only once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev
BENCHMARKS := $(VENV)/.installed-benchmarks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format test-slow chaos distributed fuzz release-check trackio serve-fuzz page docs benchmarks clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(DEVELOPMENT) ## create .venv with everything for running and developing

demo: $(RUNTIME) ## train, evaluate and sample a small model on the included digits: runs/demo
	$(BIN)/jensen demo --out $(RUN)

test: lint ## run all checks of CI: lint, types, import law, tests and doctests
	$(PYTEST) --durations 15

lint: $(DEVELOPMENT) ## run ruff, mypy and the check of the import law
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPMENT) ## format the code and fix lint with ruff
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-slow: $(DEVELOPMENT) ## run the tests that take minutes
	$(PYTEST) -m slow --durations 15

chaos: $(DEVELOPMENT) ## kill trainings 225 times with SIGKILL and compare the final results (minutes)
	$(PYTEST) -m slow tests/test_survival.py --durations 5

distributed: $(DEVELOPMENT) ## test torchrun, accelerate launch, sharding, three processes, two hosts in network namespaces (minutes)
	$(PYTEST) -m "slow or not slow" tests/test_processes.py tests/test_distributed.py --durations 5

page: $(DEVELOPMENT) ## test the page of jensen serve in Chromium: every widget, keys, touch, axe (needs chromium)
	$(PYTEST) -m "slow or not slow" tests/test_page.py --durations 5

fuzz: $(DEVELOPMENT) ## test 10,000 new random cases of damaged and hostile files, configurations and arguments (half an hour)
	FUZZ_CASES=830 $(PYTEST) tests/test_fuzz.py --durations 5

release-check: $(BIN)/pip ## build wheel and sdist twice, use the wheel outside the repository, audit it (many minutes)
	$(BIN)/python .ci/release_check.py

trackio: $(DEVELOPMENT) ## test the tracker trackio, which needs another Pillow, in an environment of its own (minutes)
	$(PYTHON) -m venv --clear build/trackio
	grep -v -i '^pillow==' constraints.txt > build/trackio/constraints.txt
	build/trackio/bin/python -m pip install --quiet --constraint build/trackio/constraints.txt --editable '.[dev,trackio]'
	build/trackio/bin/pytest -m slow tests/test_trackers.py -k trackio

serve-fuzz: $(DEVELOPMENT) ## send 100,000 hostile requests to the server: no status 500, nothing written (an hour)
	SERVE_FUZZ_CASES=85000 OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_serve_fuzz.py --durations 5 --capture=tee-sys

benchmarks: $(BENCHMARKS) ## run all of benchmarks/, print their tables and record them in benchmarks/results (long)
	for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python benchmarks/results/record.py "$$program" || exit 1; done

docs: $(DEVELOPMENT) ## build the site into site/: run its blocks and gallery, check links, anchors and spelling (minutes)
	PYTHONPATH=docs OMP_NUM_THREADS=1 $(BIN)/python -m builder

clean: ## remove .venv and caches, but keep runs/
	rm -rf $(VENV) build dist site src/*.egg-info .*_cache .hypothesis

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jensen needs Python 3.11 or newer, $(PYTHON) is %d.%d; run make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the dependencies of jensen into $(VENV); the first time takes minutes"
	@$(PIP) --editable .
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@echo "Installing the development tools into $(VENV)"
	@$(PIP) --editable '.[dev,docs]'
	@touch $@

$(BENCHMARKS): $(RUNTIME)
	@echo "Installing the libraries for comparison in benchmarks into $(VENV)"
	@$(PIP) --editable '.[benchmarks]'
	@touch $@
