# Everything a fresh machine needs is Python ≥ 3.11, make and git: the first target that needs it makes .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test simulate soak check bench docs format clean help

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"penstock needs Python 3.11 or newer, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing penstock into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what development needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --editable '.[docs]'
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
