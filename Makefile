# `make demo` needs Python 3.11+, make and a C library, nothing else. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
TAG ?= latest

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports unit lint-deploy soak mutants bench-drift bench-malformed bench-prepare lock json \
	dashboard docs image image-train images-push bundles secrets clean

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

lint-deploy: .venv/deploy ## images, compose file, chart, unit and workflows, by their own linters
	$(BIN)/python -m pytest tests/deploy

bench-drift: .venv/dev ## what measuring drift costs, as a ratio of throughputs
	$(BIN)/python -m bench.drift

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
		--extra api --extra broker pyproject.toml --output-file requirements/service.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev --constraint requirements/service.txt pyproject.toml --output-file requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--extra api --constraint requirements/service.txt pyproject.toml --output-file requirements/image.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--extra trainer --constraint requirements/dev.txt pyproject.toml --output-file requirements/train.txt

json: .venv/service ## write schemas/json/ anew from the contracts
	$(BIN)/python -m schemas

dashboard: .venv/dev ## write deploy/grafana/flowsentry.json anew from dashboard.py
	$(BIN)/python deploy/grafana/dashboard.py

docs: .venv/dev ## the pages of docs/ as a site, in site/; SOURCE_URL=… says where the repository is
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file deploy/docs/mkdocs.yml

image: ## the detector's image, flowsentry-service:TAG (latest); needs Docker
	docker build --file deploy/docker/Dockerfile.service --tag $(REGISTRY)flowsentry-service:$(TAG:v%=%) .

image-train: ## the pipeline's image, flowsentry-train:TAG
	docker build --file deploy/docker/Dockerfile.train --tag $(REGISTRY)flowsentry-train:$(TAG:v%=%) .

images-push: image image-train ## both, to REGISTRY=host/owner/
	docker push $(REGISTRY)flowsentry-service:$(TAG:v%=%)
	docker push $(REGISTRY)flowsentry-train:$(TAG:v%=%)

bundles: .venv/service ## verify bundles/ and pack each into dist/, with SHA256SUMS
	@mkdir -p dist
	for name in $$(ls bundles); do \
		$(BIN)/python -m export verify bundles/$$name && tar --create --gzip --file dist/$$name.tar.gz --directory bundles $$name || exit 1; \
	done
	cd dist && sha256sum *.tar.gz > SHA256SUMS

secrets: ## draw the passwords that docker-compose.yml wants, where there are none yet
	@mkdir -p -m 0700 deploy/secrets
	@for name in api_key grafana_password postgres_password; do \
		test -s deploy/secrets/$$name || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > deploy/secrets/$$name; \
		chmod 0444 deploy/secrets/$$name; \
	done

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

# Linters of what is in deploy/. Those written in Go are left out where there is no Go: their tests then skip and say so.
.venv/deploy: .venv/dev requirements/deploy.txt deploy/linters.sh
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --requirement requirements/deploy.txt
	@if command -v go >/dev/null; then sh deploy/linters.sh $(BIN); else echo "no Go here: helm, kubeconform, actionlint and docker compose are not installed"; fi
	@touch $@
