# Every target makes .venv and installs what it needs, once.

PYTHON ?= python3
PYTHON_NEWEST ?= python3.13
BIN := .venv/bin

.PHONY: demo test test-slow test-oldest test-newest bench bench-engine bench-kernel lint docs clean

demo: .venv/installed ## evolve a ternary network on images that come with qevo: runs/demo/
	$(BIN)/qevo train --name demo $(DEMO)

test: .venv/installed-dev ## all tests but the slow and the accelerator ones
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/installed-dev ## the slow tests, all others compiled as users compile, and a GPU's or TPU's
	$(BIN)/python -m pytest -m slow
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist worksteal
	@if $(BIN)/python -c "import jax, sys; sys.exit(jax.default_backend() == 'cpu')"; \
	then $(BIN)/python -m pytest -m accelerator; else echo "no accelerator here"; fi

test-oldest: .venv-oldest/installed ## all tests but the slow ones, with the oldest versions allowed
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal

test-newest: .venv-newest/installed ## all tests but the slow ones, with the newest versions allowed
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal

bench: .venv/installed-dev ## where the time goes, and the share of pure inference
	$(BIN)/python benchmarks/paths.py --output results/paths.json
	$(BIN)/python benchmarks/generation.py --output results/generation.json

bench-engine: .venv/installed-bench ## the population engine against pure inference and its peers
	$(BIN)/python benchmarks/engine.py --output results/bench_engine.json

bench-kernel: .venv/installed-bench ## discrete problems without networks: throughput, quality, scale; within an hour
	$(BIN)/python benchmarks/kernel.py --scale-seconds 900 --huge 100000000 --output results/bench_kernel.json

lint: .venv/installed-dev ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: .venv/installed-dev ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove the environments
	rm -rf .venv .venv-oldest .venv-newest

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'qevo needs Python 3.11 or newer; set PYTHON=')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/installed

.venv/installed-bench: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	touch $@ .venv/installed

.venv-oldest/installed: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --editable ".[dev]" --constraint tests/oldest.txt
	touch $@

.venv-newest/installed: pyproject.toml
	$(PYTHON_NEWEST) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[dev]"
	touch $@
