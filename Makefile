# Everything a fresh machine needs is Python 3.11 or newer, make and git: the first target that needs it makes the
# virtual environment. It is .venv; if .venv belongs to another Python version than $(PYTHON), it is .venv-3.13 or so.
PYTHON ?= python3
JOBS   ?= logical
export PIP_DISABLE_PIP_VERSION_CHECK := 1

version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
WANTED := $(call version,$(PYTHON))
FOUND  := $(if $(wildcard .venv/bin/python),$(call version,.venv/bin/python))
VENV   := .venv$(if $(filter-out $(WANTED),$(FOUND)),-$(WANTED))
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# One process for each core. A process that has run out of tests takes some from another one.
PARALLEL := --numprocesses $(JOBS) --maxprocesses 8 --dist worksteal

.PHONY: run quick test simulate soak check bench docs format clean help
.DELETE_ON_ERROR:

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Penstock needs Python 3.11 or newer, and $(PYTHON) is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.11 ...")'
	@echo "Making the virtual environment $(VENV) for Python $(WANTED) ..."
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.run: pyproject.toml $(BIN)/python
	@echo "Installing Penstock into $(VENV) ..."
	@$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing the development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	@echo "Installing the documentation tools into $(VENV) ..."
	@$(BIN)/python -m pip install --editable '.[docs]'
	@touch $@

run: $(VENV)/.run  ## the demo: several streams, a retry, a crash, an agent with tools, the tree, the statistics
	@$(BIN)/penstock run

test: $(VENV)/.dev  ## every test
	$(BIN)/python -m pytest

simulate: $(VENV)/.dev  ## the conformance suites and random programs under 1,000 seeds each; SEEDS=n for others
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000)

soak: $(VENV)/.dev  ## kill processes of a running system under load for a minute; SOAK=seconds for another time
	$(BIN)/python -m pytest tests/integration/test_kill.py --soak $(or $(SOAK),60) --timeout 900

check: $(VENV)/.dev  ## ruff, ruff format, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## put the code into our form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## measure, side by side with the peers, and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks --write

docs: $(VENV)/.docs  ## the documentation, into site/
	$(BIN)/mkdocs build --strict

.PHONY: diagrams
diagrams: $(VENV)/.dev  ## draw the diagrams of the documentation from the state tables
	$(BIN)/python -m tests.diagrams

clean:  ## remove what was made here
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
