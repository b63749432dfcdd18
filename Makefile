# Everything a new machine needs is Python 3.11 or newer, make and git. The first target that needs it makes the virtual
# environment: .venv, or .venv-3.13 and so on if there is a .venv already that belongs to another Python version.
PYTHON ?= python3
# The test processes, two for each core unless you name another number, as many tests wait for other programs.
JOBS   ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start Python hundreds of times, which would compile the package each time.
export PYTHONDONTWRITEBYTECODE :=

version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
WANTED := $(call version,$(PYTHON))
FOUND  := $(if $(wildcard .venv/bin/python),$(call version,.venv/bin/python))
VENV   := .venv$(if $(filter-out $(WANTED),$(FOUND)),-$(WANTED))
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist worksteal

# `make quick` leaves out what runs programs: the benchmarks, and pytest itself.
QUICK := tests/unit $(addprefix tests/conformance/test_,$(addsuffix .py,stream statem supervisor links handler integration)) \
	$(addprefix --deselect tests/unit/test_,$(addsuffix .py,benchmarks_run seeds))

.PHONY: promtool redis chromium run serve quick check lint types workflows deploy test whole installed-judges judges judges-node nginx chaos simulate soak mutants bench bench-litellm format docs diagrams clean help
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

serve: $(VENV)/.dev  ## the gateway with its dashboard under a small load without an end, until Ctrl-C; PORT=n for another port
	@$(BIN)/penstock serve --demo --port $(or $(PORT),8900)

quick: $(VENV)/.dev  ## after each edit, under a minute: ruff, the unit tests and a few of the conformance tests
	$(BIN)/ruff check .
	$(PYTEST) --hypothesis-profile quick $(QUICK)

check: lint types workflows deploy  ## lint, types, workflows and deploy/; says whether the benchmarks' figures are of this code
	@$(BIN)/python -m benchmarks --is-current

lint: $(VENV)/.dev  ## ruff check, ruff format --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy --strict, for Linux, macOS and Windows
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

workflows: $(VENV)/.dev  ## compare the workflows of GitHub Actions with their schema
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

deploy: $(VENV)/.dev  ## compare deploy/ with the schemas of compose and Kubernetes, and lint the Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint deploy/Dockerfile; else echo "hadolint is not on PyPI for this machine: deploy/Dockerfile was not linted"; fi

test: $(VENV)/.dev installed-judges  ## every test, of many alike cases a sample; those of Node and nginx are skipped where these cannot be had
	$(PYTEST)

whole: $(VENV)/.dev installed-judges  ## every case of every test, with both readers, and the long ones of `make judges`
	$(PYTEST) --whole

installed-judges: $(VENV)/.dev
	@$(BIN)/python -m tests.judges.install || true
	@$(BIN)/python -m tests.integration.gateway.nginx || true
	@$(BIN)/python -m tests.integration.promtool || true
	@$(BIN)/python -m tests.integration.engines || true
	@$(BIN)/python -m tests.judges.chromium || true

chaos: $(VENV)/.dev  ## three nodes, their server and the network between them fail in every way for SECONDS=600, under STREAMS=300; SENTINELS=--sentinels
	$(BIN)/python -m tests.cluster.chaos --seconds $(or $(SECONDS),600) --streams $(or $(STREAMS),300) $(SENTINELS)

judges: $(VENV)/.dev installed-judges  ## every test with the clients of others: in JavaScript, curl, Chromium; skipped where one cannot be had
	$(BIN)/python -m pytest tests/judges tests/integration/gateway --judges

judges-node: $(VENV)/.dev  ## install the clients in JavaScript that the gateway is tried with, into .judges
	@$(BIN)/python -m tests.judges.install

simulate: $(VENV)/.dev  ## every seeded test under 1,000 seeds; SEEDS=n for another number, FIRST=n for the first of them
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --first-seed $(or $(FIRST),0)

soak: $(VENV)/.dev  ## a minute of killing processes under load, and one of 200 calls a second; SOAK=seconds for another time
	$(BIN)/python -m pytest tests/integration/test_kill.py tests/integration/test_soak.py -s --soak $(or $(SOAK),60) --timeout 900

mutants: $(VENV)/.dev  ## change core modules in one place at a time and see whether the tests notice; SAMPLE=n per module, SEED=n
	$(BIN)/python -m tests.mutation --sample $(or $(SAMPLE),10) --seed $(or $(SEED),0) $(if $(MODULES),--modules $(MODULES))

format: $(VENV)/.dev  ## fix what ruff can fix, and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## measure side by side with comparable libraries, say what got slower than benchmarks/RESULTS.md beyond noise, write it
	$(BIN)/python -m benchmarks --write

bench-litellm: .litellm/.installed  ## install LiteLLM's proxy (about 750 MB) for the benchmark of the gateway, apart from all else

.litellm/.installed:
	@$(PYTHON) -m venv --clear .litellm
	@.litellm/bin/python -m pip install 'litellm[proxy]>=1.80'
	@touch $@

nginx: $(VENV)/.dev  ## unpack Debian's nginx into .judges/, for the tests behind a proxy; they are skipped without it
	$(BIN)/python -m tests.integration.gateway.nginx

promtool: $(VENV)/.dev  ## unpack Debian's promtool into .judges/, for the test of the metrics' names; skipped without it
	$(BIN)/python -m tests.integration.promtool

chromium: $(VENV)/.dev  ## unpack Debian's Chromium into .judges/ (about 400 MB), for the tests in a browser; skipped without it
	$(BIN)/python -m tests.judges.chromium

redis: $(VENV)/.dev  ## unpack Debian's redis-server into .judges/, for the tests of the log store; skipped without it
	$(BIN)/python -m tests.integration.engines

docs: $(VENV)/.docs  ## the documentation, into site/
	$(BIN)/mkdocs build --strict

diagrams: $(VENV)/.dev  ## draw the diagrams of the documentation from the state tables
	$(BIN)/python -m tests.diagrams

clean:  ## remove the virtual environments and everything else that was made here
	rm -rf .venv .venv-3.* .litellm .judges site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
