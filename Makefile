# `make demo` needs Python 3.11+, make and a C library, nothing else. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports unit soak mutants bench-malformed bench-prepare lock json clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/service ## watch real network flows become alerts, in under a minute
	@$(BIN)/python -m stream demo

test: lint types imports unit ## lint, types, import contract and all tests against a real broker

lint: .venv/dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev ## mypy, strict
	$(BIN)/mypy

imports: .venv/dev ## which package may import which
	$(BIN)/lint-imports

unit: .venv/dev ## all tests, with branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

bench-malformed: .venv/dev ## what a stream costs of which half is malformed, over a clean one
	$(BIN)/python -m bench.malformed

bench-prepare: .venv/dev ## time and memory of `trainer prepare` for as many flows as CICIDS2017 has
	$(BIN)/python -m bench.prepare

soak: .venv/dev ## faults every few seconds for MINUTES=5 at half the top rate, by SEED
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(SOAK)

mutants: .venv/dev ## break each guarantee in a copy: the tests must notice
	$(BIN)/python -m tests.faults.mutants $(MUTANTS)

lock: .venv/uv ## resolve the versions in requirements/ anew
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--extra broker pyproject.toml --output-file requirements/service.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev --constraint requirements/service.txt pyproject.toml --output-file requirements/dev.txt

json: .venv/service ## write schemas/json/ anew from the contracts
	$(BIN)/python -m schemas

clean: ## remove .venv and caches; data, runs and bundles stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

.venv/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or later is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

.venv/service: .venv/uv requirements/service.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements/service.txt
	$(BIN)/python -m stream broker --fetch
	@touch $@

.venv/dev: .venv/service requirements/dev.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements/dev.txt
	@touch $@
