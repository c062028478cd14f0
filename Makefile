# The few things people do here. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= pipelines/configs/local.yaml
INTERACTIONS ?=
ITEMS ?=
FOLDER ?=
RUNS ?= runs/local
# uv does not read pip's configuration; a folder of wheels given to pip serves it as well.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Idle OpenMP workers that spin starve the others on a small machine.
export OMP_WAIT_POLICY := PASSIVE
export DO_NOT_TRACK := 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup system run profile picture test test-slow coverage bench lint types compile lock clean

include $(wildcard mk/*.mk)

# Targets with a `## text` beside them, those whose name matches $(1).
listing = awk -F ':[^\#]*\#\# ' '/^$(1):.*\#\# / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

help: ## list the targets
	@$(call listing,[a-z-]+)

$(VENV)/.ready: requirements.lock pyproject.toml images/locked.py
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: newfound needs Python 3.11 (set PYTHON=...)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/python images/locked.py requirements.lock --wheels $(UV_FIND_LINKS) > $(VENV)/requirements.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(VENV)/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: $(VENV)/.ready ## create the environment

run: setup ## train on real data and publish a release (INTERACTIONS=, ITEMS=, CONFIG=, FOLDER=)
	@$(BIN)/python -m pipelines local training --config $(CONFIG) $(if $(INTERACTIONS),--interactions $(INTERACTIONS)) $(if $(ITEMS),--items $(ITEMS)) $(if $(FOLDER),--folder $(FOLDER))

profile: ## what every step of the last run took: seconds, processor seconds, peak memory (RUNS=)
	@$(BIN)/python -m pipelines profile --runs $(RUNS)

picture: system ## take docs/report.png from the last run's report (RUNS=)
	@$(BIN)/python -m tests.report_picture $(RUNS)/report.html docs/report.png

test: lint types system ## lint, types, tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: lint types system ## the tests that are too long for every change
	@$(BIN)/python -m pytest -m "slow and not gpu"

coverage: lint types system ## the tests, and which lines of the library and the pipelines they leave out
	@$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

bench: ## list the benchmarks
	@$(call listing,bench-[a-z-]+)

# Real servers and a real browser for the tests. Without root they are left to the person; tests that need them skip.
SYSTEM_PACKAGES := chromium openjdk-17-jre-headless postgresql prometheus prometheus-alertmanager redis-server
system:
	@missing=""; for p in $(SYSTEM_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else echo "not installed, tests that need them skip:$$missing (apt-get install$$missing)"; fi

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

compile: setup ## write the pipelines as KFP IR YAML
	@$(BIN)/python -m pipelines compile

lock: setup ## resolve requirements.lock anew, with the digest of every file
	@UV_FIND_LINKS= $(BIN)/uv pip compile --quiet pyproject.toml --all-extras --group dev --python-version 3.11 --no-header \
	  --generate-hashes -o requirements.lock > /dev/null

clean: ## remove what runs left behind (releases stay)
	@rm -rf runs .pytest_cache .mypy_cache .ruff_cache
